//! Other configuration for a gateway that runs, and what becomes of streams that would not be opened by it.
//!
//! | changed | cut |
//! |---|---|
//! | `[[service]]` | streams to a service of the cloud side that is gone, or leads elsewhere |
//! | `[[oidc]]` | streams of users for whom no issuer vouches any more |

use std::sync::Arc;

use tunnel_model::{Identity, Principal, Reason, Refusal, UserName};

use super::{Gateway, Grant, cloud::leads_to};
use crate::{config::CloudService, oidc::Oidc};

impl Gateway {
    /// Takes other services of the cloud side, and cuts the streams to those that are gone or lead elsewhere; says how
    /// many.
    pub fn set_services(&self, services: Vec<CloudService>) -> usize {
        let before = self.cloud.replace(services);
        let now = self.cloud.services();
        let lost = |grant: &Grant| {
            let target = &grant.destination.target;
            let elsewhere = || leads_to(&before, target) != leads_to(&now, target);
            (grant.destination.node.is_reserved() && elsewhere()).then(|| {
                let message = format!("{target} of the cloud side is gone, or leads elsewhere now");
                Refusal::new(Reason::UnknownService, message)
            })
        };
        self.cut_lost(lost)
    }

    /// Takes tokens of other issuers, and cuts the streams of users for whom nobody vouches any more; says how many.
    pub fn set_issuers(&self, oidc: Arc<Oidc>) -> usize {
        let before = self.authenticator.replace_issuers(Arc::clone(&oidc));
        let lost = |grant: &Grant| match &grant.principal.identity {
            Identity::User(name) if before.claims(name) && !oidc.claims(name) && self.users.id_of(name).is_none() => {
                let message = format!("the issuer of the tokens of user {name} is not taken any more");
                Some(Refusal::new(Reason::Denied, message))
            }
            _ => None,
        };
        self.cut_lost(lost)
    }

    /// Whether a name is one of an issuer's users, and can be no local user's.
    pub fn is_issuers(&self, name: &UserName) -> bool {
        self.authenticator.issuers().reserves(name)
    }

    /// Cuts every stream of a user who is no more, and says how many.
    pub fn user_removed(&self, user: &UserName) -> usize {
        let refusal = removed(user);
        let of_user = |grant: &Grant| matches!(&grant.principal.identity, Identity::User(name) if name == user);
        self.cut_lost(|grant| of_user(grant).then(|| refusal.clone()))
    }

    /// Whether who asks still is who was found out to, for removing a user takes no look at those who are on their way.
    pub(super) fn is_current(&self, principal: &Principal) -> Result<(), Refusal> {
        match &principal.identity {
            Identity::User(name) if self.users.was_removed(name) && !self.authenticator.issuers().claims(name) => {
                Err(removed(name))
            }
            _ => Ok(()),
        }
    }

    fn cut_lost(&self, lost: impl Fn(&Grant) -> Option<Refusal>) -> usize {
        // Before the table is gone through: whoever enters it later sees the change.
        self.rights.changed();
        let cut = |grant: &&Arc<Grant>| lost(grant).is_some_and(|why| self.grants.cut(grant, why));
        self.grants.list().iter().filter(cut).count()
    }
}

fn removed(user: &UserName) -> Refusal {
    Refusal::new(Reason::Denied, format!("user {user} was removed"))
}
