//! What an edge or a gateway reads before it knows whom it talks to.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use tunnel_identity::{JoinToken, Reply, Request};

/// A decoder's name and what to feed.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this module.
pub const TARGETS: &[Target] = &[
    ("join_token", join_token),
    ("enrol_request", enrol_request),
    ("enrol_reply", enrol_reply),
];

/// A token that was understood reads back as itself. The bytes are taken as they are, and as what a token holds, with
/// the right length and checksum around them, which no fuzzer would guess.
pub fn join_token(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        read_token(text);
    }
    let Ok(length) = u16::try_from(data.len() + 4) else {
        return;
    };
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(data);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..4]);
    read_token(&format!("tj1.{}", URL_SAFE_NO_PAD.encode(&bytes)));
}

fn read_token(text: &str) {
    if let Ok(token) = text.parse::<JoinToken>() {
        // Host names are read in any spelling and written in one.
        let again = token.to_string().parse::<JoinToken>().map(|t| t.to_string());
        assert_eq!(again, Ok(token.to_string()));
        assert!((1..=JoinToken::MAX_GATEWAYS).contains(&token.gateways().len()));
    }
}

/// A request that was understood reads back as itself.
pub fn enrol_request(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        let again = request.encode().and_then(|bytes| Request::decode(&bytes));
        assert_eq!(again, Ok(request));
    }
}

/// A reply that was understood reads back as itself.
pub fn enrol_reply(data: &[u8]) {
    if let Ok(reply) = Reply::decode(data) {
        let again = reply.encode().and_then(|bytes| Reply::decode(&bytes));
        assert_eq!(again, Ok(reply));
    }
}
