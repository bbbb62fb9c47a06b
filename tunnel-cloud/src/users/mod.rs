//! Users of the gateway: people and programs that prove who they are with a secret, or a certificate for its key.
//!
//! The [`Authenticator`] asks them, and the issuers of tokens ([`crate::oidc`]).
//!
//! Everybody's record is held in memory, so that a request costs one lookup and one hash and never touches the store.

mod authenticator;
mod failures;
mod secret;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rand::CryptoRng;
use tokio::sync::Mutex;
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::{UnixTime, UserId, UserIdentity};
use tunnel_ingress::Credential;
use tunnel_model::{GroupName, Principal, Reason, Refusal, UserName};

use crate::store::{Store, StoreError, User};

pub use authenticator::Authenticator;
pub use secret::UserSecret;

/// A user was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateUserError {
    /// The name belongs to somebody.
    #[error("a user named {0} exists already")]
    Taken(UserName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CreateUserError> for CliError {
    fn from(error: CreateUserError) -> Self {
        match error {
            CreateUserError::Taken(_) => Self::new(Exit::Failure, "user-exists", error.to_string())
                .with_hint("choose another name, or remove the user first"),
            CreateUserError::Store(error) => error.into(),
        }
    }
}

/// All users, in memory and in the store.
pub struct Users {
    store: Arc<dyn Store>,
    by_handle: RwLock<HashMap<[u8; 8], User>>,
    /// Who was removed in this run and has not been made again.
    removed: RwLock<HashSet<UserName>>,
    /// Held across a change of both, so that they see changes in the same order.
    changing: Mutex<()>,
}

impl Users {
    /// Reads every user from the store.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let users = store.users().await?;
        Ok(Self {
            store,
            by_handle: RwLock::new(users.into_iter().map(|u| (u.handle, u)).collect()),
            removed: RwLock::default(),
            changing: Mutex::default(),
        })
    }

    /// Who shows this credential. A name, where one is shown, must be that of the secret's owner.
    ///
    /// Takes as long for a secret that nobody has as for a wrong one, and says no more about it.
    pub fn authenticate(&self, credential: &Credential, now: UnixTime) -> Result<Principal, Refusal> {
        let principal = match credential {
            Credential::Basic { user, secret } => self.principal(Some(user), secret.expose()),
            Credential::Bearer { secret } => self.principal(None, secret.expose()),
            Credential::Certificate(certificate) => self.certified(certificate, now),
        };
        principal.ok_or_else(wrong)
    }

    /// Whom a certificate was issued to, while it is valid and the user exists.
    fn certified(&self, certificate: &UserIdentity, now: UnixTime) -> Option<Principal> {
        certificate.check_time(now).ok()?;
        let users = self.read();
        let user = users.get(certificate.id.as_bytes())?;
        Some(Principal::user(user.name.clone(), user.groups.clone()))
    }

    /// What a user's certificates are to say, if there is such a user.
    pub fn id_of(&self, name: &UserName) -> Option<UserId> {
        let users = self.read();
        let user = users.values().find(|user| user.name == *name);
        user.map(|user| UserId::from_bytes(user.handle))
    }

    fn principal(&self, name: Option<&str>, text: &str) -> Option<Principal> {
        let secret = UserSecret::parse(text)?;
        let users = self.read();
        let user = users.get(&secret.handle());
        let right = match user {
            Some(user) => secret.matches(&user.salt, &user.hash),
            None => secret.matches(&[0; 16], &[0; 32]),
        };
        let user = user.filter(|u| right && name.is_none_or(|name| name == u.name.as_str()))?;
        Some(Principal::user(user.name.clone(), user.groups.clone()))
    }

    /// The user of this name, without any proof.
    pub fn by_name(&self, name: &UserName) -> Option<Principal> {
        let users = self.read();
        let user = users.values().find(|user| user.name == *name)?;
        Some(Principal::user(user.name.clone(), user.groups.clone()))
    }

    /// Makes a user, and the secret that is shown this once.
    pub async fn create(
        &self,
        name: UserName,
        groups: Vec<GroupName>,
        now: UnixTime,
    ) -> Result<UserSecret, CreateUserError> {
        let (user, secret) = new_user(name, groups, now, &mut rand::rng());
        let _changing = self.changing.lock().await;
        if !self.store.add_user(user.clone()).await? {
            return Err(CreateUserError::Taken(user.name));
        }
        let name = user.name.clone();
        self.write().insert(user.handle, user);
        self.removed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name);
        Ok(secret)
    }

    /// Removes a user, whose secret is worth nothing from then on; says whether there was one.
    pub async fn remove(&self, name: &UserName) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let removed = self.store.remove_user(name.clone()).await?;
        if removed {
            let mut removed = self.removed.write().unwrap_or_else(PoisonError::into_inner);
            removed.insert(name.clone());
        }
        self.write().retain(|_, user| user.name != *name);
        Ok(removed)
    }

    /// Whether somebody of this name was a user and is none any more: who showed a credential just before may still be on
    /// the way.
    pub fn was_removed(&self, name: &UserName) -> bool {
        let removed = self.removed.read().unwrap_or_else(PoisonError::into_inner);
        removed.contains(name)
    }

    /// Everybody, by name.
    pub fn list(&self) -> Vec<User> {
        let mut users: Vec<_> = self.read().values().cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<[u8; 8], User>> {
        // The map is changed in single steps: a panic elsewhere leaves nothing half done.
        self.by_handle.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<[u8; 8], User>> {
        self.by_handle.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to every credential that is not right, whatever is wrong with it.
fn wrong() -> Refusal {
    Refusal::new(Reason::Unauthenticated, "the credential is wrong, or was withdrawn")
}

/// A user for the store, and the secret that goes with it.
pub(crate) fn new_user(
    name: UserName,
    groups: Vec<GroupName>,
    now: UnixTime,
    rng: &mut impl CryptoRng,
) -> (User, UserSecret) {
    let secret = UserSecret::generate(rng);
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let user = User {
        name,
        groups,
        handle: secret.handle(),
        salt,
        hash: secret.hash(&salt),
        created_at: now.secs(),
    };
    (user, secret)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tunnel_identity::{GatewayFiles, PrivateKey};
    use tunnel_ingress::Secret;
    use tunnel_model::ClusterId;

    use super::*;
    use crate::store::SqliteStore;

    #[tokio::test]
    async fn a_secret_is_enough_by_itself_and_with_its_owners_name() {
        let (_dir, users) = users().await;
        let secret = create(&users, "alice").await;
        let alice = users.authenticate(&bearer(&secret), NOW).unwrap();
        assert_eq!(alice.to_string(), "user:alice");
        assert!(alice.is_member_of("ops"));
        assert_eq!(users.authenticate(&basic("alice", &secret), NOW).unwrap(), alice);
    }

    #[tokio::test]
    async fn a_removed_user_is_known_as_such_until_there_is_another_of_the_name() {
        let (_dir, users) = users().await;
        let alice: UserName = "alice".parse().unwrap();
        assert!(
            !users.remove(&alice).await.unwrap() && !users.was_removed(&alice),
            "never there"
        );
        create(&users, "alice").await;
        assert!(users.remove(&alice).await.unwrap() && users.was_removed(&alice));
        create(&users, "alice").await;
        assert!(!users.was_removed(&alice));
    }

    #[tokio::test]
    async fn whatever_is_wrong_with_a_credential_the_answer_is_the_same() {
        let (_dir, users) = users().await;
        let alice = create(&users, "alice").await;
        let bob = create(&users, "bob").await;
        // Bob's handle, by which he is found, with Alice's secret behind it.
        let mixed = format!("{}{}", &bob[..13], &alice[13..]);
        let nobody = UserSecret::generate(&mut rand::rng()).to_string();
        let wrong = [
            basic("bob", &alice),
            basic("", &alice),
            basic("Alice", &alice),
            basic("alice", ""),
            bearer(&mixed),
            basic("bob", &mixed),
            bearer(&nobody),
            bearer(&alice[..alice.len() - 1]),
            bearer(&format!("{alice}A")),
            bearer(&alice[3..]),
            bearer("tu_"),
            bearer(""),
        ];
        let refusals: Vec<_> = wrong.iter().map(|c| users.authenticate(c, NOW).unwrap_err()).collect();
        assert!(refusals.iter().all(|r| *r == refusals[0]), "{refusals:?}");
        assert_eq!(refusals[0].reason, Reason::Unauthenticated);
    }

    #[tokio::test]
    async fn a_removed_user_is_out_at_once_and_after_a_restart() {
        let (dir, users) = users().await;
        let secret = create(&users, "alice").await;
        let other = create(&users, "bob").await;
        assert!(users.remove(&"alice".parse().unwrap()).await.unwrap());
        assert!(!users.remove(&"alice".parse().unwrap()).await.unwrap());
        assert!(users.authenticate(&bearer(&secret), NOW).is_err());
        drop(users);

        let store = SqliteStore::open(&dir.path().join("store.db")).await.unwrap();
        let users = Users::load(Arc::new(store)).await.unwrap();
        assert!(users.authenticate(&bearer(&secret), NOW).is_err());
        assert!(users.authenticate(&bearer(&other), NOW).is_ok());
        assert_eq!(users.list().len(), 1);
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_user() {
        let (_dir, users) = users().await;
        let secret = create(&users, "alice").await;
        let again = users.create("alice".parse().unwrap(), Vec::new(), NOW).await;
        assert!(matches!(again, Err(CreateUserError::Taken(_))));
        assert!(users.authenticate(&bearer(&secret), NOW).is_ok());
    }

    /// B10, T1: a certificate is good while it is valid and its user exists, and not for another user of the same name.
    #[tokio::test]
    async fn a_certificate_is_its_users_until_that_user_is_removed() {
        let (dir, users) = users().await;
        create(&users, "alice").await;
        let keys = GatewayFiles::init(&dir.path().join("keys"), ClusterId::from_bytes([1; 16]), &[], NOW).unwrap();
        let authority = keys.authority().unwrap();
        let (alice, hour) = ("alice".parse().unwrap(), Duration::from_secs(3600));
        let id = users.id_of(&alice).unwrap();
        let key = PrivateKey::generate().unwrap().public().unwrap();
        let chain = authority.issue_user(&key, id, &alice, hour, NOW).unwrap();
        let shown = UserIdentity::from_chain(&chain, authority.root(), NOW).unwrap();
        let shown = Credential::Certificate(Arc::new(shown));

        let principal = users.authenticate(&shown, NOW).unwrap();
        assert!(principal.to_string() == "user:alice" && principal.is_member_of("ops"));
        assert!(users.authenticate(&shown, NOW.plus(hour)).is_ok());
        let second = Duration::from_secs(1);
        assert!(users.authenticate(&shown, NOW.plus(hour + second)).is_err());
        users.remove(&alice).await.unwrap();
        assert!(users.authenticate(&shown, NOW).is_err() && users.id_of(&alice).is_none());
        create(&users, "alice").await;
        assert!(users.authenticate(&shown, NOW).is_err());
    }

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    async fn users() -> (tempfile::TempDir, Users) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(&dir.path().join("store.db")).await.unwrap();
        (dir, Users::load(Arc::new(store)).await.unwrap())
    }

    async fn create(users: &Users, name: &str) -> String {
        let groups = vec!["ops".parse().unwrap()];
        let secret = users.create(name.parse().unwrap(), groups, NOW).await.unwrap();
        secret.to_string()
    }

    fn bearer(secret: &str) -> Credential {
        Credential::Bearer {
            secret: Secret::new(secret),
        }
    }

    fn basic(user: &str, secret: &str) -> Credential {
        Credential::Basic {
            user: user.to_owned(),
            secret: Secret::new(secret),
        }
    }
}
