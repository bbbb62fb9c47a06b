//! The handshake, without a socket.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BytesMut};
use tunnel_model::Reason;

use crate::{Credential, Secret};

/// The first byte of every SOCKS5 connection.
pub(crate) const VERSION: u8 = 5;

/// The version of the user name and secret (RFC 1929 section 2).
const PASSWORD_VERSION: u8 = 1;

/// Types of addresses (RFC 1928 section 5).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;

macro_rules! reply {
    ($code:literal) => {
        &[VERSION, $code, 0, 1, 0, 0, 0, 0, 0, 0]
    };
}

/// The reply after which the stream follows. The address in it means nothing (RFC 1928 section 6 wants one).
pub(super) const GRANTED: &[u8] = reply!(0);

/// The reply that says a reason best.
pub(super) fn refusal(reason: Reason) -> &'static [u8] {
    match reason {
        Reason::Denied | Reason::NotAllowed | Reason::Unauthenticated => reply!(2),
        Reason::TargetUnreachable => reply!(3),
        Reason::UnknownNode | Reason::UnknownService | Reason::NodeOffline | Reason::Revoked => reply!(4),
        Reason::TargetRefused => reply!(5),
        Reason::TargetTimeout | Reason::IdleTimeout => reply!(6),
        _ => reply!(1),
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read more.
    Read,
    /// Send this.
    Write(&'static [u8]),
    /// Find out who asks, and call [`Handshake::handle_verdict`].
    Authenticate(Option<Credential>),
    /// Connect. Whatever is left in the buffer belongs to the stream.
    Connect {
        /// The name as the caller wrote it, or the address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Why a handshake ends without a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Socks5Error {
    #[error("the SOCKS version changed within the handshake")]
    BadVersion,
    #[error("the caller offers neither a user name and secret nor to go without")]
    NoMethod,
    #[error("the user name or the secret is empty or not UTF-8")]
    BadCredential,
    #[error("no access without a valid credential")]
    NoMethodAccepted,
    #[error("the user name or the secret is wrong")]
    WrongCredential,
    #[error("only CONNECT is spoken here, neither BIND nor UDP ASSOCIATE")]
    BadCommand,
    #[error("an address of an unknown type")]
    BadAddressType,
    #[error("the name is empty or not ASCII")]
    BadName,
    #[error("a reserved byte is not zero")]
    NotReserved,
}

impl Socks5Error {
    /// What the caller is told before the connection ends.
    pub(super) fn reply(self) -> &'static [u8] {
        match self {
            Self::NoMethod | Self::NoMethodAccepted => &[VERSION, 0xff],
            Self::BadCredential | Self::WrongCredential => &[PASSWORD_VERSION, 1],
            Self::BadCommand => reply!(7),
            Self::BadAddressType => reply!(8),
            Self::BadVersion | Self::BadName | Self::NotReserved => reply!(1),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Methods,
    Password,
    /// The verdict on a credential, or on its absence, is awaited.
    Judged {
        with_password: bool,
    },
    /// The verdict is in; the caller is to be told.
    Admitted {
        with_password: bool,
    },
    Rejected {
        with_password: bool,
    },
    Request,
}

/// A handshake: call [`handle_input`](Self::handle_input) until it says to connect, doing what it says in between.
#[derive(Debug)]
pub(super) struct Handshake {
    state: State,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { state: State::Methods }
    }
}

impl Handshake {
    /// Takes what it can use from the front of `input`.
    pub(super) fn handle_input(&mut self, input: &mut BytesMut) -> Result<Step, Socks5Error> {
        let step = match self.state {
            State::Methods => self.methods(input)?,
            State::Password => self.password(input)?,
            State::Judged { .. } => None,
            State::Admitted { with_password } => {
                self.state = State::Request;
                Some(Step::Write(if with_password {
                    &[PASSWORD_VERSION, 0]
                } else {
                    &[VERSION, NO_AUTHENTICATION]
                }))
            }
            State::Rejected { with_password: true } => return Err(Socks5Error::WrongCredential),
            State::Rejected { with_password: false } => return Err(Socks5Error::NoMethodAccepted),
            State::Request => request(input)?,
        };
        Ok(step.unwrap_or(Step::Read))
    }

    /// Takes the answer to [`Step::Authenticate`].
    pub(super) fn handle_verdict(&mut self, admitted: bool) {
        if let State::Judged { with_password } = self.state {
            self.state = match admitted {
                true => State::Admitted { with_password },
                false => State::Rejected { with_password },
            };
        }
    }

    fn methods(&mut self, input: &mut BytesMut) -> Result<Option<Step>, Socks5Error> {
        let Some(&count) = input.get(1) else { return Ok(None) };
        if input[0] != VERSION {
            return Err(Socks5Error::BadVersion);
        }
        let Some(methods) = input.get(2..2 + usize::from(count)) else {
            return Ok(None);
        };
        let (password, nothing) = (methods.contains(&PASSWORD), methods.contains(&NO_AUTHENTICATION));
        input.advance(2 + usize::from(count));
        if password {
            self.state = State::Password;
            Ok(Some(Step::Write(&[VERSION, PASSWORD])))
        } else if nothing {
            self.state = State::Judged { with_password: false };
            Ok(Some(Step::Authenticate(None)))
        } else {
            Err(Socks5Error::NoMethod)
        }
    }

    fn password(&mut self, input: &mut BytesMut) -> Result<Option<Step>, Socks5Error> {
        match input.first() {
            None => return Ok(None),
            Some(&PASSWORD_VERSION) => {}
            Some(_) => return Err(Socks5Error::BadCredential),
        }
        let Some((user, next)) = counted(input, 1) else {
            return Ok(None);
        };
        let Some((secret, end)) = counted(input, next) else {
            return Ok(None);
        };
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .ok()
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
        };
        let credential = text(user).zip(text(secret)).ok_or(Socks5Error::BadCredential)?;
        input.advance(end);
        self.state = State::Judged { with_password: true };
        Ok(Some(Step::Authenticate(Some(Credential::Basic {
            user: credential.0,
            secret: Secret::new(credential.1),
        }))))
    }
}

fn request(input: &mut BytesMut) -> Result<Option<Step>, Socks5Error> {
    let Some(&[version, command, reserved, kind]) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    match (version, command, reserved, kind) {
        (VERSION, 1, 0, NAME | IPV4 | IPV6) => {}
        (VERSION, 1, 0, _) => return Err(Socks5Error::BadAddressType),
        (VERSION, 1, _, _) => return Err(Socks5Error::NotReserved),
        (VERSION, _, _, _) => return Err(Socks5Error::BadCommand),
        _ => return Err(Socks5Error::BadVersion),
    }
    let address = &input[4..];
    let found = match kind {
        IPV4 => address
            .first_chunk::<4>()
            .map(|ip| (Ok(Ipv4Addr::from(*ip).to_string()), 4)),
        IPV6 => address
            .first_chunk::<16>()
            .map(|ip| (Ok(Ipv6Addr::from(*ip).to_string()), 16)),
        _ => counted(input, 4).map(|(text, end)| (name(text), end - 4)),
    };
    let Some((host, length)) = found else {
        return Ok(None);
    };
    let Some(port) = address[length..].first_chunk::<2>() else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(*port);
    let host = host?;
    input.advance(4 + length + 2);
    Ok(Some(Step::Connect { host, port }))
}

/// A name that can be looked at as text.
fn name(bytes: &[u8]) -> Result<String, Socks5Error> {
    let text = std::str::from_utf8(bytes).ok();
    let plain = text.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
    plain.map(str::to_owned).ok_or(Socks5Error::BadName)
}

/// Bytes that are counted by the byte before them, and where they end.
fn counted(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + 1 + usize::from(*input.get(at)?);
    Some((input.get(at + 1..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD_CALLER: &[u8] = b"\x05\x02\x00\x02\x01\x05alice\x03s:e\x05\x01\x00\x03\x05edge1\x00\x50GET / ";
    const PLAIN_CALLER: &[u8] = b"\x05\x01\x00\x05\x01\x00\x03\x05edge1\x00\x50GET / ";

    fn alice() -> Credential {
        Credential::Basic {
            user: "alice".to_owned(),
            secret: Secret::new("s:e"),
        }
    }

    fn edge1() -> Step {
        Step::Connect {
            host: "edge1".to_owned(),
            port: 80,
        }
    }

    #[test]
    fn a_caller_with_a_secret_is_connected_by_name() {
        let (steps, rest) = transcript(PASSWORD_CALLER, usize::MAX, true);
        let expected = [
            Ok(Step::Write(&[5, 2])),
            Ok(Step::Authenticate(Some(alice()))),
            Ok(Step::Write(&[1, 0])),
            Ok(edge1()),
        ];
        assert_eq!(steps, expected);
        assert_eq!(rest, b"GET / ", "what is sent ahead belongs to the stream");
    }

    #[test]
    fn an_address_is_taken_in_its_canonical_text() {
        for (request, host) in [
            (&b"\x01\x0a\x2a\x03\x07\x00\x50"[..], "10.42.3.7"),
            (b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", "2001:db8::1"),
            (
                b"\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\xa9\xfe\xa9\xfe\x00\x50",
                "::ffff:169.254.169.254",
            ),
        ] {
            let caller = [&b"\x05\x01\x00\x05\x01\x00"[..], request, b"ahead"].concat();
            let connect = Ok(Step::Connect {
                host: host.to_owned(),
                port: 80,
            });
            for piece in [1, 7, usize::MAX] {
                let (steps, rest) = transcript(&caller, piece, true);
                assert_eq!((steps.last(), &rest[..]), (Some(&connect), &b"ahead"[..]), "{host}");
            }
        }
    }

    #[test]
    fn a_caller_without_a_secret_is_judged_by_its_address() {
        let (steps, rest) = transcript(PLAIN_CALLER, usize::MAX, true);
        let expected = [Ok(Step::Authenticate(None)), Ok(Step::Write(&[5, 0])), Ok(edge1())];
        assert_eq!(steps, expected);
        assert_eq!(rest, b"GET / ");
    }

    #[test]
    fn a_transcript_means_the_same_byte_by_byte() {
        for caller in [PASSWORD_CALLER, PLAIN_CALLER] {
            let (whole, rest) = transcript(caller, usize::MAX, true);
            for piece in 1..8 {
                let (steps, left) = transcript(caller, piece, true);
                assert_eq!((&steps, &left), (&whole, &rest), "{piece} at a time");
            }
        }
    }

    #[test]
    fn a_caller_who_is_not_admitted_is_told_in_its_methods_words() {
        let (steps, _) = transcript(PASSWORD_CALLER, usize::MAX, false);
        assert_eq!(steps.last(), Some(&Err(Socks5Error::WrongCredential)));
        assert_eq!(Socks5Error::WrongCredential.reply(), [1, 1]);
        let (steps, _) = transcript(PLAIN_CALLER, usize::MAX, false);
        assert_eq!(steps.last(), Some(&Err(Socks5Error::NoMethodAccepted)));
        assert_eq!(Socks5Error::NoMethodAccepted.reply(), [5, 0xff]);
    }

    #[test]
    fn what_is_not_a_handshake_by_name_is_refused_with_its_code() {
        let ask = |request: &[u8]| [&b"\x05\x01\x00"[..], request].concat();
        for (caller, error, reply) in [
            (b"\x05\x00".to_vec(), Socks5Error::NoMethod, &[5, 0xff][..]),
            (b"\x05\x01\x01".to_vec(), Socks5Error::NoMethod, &[5, 0xff]),
            (b"\x05\x01\x02\x05".to_vec(), Socks5Error::BadCredential, &[1, 1]),
            (
                b"\x05\x01\x02\x01\x00\x01x".to_vec(),
                Socks5Error::BadCredential,
                &[1, 1],
            ),
            (
                b"\x05\x01\x02\x01\x01x\x00".to_vec(),
                Socks5Error::BadCredential,
                &[1, 1],
            ),
            (
                b"\x05\x01\x02\x01\x01\xff\x01x".to_vec(),
                Socks5Error::BadCredential,
                &[1, 1],
            ),
            (ask(b"\x04\x01\x00\x03"), Socks5Error::BadVersion, reply!(1)),
            (ask(b"\x05\x02\x00\x03"), Socks5Error::BadCommand, reply!(7)),
            (ask(b"\x05\x03\x00\x01"), Socks5Error::BadCommand, reply!(7)),
            (ask(b"\x05\x01\x01\x03"), Socks5Error::NotReserved, reply!(1)),
            (ask(b"\x05\x01\x00\x02"), Socks5Error::BadAddressType, reply!(8)),
            (ask(b"\x05\x01\x00\x03\x00\x00\x50"), Socks5Error::BadName, reply!(1)),
            (ask(b"\x05\x01\x00\x03\x02a\0\x00\x50"), Socks5Error::BadName, reply!(1)),
            (
                ask(b"\x05\x01\x00\x03\x02\xc3\xa9\x00\x50"),
                Socks5Error::BadName,
                reply!(1),
            ),
        ] {
            let (steps, _) = transcript(&caller, 1, true);
            assert_eq!(steps.last(), Some(&Err(error)), "{caller:?}");
            assert_eq!(error.reply(), reply, "{error}");
        }
    }

    /// B2
    #[test]
    fn every_truncation_waits_for_more() {
        let handshake = &PASSWORD_CALLER[..PASSWORD_CALLER.len() - b"GET / ".len()];
        for len in 0..handshake.len() {
            let (steps, _) = transcript(&handshake[..len], usize::MAX, true);
            assert!(
                !steps.contains(&Ok(edge1())) && steps.iter().all(Result::is_ok),
                "{len} bytes: {steps:?}"
            );
        }
    }

    #[test]
    fn refusals_have_the_codes_that_clients_know() {
        for (reason, code) in [
            (Reason::Denied, 2),
            (Reason::NotAllowed, 2),
            (Reason::UnknownNode, 4),
            (Reason::NodeOffline, 4),
            (Reason::TargetRefused, 5),
            (Reason::TargetTimeout, 6),
            (Reason::Internal, 1),
        ] {
            assert_eq!(refusal(reason)[..2], [VERSION, code], "{reason}");
        }
    }

    /// Every step of a handshake that is fed so many bytes at a time, and what it left over.
    fn transcript(input: &[u8], piece: usize, admit: bool) -> (Vec<Result<Step, Socks5Error>>, Vec<u8>) {
        let mut handshake = Handshake::default();
        let mut steps = Vec::new();
        let mut buf = BytesMut::new();
        let mut pieces = input.chunks(piece.min(input.len().max(1)));
        loop {
            let step = handshake.handle_input(&mut buf);
            match &step {
                Ok(Step::Read) => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => break,
                },
                Ok(Step::Authenticate(_)) => handshake.handle_verdict(admit),
                _ => {}
            }
            let end = matches!(step, Err(_) | Ok(Step::Connect { .. }));
            if step != Ok(Step::Read) {
                steps.push(step);
            }
            if end {
                break;
            }
        }
        pieces.for_each(|piece| buf.extend_from_slice(piece));
        (steps, buf.to_vec())
    }
}
