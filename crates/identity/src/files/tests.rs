use std::time::Duration;

use super::*;
use crate::{
    Expiry, NodeIdentity,
    testing::{CLUSTER, Cluster, NODE, NOW},
};

#[test]
fn keys_and_their_directory_are_the_owners_alone() {
    let home = Home::gateway();
    for key in ["root.key", "issuing.key", "gateway.key"] {
        assert_eq!(home.mode(key), 0o600, "{key}");
    }
    assert_eq!(home.mode("."), 0o700);
}

#[test]
fn a_gateway_reads_back_what_it_made() {
    let home = Home::gateway();
    let files = GatewayFiles::open(&home.dir());
    let authority = files.authority().unwrap();
    assert_eq!(authority.root().cluster(), CLUSTER);
    assert_eq!(files.gateway().unwrap().chain().len(), 3);
    assert_eq!(files.root().unwrap().certificate().pin(), authority.root().pin());
}

#[test]
fn a_gateway_works_on_while_its_root_key_lies_in_a_safe() {
    let home = Home::gateway();
    fs::remove_file(home.path("root.key")).unwrap();
    let files = GatewayFiles::open(&home.dir());
    assert!(files.authority().is_ok());
    assert!(files.renew_gateway(&[], NOW).is_ok());
    assert_eq!(files.root().unwrap_err().code(), "state-missing");
}

#[test]
fn init_does_not_replace_a_cluster() {
    let home = Home::gateway();
    let before = fs::read(home.path("root.key")).unwrap();
    let again = GatewayFiles::init(&home.dir(), CLUSTER, &[], NOW);
    assert_eq!(again.unwrap_err().code(), "state-exists");
    assert_eq!(fs::read(home.path("root.key")).unwrap(), before);
}

