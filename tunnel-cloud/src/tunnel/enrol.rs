//! Join tokens and old certificates become new certificates.

use rand::RngExt;
use tracing::{debug, info, warn};
use tunnel_carrier::exchange;
use tunnel_identity::{
    EnrolRequest, Expiry, Issued, NodeIdentity, PublicKey, RENEWABLE_FOR, RenewRequest, Reply, Request, UnixTime,
    verify_enrol,
};
use tunnel_model::{NodeId, NodeName, Reason, Refusal};

use super::{Arrived, Context, now};
use crate::{
    audit::{
        Refused,
        record::{Event, Node, Why},
    },
    store::{self, Certificate, Enrolment},
};

/// Answers the one request of a connection.
pub(super) async fn answer(context: &Context, accepted: &Arrived) {
    let connection = &accepted.connection;
    let from = connection.remote_address();
    let (question, answering) = match exchange::question(connection).await {
        Ok(asked) => asked,
        Err(refusal) => {
            connection.close(&refusal);
            return;
        }
    };
    let result = match Request::decode(&question) {
        Ok(Request::Enrol(request)) => {
            let result = enrol(context, accepted, &request).await;
            result.inspect_err(|refusal| {
                let (token, client, why) = (request.token(), from, Why::from(refusal));
                let event = Event::JoinRefused { token, client, why };
                context.audit.refusal(Refused::Node, &event);
            })
        }
        Ok(Request::Renew(request)) => {
            let result = renew(context, accepted, &request).await;
            result.inspect_err(|refusal| {
                let (client, why) = (from, Why::from(refusal));
                context
                    .audit
                    .refusal(Refused::Node, &Event::RenewalRefused { client, why });
            })
        }
        Err(error) => Err(Refusal::new(Reason::BadRequest, error.to_string())),
    };
    let metrics = context.registry.metrics();
    metrics.certificate(result.as_ref().map(|_| ()).map_err(|refusal| refusal.reason));
    let reply = match result {
        Ok(issued) => Reply::Issued(issued),
        Err(refusal) => {
            // Anybody can ask with a token that is worth nothing, as often as they like: those are counted, not logged.
            if refusal.reason == Reason::Unauthenticated {
                debug!(%from, reason = %refusal.reason, detail = refusal.message, "no certificate given");
            } else {
                warn!(%from, reason = %refusal.reason, detail = refusal.message, "no certificate given");
            }
            Reply::Refused(refusal)
        }
    };
    match reply.encode() {
        // Whether the edge still hears it is its own affair: what it got is recorded.
        Ok(bytes) => drop(answering.answer(&bytes).await),
        Err(error) => connection.close(&Refusal::new(Reason::Internal, error.to_string())),
    }
}

/// Checks the token's proof, makes the certificate, and spends the token durably before the certificate leaves.
async fn enrol(context: &Context, accepted: &Arrived, request: &EnrolRequest) -> Result<Issued, Refusal> {
    let now = now();
    let binding = accepted.connection.channel_binding()?;
    // B12: whatever is wrong with a token, its holder has waited for the same: one read by the id, the check of the new
    // key and one MAC, which is computed even where nothing was found, and nothing is signed or written before all of that
    // is good. The id is no secret; that a row is read where one is there says nothing of the secret beside it.
    let token = context.store.token(request.token()).await.map_err(store_failed)?;
    let grant = token.map(|token| token.grant());
    let verified = verify_enrol(request, grant.as_ref(), &binding, now).map_err(|e| e.to_refusal())?;

    let id = NodeId::random(&mut rand::rng());
    let name = match verified.name {
        Some(name) => name,
        None => generated_name(&mut rand::rng())?,
    };
    let certificate = issue(context, &verified.public_key, id, &name, now)?;
    // R2: asked before the token is spent.
    context.audit.available()?;
    context
        .directory
        .enrol(Enrolment {
            token: verified.token,
            id,
            name: name.clone(),
            services: Vec::new(),
            agent_version: String::new(),
            serial: certificate.identity.serial.to_string(),
            not_after: certificate.identity.validity.not_after.secs(),
            now: now.secs(),
        })
        .await
        .map_err(not_enrolled)?;
    let node = Node {
        node: name.clone(),
        node_id: id,
        client: accepted.connection.remote_address(),
    };
    let event = Event::JoinGranted {
        token: verified.token,
        node,
        serial: certificate.identity.serial.to_string(),
    };
    if let Err(refusal) = context.audit.grant_durably(event).await {
        // The certificate never leaves, so the node that nobody has on record must not stay either.
        if let Err(error) = context.directory.remove(id).await {
            warn!(node = %name, %id, %error, "a node that was not told of its enrolment cannot be removed");
        }
        return Err(refusal);
    }
    info!(node = %name, %id, from = %accepted.connection.remote_address(), "node enrolled");
    Ok(certificate.issued)
}

