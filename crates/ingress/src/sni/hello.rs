//! The beginning of a TLS connection, as far as it says which server is meant (RFC 8446 sections 4.1.2 and 5.1, RFC 6066
//! section 3).
//!
//! Nothing is consumed: whoever reads here passes the very bytes on. A ClientHello in which two readers might find two
//! different names is refused, because the target behind would be the second reader.

/// The most bytes that a ClientHello and its records may have. The largest in use, with post-quantum key shares, have
/// about 2 KiB.
pub(crate) const MAX_HELLO: usize = 16 * 1024;

/// The content type of handshake records, and the message that must come first.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The extension that names the server, and the only type of name there is.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Why there is no server name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the connection does not begin as TLS does")]
    NotTls,
    #[error("the ClientHello is malformed")]
    Malformed,
    #[error("the ClientHello is longer than {MAX_HELLO} bytes")]
    TooLong,
    #[error("the ClientHello names no server")]
    NoName,
    #[error("the ClientHello names its server more than once")]
    TwoNames,
    #[error("the connection ended within the ClientHello")]
    Truncated,
    #[error("the ClientHello took too long to arrive")]
    TooSlow,
}

impl HelloError {
    /// The alert that says it best (RFC 8446 section 6).
    pub(crate) fn alert(self) -> u8 {
        match self {
            Self::NotTls => 10,
            Self::Malformed | Self::TwoNames | Self::Truncated => 50,
            Self::TooLong => 22,
            Self::NoName => 112,
            Self::TooSlow => 90,
        }
    }
}

/// Puts a ClientHello together from the records it came in.
#[derive(Debug, Default)]
pub(crate) struct HelloScan {
    /// Where the next record begins.
    at: usize,
    message: Vec<u8>,
}

impl HelloScan {
    /// The server name, once `buf`, which must only have grown since the last call, holds all of the ClientHello.
    pub(crate) fn find(&mut self, buf: &[u8]) -> Result<Option<String>, HelloError> {
        while let Some(record) = self.next_record(buf)? {
            self.message.extend_from_slice(record);
            self.at += 5 + record.len();
            if self.message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
                return Err(HelloError::NotTls);
            }
            let mut message = Reader(&self.message);
            let whole = message.take(1).is_some().then(|| message.prefixed(3)).flatten();
            if let Some(mut body) = whole {
                return server_name(&mut body).map(Some);
            }
        }
        if buf.len() >= MAX_HELLO {
            return Err(HelloError::TooLong);
        }
        Ok(None)
    }

    /// The next record's content, if all of it is there.
    fn next_record<'a>(&self, buf: &'a [u8]) -> Result<Option<&'a [u8]>, HelloError> {
        let within = &buf[..buf.len().min(MAX_HELLO)];
        let rest = &within[self.at..];
        // The first bytes are judged as they come: what does not speak TLS may wait for an answer.
        let looks_like_tls = rest
            .iter()
            .zip([HANDSHAKE, 3])
            .all(|(&byte, expected)| byte == expected);
        if !looks_like_tls {
            return Err(HelloError::NotTls);
        }
        let &[_, _, _, high, low, ref content @ ..] = rest else {
            return Ok(None);
        };
        match usize::from(u16::from_be_bytes([high, low])) {
            // Records of a handshake are not empty (RFC 8446 section 5.1).
            0 => Err(HelloError::Malformed),
            len if len >= MAX_HELLO => Err(HelloError::TooLong),
            len => Ok(content.get(..len)),
        }
    }
}

/// The name in a ClientHello, without its four bytes of message header.
fn server_name(hello: &mut Reader<'_>) -> Result<String, HelloError> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let session_ciphers_compressions = |hello: &mut Reader<'_>| {
        hello.take(VERSION_AND_RANDOM)?;
        let (_, ciphers, compressions) = (hello.prefixed(1)?, hello.prefixed(2)?, hello.prefixed(1)?);
        (!ciphers.0.is_empty() && !compressions.0.is_empty()).then_some(())
    };
    session_ciphers_compressions(hello).ok_or(HelloError::Malformed)?;
    if hello.0.is_empty() {
        return Err(HelloError::NoName);
    }
    let mut extensions = hello.prefixed(2).ok_or(HelloError::Malformed)?;
    if !hello.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2).ok_or(HelloError::Malformed)?;
        let content = extensions.prefixed(2).ok_or(HelloError::Malformed)?;
        if kind == usize::from(SERVER_NAME) && name.replace(host_name(content)?).is_some() {
            return Err(HelloError::TwoNames);
        }
    }
    name.ok_or(HelloError::NoName)
}

/// The one name in the extension's list.
fn host_name(mut extension: Reader<'_>) -> Result<String, HelloError> {
    let mut list = extension.prefixed(2).ok_or(HelloError::Malformed)?;
    let kind = list.number(1).ok_or(HelloError::Malformed)?;
    let name = list.prefixed(2).ok_or(HelloError::Malformed)?.0;
    if kind != usize::from(HOST_NAME) || !extension.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    if !list.0.is_empty() {
        return Err(HelloError::TwoNames);
    }
    let is_host = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic());
    let text = is_host.then(|| String::from_utf8(name.to_vec()).ok()).flatten();
    text.ok_or(HelloError::Malformed)
}

