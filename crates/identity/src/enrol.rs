//! Enrolment and renewal: what is said, and how it is proved.
//!
//! Both run on a connection of their own with ALPN [`crate::tls::ALPN_ENROL`]: one [`Request`], one [`Reply`], each framed
//! by the carrier and at most [`MAX_MESSAGE`] bytes.
//!
//! To **enrol**, the edge first pins the gateway's root by the hash in its token; a gateway without that root never sees
//! a byte of the request. The request holds the token's id, the name the edge would like (or none), a certificate request
//! (RFC 2986) signed by the node's new key, and the proof: HMAC-SHA256 (RFC 2104), keyed with [`TokenKey`], over a label,
//! the connection's exporter ([`EXPORTER_LABEL`], no context, 32 bytes; RFC 8446 section 7.5), the key's
//! SubjectPublicKeyInfo and the name, the last two each behind its length as four bytes, big-endian. So a proof is good on
//! one connection, for one key and one name; who relays it gains nothing.
//!
//! To **renew**, the edge shows its certificate in the handshake, expired or not, and sends a certificate request for a
//! new key. The gateway reads who asks with [`crate::NodeIdentity::from_chain`] and [`crate::Expiry::Within`].

use std::fmt;

use prost::Message as _;
use ring::hmac;
use rustls_pki_types::CertificateDer;
use tunnel_model::{NodeName, Reason, Refusal, TokenId};

use crate::{JoinToken, KeyError, PrivateKey, PublicKey, TokenKey, UnixTime, wire};

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// The label of the TLS exporter that binds a proof to its connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-tunnel-enrol-1";

const PROOF_LABEL: &[u8] = b"tunnel enrol proof v1\0";

/// What both ends of one TLS connection know and nobody else: its exporter for [`EXPORTER_LABEL`], without context.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// The exporter's 32 bytes.
    pub fn new(exporter: [u8; 32]) -> Self {
        Self(exporter)
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(..)")
    }
}

/// A message could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Beyond [`MAX_MESSAGE`].
    #[error("an enrolment message is at most {MAX_MESSAGE} bytes long")]
    TooLong,
    /// Not such a message, or one with fields that make no sense.
    #[error("the enrolment message is malformed")]
    Malformed,
    /// Of a kind that only newer programs know.
    #[error("the enrolment message is of an unknown kind; the peer is newer")]
    Unknown,
}

/// What an edge sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To become a node.
    Enrol(EnrolRequest),
    /// To stay one.
    Renew(RenewRequest),
}

/// A request to become a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    token: TokenId,
    proof: [u8; 32],
    certificate_request: Vec<u8>,
    name: Option<NodeName>,
}

impl EnrolRequest {
    /// Builds the request of an edge that holds the token, for its new key, on the connection with this binding. Without
    /// a name the gateway chooses.
    pub fn build(
        token: &JoinToken,
        binding: &ChannelBinding,
        key: &PrivateKey,
        name: Option<NodeName>,
    ) -> Result<Self, KeyError> {
        let public = key.public()?;
        let transcript = transcript(binding, &public, name.as_ref());
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&hmac_key(&token.secret().key()), &transcript).as_ref());
        Ok(Self {
            token: token.id(),
            proof,
            certificate_request: key.certificate_request()?,
            name,
        })
    }

    /// The token that it claims to hold; not proved yet.
    pub fn token(&self) -> TokenId {
        self.token
    }
}

/// A request for the next certificate, by a node whose certificate the handshake has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewRequest {
    certificate_request: Vec<u8>,
}

impl RenewRequest {
    /// Asks for a certificate for this key.
    pub fn build(key: &PrivateKey) -> Result<Self, KeyError> {
        let certificate_request = key.certificate_request()?;
        Ok(Self { certificate_request })
    }

    /// The key that is to be certified, possession proved.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_certificate_request(&self.certificate_request)
    }
}

/// What the gateway answers to both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A certificate.
    Issued(Issued),
    /// None, and why.
    Refused(Refusal),
}

/// A certificate and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The node's chain, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The node's name as the gateway has it.
    pub name: NodeName,
    /// The gateway's time, for [`crate::Clock::learn`].
    pub time: UnixTime,
}