/// A node that shows its certificate, expired or not, gets the next one.
async fn renew(context: &Context, accepted: &Arrived, request: &RenewRequest) -> Result<Issued, Refusal> {
    let now = now();
    let gone = |node, _: &_| context.directory.is_revoked(node);
    let identity = NodeIdentity::from_chain(
        &accepted.chain,
        context.root(),
        now,
        Expiry::Within(RENEWABLE_FOR),
        &gone,
    )
    .map_err(|error| super::session::certificate_refused(&error))?;
    let record = context
        .directory
        .read(|all| all.get(identity.node).cloned())
        .ok_or_else(super::revoked)?;
    let key = request
        .public_key()
        .map_err(|e| Refusal::new(Reason::BadRequest, e.to_string()))?;
    let certificate = issue(context, &key, identity.node, &record.name, now)?;
    context
        .store
        .renew(Certificate {
            serial: certificate.identity.serial.to_string(),
            node: identity.node,
            issued_at: now.secs(),
            not_after: certificate.identity.validity.not_after.secs(),
        })
        .await
        .map_err(|error| match error {
            store::RenewError::UnknownNode | store::RenewError::Revoked => super::revoked(),
            store::RenewError::Store(error) => store_failed(error),
        })?;
    let event = Event::RenewalGranted {
        node: Node {
            node: record.name.clone(),
            node_id: identity.node,
            client: accepted.connection.remote_address(),
        },
        serial: certificate.identity.serial.to_string(),
        expired: identity.expired,
    };
    context.audit.grant_durably(event).await?;
    info!(node = %record.name, expired = identity.expired, "certificate renewed");
    Ok(certificate.issued)
}

struct NewCertificate {
    issued: Issued,
    identity: NodeIdentity,
}

fn issue(
    context: &Context,
    key: &PublicKey,
    id: NodeId,
    name: &NodeName,
    now: UnixTime,
) -> Result<NewCertificate, Refusal> {
    let chain = context
        .authority
        .issue_node(key, id, name, now)
        .map_err(|e| internal(&format!("the certificate cannot be signed: {e}")))?;
    let identity = NodeIdentity::from_chain(&chain, context.root(), now, Expiry::Full, &|_, _: &_| false)
        .map_err(|e| internal(&format!("the new certificate is not valid: {e}")))?;
    Ok(NewCertificate {
        issued: Issued {
            chain,
            name: name.clone(),
            time: now,
        },
        identity,
    })
}

/// A name for a node that brings none: short enough to type, long enough not to collide in a fleet.
fn generated_name(rng: &mut impl rand::Rng) -> Result<NodeName, Refusal> {
    let name = format!("edge-{:08x}", rng.random::<u32>());
    name.parse().map_err(|_| internal("no name could be made"))
}

fn not_enrolled(error: store::EnrolError) -> Refusal {
    match error {
        // Another request was faster. It reads like any other token that is worth nothing.
        store::EnrolError::Token(_) => tunnel_identity::EnrolError::Token.to_refusal(),
        store::EnrolError::WrongName { .. } => tunnel_identity::EnrolError::Name.to_refusal(),
        store::EnrolError::NameTaken { name } => Refusal::new(
            Reason::Denied,
            format!("a node named {name} has joined already; choose another --name, or remove the old node"),
        ),
        store::EnrolError::Reserved(error) => Refusal::new(Reason::Denied, error.to_string()),
        store::EnrolError::Store(error) => store_failed(error),
    }
}

fn store_failed(error: store::StoreError) -> Refusal {
    warn!(%error, "the store refuses");
    Refusal::new(Reason::Overloaded, "the gateway cannot record it now; try again later")
}

fn internal(message: &str) -> Refusal {
    Refusal::new(Reason::Internal, message)
}
