//! Users of the gateway: people and programs that prove who they are with a secret.
//!
//! Everybody's record is held in memory, so that a request costs one lookup and one hash and never touches the store.

mod secret;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rand::CryptoRng;
use tokio::sync::Mutex;
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::UnixTime;
use tunnel_model::{GroupName, Principal, Reason, Refusal, UserName};

use crate::{
    ingress::Credential,
    store::{Store, StoreError, User},
};

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
            changing: Mutex::default(),
        })
    }

    /// Who shows this credential. A name, where one is shown, must be that of the secret's owner.
    ///
    /// Takes as long for a secret that nobody has as for a wrong one, and says no more about it.
    pub fn authenticate(&self, credential: &Credential) -> Result<Principal, Refusal> {
        let (name, text) = match credential {
            Credential::Basic { user, secret } => (Some(user.as_str()), secret.expose()),
            Credential::Bearer { secret } => (None, secret.expose()),
        };
        self.principal(name, text)
            .ok_or_else(|| Refusal::new(Reason::Unauthenticated, "the credential is wrong, or was withdrawn"))
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
        self.write().insert(user.handle, user);
        Ok(secret)
    }

    /// Removes a user, whose secret is worth nothing from then on; says whether there was one.
    pub async fn remove(&self, name: &UserName) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let removed = self.store.remove_user(name.clone()).await?;
        self.write().retain(|_, user| user.name != *name);
        Ok(removed)
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
    use super::*;
    use crate::{ingress::Secret, store::SqliteStore};

    #[tokio::test]
    async fn a_secret_is_enough_by_itself_and_with_its_owners_name() {
        let (_dir, users) = users().await;
        let secret = create(&users, "alice").await;
        let alice = users.authenticate(&bearer(&secret)).unwrap();
        assert_eq!(alice.to_string(), "user:alice");
        assert!(alice.is_member_of("ops"));
        assert_eq!(users.authenticate(&basic("alice", &secret)).unwrap(), alice);
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
        let refusals: Vec<_> = wrong.iter().map(|c| users.authenticate(c).unwrap_err()).collect();
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
        assert!(users.authenticate(&bearer(&secret)).is_err());
        drop(users);

        let store = SqliteStore::open(&dir.path().join("store.db")).await.unwrap();
        let users = Users::load(Arc::new(store)).await.unwrap();
        assert!(users.authenticate(&bearer(&secret)).is_err());
        assert!(users.authenticate(&bearer(&other)).is_ok());
        assert_eq!(users.list().len(), 1);
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_user() {
        let (_dir, users) = users().await;
        let secret = create(&users, "alice").await;
        let again = users.create("alice".parse().unwrap(), Vec::new(), NOW).await;
        assert!(matches!(again, Err(CreateUserError::Taken(_))));
        assert!(users.authenticate(&bearer(&secret)).is_ok());
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
