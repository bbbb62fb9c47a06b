use std::os::unix::fs::PermissionsExt;

use tunnel_ingress::{Credential, Secret};

use super::*;
use crate::{config::Config, state::State};

#[tokio::test]
async fn what_init_made_opens_and_knows_its_admin() {
    let place = tempfile::tempdir().unwrap();
    let new = cluster(place.path());
    let made = init(&new, NOW).await.unwrap();

    let config = Config::load(&new.config).unwrap();
    assert_eq!(config.state, made.state.path());
    assert_eq!(config.gateway.advertise, [new.public]);
    assert_eq!(config.rules, [tunnel_model::Rule::for_admins()]);
    assert_eq!(config.listen.public, "0.0.0.0:7000".parse().unwrap());
    let state = State::open(&config).await.unwrap();
    assert_eq!(state.authority.root().cluster(), made.cluster);

    let secret = fs::read_to_string(made.state.admin_secret()).unwrap();
    let secret = Secret::new(secret.trim());
    let admin = state.users.authenticate(&Credential::Bearer { secret }, NOW).unwrap();
    assert!(admin.is_member_of(ADMINS));
}

/// R7
#[tokio::test]
async fn nobody_else_may_look_into_the_state() {
    let place = tempfile::tempdir().unwrap();
    let made = init(&cluster(place.path()), NOW).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(made.state.path()), 0o700);
    assert_eq!(mode(&made.state.admin_secret()), 0o600);
    assert_eq!(mode(&made.state.store()), 0o600);
}

#[tokio::test]
async fn a_state_or_configuration_that_is_there_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let new = cluster(place.path());
    fs::write(&new.config, "precious").unwrap();
    assert!(matches!(init(&new, NOW).await, Err(InitError::ConfigExists(_))));
    assert_eq!(fs::read_to_string(&new.config).unwrap(), "precious");
    assert!(!new.state.exists());

    fs::remove_file(&new.config).unwrap();
    fs::create_dir(&new.state).unwrap();
    fs::write(new.state.join("precious"), "x").unwrap();
    assert!(matches!(init(&new, NOW).await, Err(InitError::StateExists(_))));
    assert!(new.state.join("precious").exists());
    assert!(!new.config.exists());
}

#[tokio::test]
async fn a_failure_at_the_end_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut new = cluster(place.path());
    new.config = place.path().join("missing/cloud.toml");
    assert!(matches!(init(&new, NOW).await, Err(InitError::Io { .. })));
    assert!(!new.state.exists());

    // An empty directory, such as a mounted volume, stays and stays empty.
    fs::create_dir(&new.state).unwrap();
    assert!(init(&new, NOW).await.is_err());
    assert_eq!(fs::read_dir(&new.state).unwrap().count(), 0);
}

#[test]
fn the_gateway_listens_where_it_can_be_reached() {
    let listen = |public: &str| listen_for(&public.parse().unwrap()).to_string();
    assert_eq!(listen("gw.example.com:443"), "0.0.0.0:443");
    assert_eq!(listen("192.0.2.1:7000"), "0.0.0.0:7000");
    assert_eq!(listen("[2001:db8::1]:7000"), "[::]:7000");
    assert_eq!(listen("127.0.0.1:7000"), "127.0.0.1:7000");
}

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn cluster(place: &Path) -> NewCluster {
    NewCluster {
        config: place.join("cloud.toml"),
        state: place.join("state \"of\" art"),
        public: "gw.example.com:7000".parse().unwrap(),
        proxy: "127.0.0.1:7080".parse().unwrap(),
        zone: Zone::default(),
    }
}