/// R7
#[test]
fn r7_a_key_that_others_may_read_is_refused_with_a_fix() {
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let home = Home::node();
        fs::set_permissions(home.path("node.key"), fs::Permissions::from_mode(mode)).unwrap();
        let error = home.refused();
        assert_eq!(error.code(), "key-permissions");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

/// R7
#[test]
fn r7_what_is_damaged_missing_or_of_another_is_refused_and_left_alone() {
    let other = Home::node();
    let rows: [(&str, &str, Option<Vec<u8>>); 8] = [
        ("key-corrupt", "node.key", Some(vec![])),
        (
            "key-corrupt",
            "node.key",
            Some(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
        ),
        ("key-corrupt", "node.key", Some(vec![0xff; 100_000])),
        (
            "key-mismatch",
            "node.key",
            Some(fs::read(other.path("node.key")).unwrap()),
        ),
        (
            "key-mismatch",
            "node.crt",
            Some(fs::read(other.path("node.crt")).unwrap()),
        ),
        ("cert-corrupt", "node.crt", Some(vec![])),
        ("key-incomplete", "node.key", None),
        ("key-incomplete", "node.crt", None),
    ];
    for (code, file, content) in rows {
        let home = Home::node();
        match &content {
            Some(content) => fs::write(home.path(file), content).unwrap(),
            None => fs::remove_file(home.path(file)).unwrap(),
        }
        assert_eq!(home.refused().code(), code, "{file}");
    }
}

/// R3: whatever the step at which a renewal was cut, what is on disk is one whole credential.
#[test]
fn r3_a_renewal_cut_at_any_step_leaves_a_usable_pair() {
    let home = Home::node();
    let before = home.node_files().load().unwrap().unwrap();
    let files = home.node_files();

    let key = files.begin().unwrap();
    assert_eq!(
        files.load().unwrap().unwrap().chain(),
        before.chain(),
        "cut after the next key"
    );
    fs::write(home.path("node.crt.tmp"), "half a certif").unwrap();
    assert_eq!(
        files.load().unwrap().unwrap().chain(),
        before.chain(),
        "cut while the chain was written"
    );

    let chain = home.issue(&key);
    let old_key = fs::read(home.path("node.key")).unwrap();
    let next_key = fs::read(home.path("node.next.key")).unwrap();
    files.commit(chain.clone()).unwrap();
    // As it was between the two steps of the commit.
    write(&home.path("node.key"), &old_key, 0o600).unwrap();
    write(&home.path("node.next.key"), &next_key, 0o600).unwrap();
    for _ in 0..2 {
        assert_eq!(
            files.load().unwrap().unwrap().chain(),
            chain,
            "cut before the key was moved"
        );
    }
    assert_eq!(fs::read(home.path("node.key")).unwrap(), next_key);
    assert!(!home.path("node.next.key").exists());
}

/// R3
#[test]
fn r3_an_enrolment_cut_before_its_certificate_is_no_enrolment() {
    let home = Home::empty();
    let files = home.node_files();
    files.begin().unwrap();
    assert!(files.load().unwrap().is_none());
    let key = files.begin().unwrap();
    files.commit(home.issue(&key)).unwrap();
    assert!(files.load().unwrap().is_some());
}

#[test]
fn a_chain_for_another_key_is_not_committed() {
    let home = Home::node();
    let before = home.node_files().load().unwrap().unwrap();
    home.node_files().begin().unwrap();
    let stranger = PrivateKey::generate().unwrap();
    assert!(home.node_files().commit(home.issue(&stranger)).is_err());
    assert_eq!(home.node_files().load().unwrap().unwrap().chain(), before.chain());
}

#[test]
fn a_node_finds_its_root_and_the_last_good_time_again() {
    let home = Home::empty();
    let files = NodeFiles::open(&home.dir()).unwrap();
    assert!(files.root().unwrap().is_none());
    assert_eq!(files.last_good_time(), None);
    files.save_root(home.cluster.root.certificate()).unwrap();
    files.save_last_good_time(NOW).unwrap();
    assert_eq!(
        files.root().unwrap().unwrap().pin(),
        home.cluster.root.certificate().pin()
    );
    assert_eq!(files.last_good_time(), Some(NOW));
    fs::write(home.path("clock"), "soon").unwrap();
    assert_eq!(files.last_good_time(), None);
}

/// T7
#[test]
fn t7_after_rotation_new_nodes_and_old_ones_are_known() {
    let home = Home::gateway();
    let files = GatewayFiles::open(&home.dir());
    let issue = |authority: &Authority, now| {
        let key = PrivateKey::generate().unwrap().public().unwrap();
        authority
            .issue_node(&key, NODE, &"edge1".parse().unwrap(), now)
            .unwrap()
    };
    let old = issue(&files.authority().unwrap(), NOW);
    let later = NOW.plus(Duration::from_secs(3600));
    files.rotate_issuing(&files.root().unwrap(), later).unwrap();
    files.renew_gateway(&[], later).unwrap();
    let authority = files.authority().unwrap();
    assert!(authority.rotate_at() > later);
    for chain in [old, issue(&authority, later)] {
        let none = |_, _: &crate::Serial| false;
        assert!(NodeIdentity::from_chain(&chain, authority.root(), later, Expiry::Full, &none).is_ok());
    }
}

/// A state directory that goes away with the test.
struct Home {
    temp: tempfile::TempDir,
    cluster: Cluster,
}

impl Home {
    fn empty() -> Self {
        let home = Self {
            temp: tempfile::tempdir().unwrap(),
            cluster: Cluster::new(),
        };
        make_dir(&home.dir()).unwrap();
        home
    }

    fn node() -> Self {
        let home = Self::empty();
        let key = home.node_files().begin().unwrap();
        home.node_files().commit(home.issue(&key)).unwrap();
        home
    }

    fn gateway() -> Self {
        let home = Self::empty();
        GatewayFiles::init(&home.dir(), CLUSTER, &["gw.example.com".to_owned()], NOW).unwrap();
        home
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    fn node_files(&self) -> CredentialFiles {
        CredentialFiles::new(&self.dir(), "node")
    }

    fn issue(&self, key: &PrivateKey) -> Vec<CertificateDer<'static>> {
        let (key, name) = (key.public().unwrap(), "edge1".parse().unwrap());
        self.cluster.authority.issue_node(&key, NODE, &name, NOW).unwrap()
    }

    /// The refusal, once it is sure that neither loading nor renewing changed a file.
    fn refused(&self) -> FileError {
        let before = self.content();
        let error = self.node_files().load().unwrap_err();
        assert!(self.node_files().begin().is_err(), "a refused key was replaced");
        assert_eq!(self.content(), before);
        error
    }

    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        files.sort();
        files
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.path(file)).unwrap().permissions().mode() & 0o777
    }
}