/// What the gateway's store knows about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// The hash of its secret.
    pub key: TokenKey,
    /// Its last second.
    pub expires: UnixTime,
    /// How many certificates it may still give.
    pub uses_left: u32,
    /// The only name that it lets a node take, if it says one.
    pub name: Option<NodeName>,
}

/// An enrolment that may go on: the token is proved. It is not spent yet; the store does that, durably, before a
/// certificate is made, and answers [`EnrolError::Token`] if another request was faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEnrolment {
    /// The token.
    pub token: TokenId,
    /// The node's key, possession proved.
    pub public_key: PublicKey,
    /// The name that the node shall have; none if neither side said one.
    pub name: Option<NodeName>,
}

/// Why an enrolment was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The token is unknown, expired, spent, of another cluster, or not proved. Which of them is not said, for whoever
    /// guesses would learn from it.
    #[error(
        "the join token is not valid here: unknown, expired, used up or of another cluster; create a new one with `tunnel-cloud token create`"
    )]
    Token,
    /// The certificate request is damaged, or for a key that is not allowed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token is good, and lets a node join under another name only.
    #[error("the join token is for a node of another name; leave the name away, or create a token for it")]
    Name,
}

impl EnrolError {
    /// What the edge is told.
    pub fn to_refusal(self) -> Refusal {
        let reason = match self {
            Self::Token => Reason::Unauthenticated,
            Self::Key(_) => Reason::BadRequest,
            Self::Name => Reason::Denied,
        };
        Refusal::new(reason, self.to_string())
    }
}

/// Checks a request against what the store knows about the token that it names (`None`: nothing), on the connection with
/// this binding.
///
/// The same work is done whether the token is known, good or neither, and all these failures read the same.
pub fn verify_enrol(
    request: &EnrolRequest,
    grant: Option<&TokenGrant>,
    binding: &ChannelBinding,
    now: UnixTime,
) -> Result<VerifiedEnrolment, EnrolError> {
    let public_key = PublicKey::from_certificate_request(&request.certificate_request)?;
    let transcript = transcript(binding, &public_key, request.name.as_ref());
    let nobody = TokenKey::from_bytes([0; 32]);
    let key = hmac_key(grant.map_or(&nobody, |grant| &grant.key));
    let proved = hmac::verify(&key, &transcript, &request.proof).is_ok();
    let usable = grant.filter(|grant| now <= grant.expires && grant.uses_left > 0);
    let Some(grant) = usable.filter(|_| proved) else {
        return Err(EnrolError::Token);
    };
    let name = match (&grant.name, &request.name) {
        (Some(fixed), Some(wanted)) if fixed != wanted => return Err(EnrolError::Name),
        (fixed, wanted) => fixed.as_ref().or(wanted.as_ref()).cloned(),
    };
    Ok(VerifiedEnrolment {
        token: request.token,
        public_key,
        name,
    })
}

fn hmac_key(key: &TokenKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
}

fn transcript(binding: &ChannelBinding, key: &PublicKey, name: Option<&NodeName>) -> Vec<u8> {
    let mut bytes = [PROOF_LABEL, &binding.0].concat();
    for field in [key.spki(), name.map_or("", NodeName::as_str).as_bytes()] {
        // Both are far below 4 GiB: a P-256 or Ed25519 key, and a DNS label.
        bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

impl Request {
    /// Writes the message.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let kind = match self {
            Self::Enrol(request) => wire::RequestKind::Enrol(wire::Enrol {
                token_id: request.token.as_bytes().to_vec(),
                proof: request.proof.to_vec(),
                certificate_request: request.certificate_request.clone(),
                name: request.name.as_ref().map_or_else(String::new, NodeName::to_string),
            }),
            Self::Renew(request) => wire::RequestKind::Renew(wire::Renew {
                certificate_request: request.certificate_request.clone(),
            }),
        };
        bounded(wire::Request { kind: Some(kind) }.encode_to_vec())
    }

    /// Reads the message.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Request = read(bytes)?;
        match message.kind.ok_or(MessageError::Unknown)? {
            wire::RequestKind::Enrol(enrol) => {
                let token = <[u8; 16]>::try_from(enrol.token_id).map_err(|_| MessageError::Malformed)?;
                let name = (!enrol.name.is_empty()).then(|| enrol.name.parse());
                Ok(Self::Enrol(EnrolRequest {
                    token: TokenId::from_bytes(token),
                    proof: enrol.proof.try_into().map_err(|_| MessageError::Malformed)?,
                    certificate_request: enrol.certificate_request,
                    name: name.transpose().map_err(|_| MessageError::Malformed)?,
                }))
            }
            wire::RequestKind::Renew(renew) => Ok(Self::Renew(RenewRequest {
                certificate_request: renew.certificate_request,
            })),
        }
    }
}