/// What is left of a structure.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `len` bytes.
    fn number(&mut self, len: usize) -> Option<usize> {
        let bytes = self.take(len)?;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// A vector whose length stands before it in `len` bytes.
    fn prefixed(&mut self, len: usize) -> Option<Self> {
        let content = self.number(len)?;
        self.take(content).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector after its length in `len` bytes.
    fn prefixed(len: usize, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[4 - len..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &prefixed(2, content)].concat()
    }

    fn name_list(names: &[(u8, &str)]) -> Vec<u8> {
        let entries: Vec<u8> = names
            .iter()
            .flat_map(|(kind, name)| [&[*kind][..], &prefixed(2, name.as_bytes())].concat())
            .collect();
        extension(SERVER_NAME, &prefixed(2, &entries))
    }

    /// A message with these extensions, or with none at all.
    fn message(extensions: Option<&[u8]>) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &prefixed(1, &[9; 32]),
            &prefixed(2, &[0x13, 1]),
            &prefixed(1, &[0]),
            &extensions.map(|list| prefixed(2, list)).unwrap_or_default(),
        ]
        .concat();
        [&[CLIENT_HELLO][..], &prefixed(3, &body)].concat()
    }

    /// A message in records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &prefixed(2, part)].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn find(message: &[u8]) -> Result<Option<String>, HelloError> {
        HelloScan::default().find(&records(message, 1 << 14))
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let others = extension(0x0a0a, &[]);
        let list = [
            others,
            name_list(&[(HOST_NAME, "web.edge1.tunnel")]),
            extension(43, &[2, 3, 4]),
        ]
        .concat();
        let message = message(Some(&list));
        for size in [1, 2, 3, 50, 1 << 14] {
            let mut bytes = records(&message, size);
            let whole = bytes.len();
            bytes.extend(b"\x14\x03\x03\x00\x01\x01 and what else comes at once");
            let mut scan = HelloScan::default();
            for end in 0..whole {
                assert_eq!(scan.find(&bytes[..end]), Ok(None), "{size}: after {end} bytes");
            }
            assert_eq!(scan.find(&bytes), Ok(Some("web.edge1.tunnel".to_owned())), "{size}");
        }
    }

    #[test]
    fn a_hello_without_exactly_one_name_is_refused() {
        let one = name_list(&[(HOST_NAME, "a")]);
        assert_eq!(find(&message(None)), Err(HelloError::NoName));
        assert_eq!(find(&message(Some(&[]))), Err(HelloError::NoName));
        assert_eq!(find(&message(Some(&extension(43, &[])))), Err(HelloError::NoName));
        assert_eq!(
            find(&message(Some(&[one.clone(), one].concat()))),
            Err(HelloError::TwoNames)
        );
        assert_eq!(
            find(&message(Some(&name_list(&[(HOST_NAME, "a"), (HOST_NAME, "b")])))),
            Err(HelloError::TwoNames)
        );
        for bad in [
            name_list(&[]),
            name_list(&[(1, "a")]),
            name_list(&[(HOST_NAME, "")]),
            name_list(&[(HOST_NAME, "a\0b")]),
            name_list(&[(HOST_NAME, "a b")]),
            name_list(&[(HOST_NAME, "é")]),
            extension(SERVER_NAME, &[]),
            extension(SERVER_NAME, &[0, 9, 0, 0, 1, b'a']),
            extension(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0]),
            vec![0, 0, 0],
        ] {
            assert_eq!(find(&message(Some(&bad))), Err(HelloError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_refused_as_soon_as_it_shows() {
        for (bytes, error) in [
            (&b"G"[..], HelloError::NotTls),
            (b"\x80\x2e\x01", HelloError::NotTls),
            (b"\x16\x02", HelloError::NotTls),
            (b"\x15\x03\x01\x00\x02\x01\x00", HelloError::NotTls),
            (b"\x16\x03\x01\x00\x01\x02", HelloError::NotTls),
            (b"\x16\x03\x01\x00\x01\x01\x17\x03", HelloError::NotTls),
            (b"\x16\x03\x01\x00\x00", HelloError::Malformed),
            (b"\x16\x03\x01\x40\x00", HelloError::TooLong),
            (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", HelloError::Malformed),
        ] {
            assert_eq!(HelloScan::default().find(bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(HelloScan::default().find(b""), Ok(None));
        assert_eq!(HelloScan::default().find(b"\x16"), Ok(None));
    }

    /// B2: no prefix of a message that calls itself whole is read beyond its end.
    #[test]
    fn a_message_cut_short_is_malformed() {
        let whole = message(Some(&name_list(&[(HOST_NAME, "edge1")])));
        for end in 0..whole.len() - 4 {
            let cut = [&[CLIENT_HELLO][..], &prefixed(3, &whole[4..4 + end])].concat();
            let expected = if end == 2 + 32 + 33 + 4 + 2 {
                HelloError::NoName
            } else {
                HelloError::Malformed
            };
            assert_eq!(find(&cut), Err(expected), "{end}");
        }
    }

    /// B17
    #[test]
    fn an_endless_hello_is_refused_at_its_limit() {
        let long = message(Some(&extension(21, &vec![0; 60_000])));
        let bytes = records(&long, 1000);
        let mut scan = HelloScan::default();
        assert_eq!(scan.find(&bytes[..MAX_HELLO - 1]), Ok(None));
        assert_eq!(scan.find(&bytes[..MAX_HELLO]), Err(HelloError::TooLong));
        assert_eq!(HelloScan::default().find(&bytes), Err(HelloError::TooLong));
    }
}