impl Reply {
    /// Writes the message.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let kind = match self {
            Self::Issued(issued) => wire::ReplyKind::Issued(wire::Issued {
                chain: issued.chain.iter().map(|cert| cert.to_vec()).collect(),
                name: issued.name.to_string(),
                time: issued.time.secs(),
            }),
            Self::Refused(refusal) => wire::ReplyKind::Refused(wire::Refused {
                reason: refusal.reason as u32,
                message: refusal.message.clone(),
            }),
        };
        bounded(wire::Reply { kind: Some(kind) }.encode_to_vec())
    }

    /// Reads the message.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Reply = read(bytes)?;
        match message.kind.ok_or(MessageError::Unknown)? {
            wire::ReplyKind::Issued(issued) => Ok(Self::Issued(Issued {
                chain: issued.chain.into_iter().map(CertificateDer::from).collect(),
                name: issued.name.parse().map_err(|_| MessageError::Malformed)?,
                time: UnixTime::from_secs(issued.time),
            })),
            wire::ReplyKind::Refused(refused) => {
                let reason = Reason::from_wire(refused.reason);
                Ok(Self::Refused(Refusal::new(reason, refused.message)))
            }
        }
    }
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    Ok(bytes)
}

fn read<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    M::decode(bytes).map_err(|_| MessageError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::RootPin;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    #[test]
    fn a_proved_token_lets_its_holder_in() {
        let at = Door::new();
        let verified = at.ask(&at.request(Some("edge1")), Some(&at.grant())).unwrap();
        assert_eq!(Ok(verified.public_key), at.key.public());
        assert_eq!(verified.name, Some("edge1".parse().unwrap()));
        assert_eq!(verified.token, at.token.id());
    }

    /// B12
    #[test]
    fn a_token_that_is_unknown_expired_spent_or_unproved_is_one_and_the_same_error() {
        let at = Door::new();
        let other = Door::new();
        let good = at.grant();
        let expired = TokenGrant {
            expires: NOW.minus(Duration::from_secs(1)),
            ..good.clone()
        };
        let spent = TokenGrant {
            uses_left: 0,
            ..good.clone()
        };
        let request = at.request(None);
        let refusals = [
            at.ask(&request, None),
            at.ask(&request, Some(&expired)),
            at.ask(&request, Some(&spent)),
            at.ask(&other.request(None), Some(&good)),
        ]
        .map(|result| result.unwrap_err().to_refusal());
        for refusal in &refusals {
            assert_eq!(refusal, &refusals[0]);
            assert_eq!(refusal.reason, Reason::Unauthenticated);
        }
    }

    /// B12: a name that the token does not allow is told only to who has proved the token.
    #[test]
    fn the_name_is_judged_only_after_the_proof() {
        let at = Door::new();
        let grant = TokenGrant {
            name: Some("edge1".parse().unwrap()),
            ..at.grant()
        };
        assert_eq!(at.ask(&at.request(Some("edge2")), Some(&grant)), Err(EnrolError::Name));
        assert_eq!(
            at.ask(&Door::new().request(Some("edge2")), Some(&grant)),
            Err(EnrolError::Token)
        );
        for wanted in [None, Some("edge1")] {
            assert_eq!(at.ask(&at.request(wanted), Some(&grant)).unwrap().name, grant.name);
        }
    }

    /// T6
    #[test]
    fn a_proof_is_good_on_its_own_connection_alone() {
        let at = Door::new();
        let elsewhere = ChannelBinding::new([8; 32]);
        let relayed = verify_enrol(&at.request(None), Some(&at.grant()), &elsewhere, NOW);
        assert_eq!(relayed, Err(EnrolError::Token));
    }

    /// T6
    #[test]
    fn a_proof_is_good_for_its_own_key_and_name_alone() {
        let at = Door::new();
        let mut request = at.request(Some("edge1"));
        request.name = Some("edge2".parse().unwrap());
        assert_eq!(at.ask(&request, Some(&at.grant())), Err(EnrolError::Token));
        let mut request = at.request(Some("edge1"));
        request.certificate_request = PrivateKey::generate().unwrap().certificate_request().unwrap();
        assert_eq!(at.ask(&request, Some(&at.grant())), Err(EnrolError::Token));
    }

    #[test]
    fn messages_read_back_as_they_were_written() {
        let at = Door::new();
        let renew = RenewRequest::build(&at.key).unwrap();
        assert_eq!(renew.public_key(), at.key.public());
        for request in [
            Request::Enrol(at.request(Some("edge1"))),
            Request::Enrol(at.request(None)),
            Request::Renew(renew),
        ] {
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        for reply in [
            Reply::Refused(EnrolError::Token.to_refusal()),
            Reply::Issued(Issued {
                chain: vec![vec![1, 2].into(), vec![3].into()],
                name: "edge1".parse().unwrap(),
                time: NOW,
            }),
        ] {
            assert_eq!(Reply::decode(&reply.encode().unwrap()), Ok(reply));
        }
    }

    /// B4
    #[test]
    fn an_unknown_kind_is_told_from_a_malformed_one() {
        assert_eq!(Request::decode(&[]), Err(MessageError::Unknown));
        // Field 15, an empty message: a kind from the future.
        assert_eq!(Request::decode(&[0x7a, 0]), Err(MessageError::Unknown));
        assert_eq!(Request::decode(&[0x0a, 200]), Err(MessageError::Malformed));
    }

    /// B1, B2
    #[test]
    fn long_messages_are_refused_unread_and_cut_ones_do_not_pass() {
        assert_eq!(Request::decode(&vec![0; MAX_MESSAGE + 1]), Err(MessageError::TooLong));
        let at = Door::new();
        let bytes = Request::Enrol(at.request(Some("edge1"))).encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Request::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    /// B13
    #[test]
    fn a_request_with_a_path_for_a_name_is_refused_at_the_door() {
        let at = Door::new();
        let bytes = Request::Enrol(at.request(Some("edge1"))).encode().unwrap();
        let at = bytes.windows(5).position(|w| w == b"edge1").unwrap();
        let mut bad = bytes.clone();
        bad[at..at + 5].copy_from_slice(b"../x1");
        assert_eq!(Request::decode(&bad), Err(MessageError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&bytes);
            let _ = Reply::decode(&bytes);
        }
    }

    /// One gateway's door, with a token and a connection.
    struct Door {
        token: JoinToken,
        key: PrivateKey,
        binding: ChannelBinding,
    }

    impl Door {
        fn new() -> Self {
            let key = PrivateKey::generate().unwrap();
            let mut seed = [0; 32];
            seed.copy_from_slice(&key.public().unwrap().spki()[59..91]);
            let rng = &mut rand::rngs::StdRng::from_seed(seed);
            let gateways = vec!["gw.example.com:443".parse().unwrap()];
            Self {
                token: JoinToken::generate(RootPin([1; 32]), gateways, rng).unwrap(),
                key,
                binding: ChannelBinding::new([7; 32]),
            }
        }

        fn grant(&self) -> TokenGrant {
            TokenGrant {
                key: self.token.secret().key(),
                expires: NOW,
                uses_left: 1,
                name: None,
            }
        }

        fn request(&self, name: Option<&str>) -> EnrolRequest {
            let name = name.map(|name| name.parse().unwrap());
            EnrolRequest::build(&self.token, &self.binding, &self.key, name).unwrap()
        }

        fn ask(&self, request: &EnrolRequest, grant: Option<&TokenGrant>) -> Result<VerifiedEnrolment, EnrolError> {
            verify_enrol(request, grant, &self.binding, NOW)
        }
    }
}
