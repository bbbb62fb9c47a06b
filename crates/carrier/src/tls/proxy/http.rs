//! HTTP CONNECT (RFC 9110 section 9.3.6).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tunnel_model::{HostPort, Reason, Refusal};

use super::{Credentials, ProxyFailure, broke};

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The most fields in one.
const MAX_FIELDS: usize = 64;
/// Interim answers (RFC 9110 section 15.2) that are passed over.
const MAX_INTERIM: usize = 4;

pub(super) async fn connect(
    tcp: &mut TcpStream,
    target: &HostPort,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyFailure> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let basic = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(|e| broke(&e))?;
    for _ in 0..=MAX_INTERIM {
        let head = read_head(tcp).await?;
        let answer = Answer::parse(&head)?;
        if answer.status != 101 && (100..200).contains(&answer.status) {
            continue;
        }
        return answer.verdict(credentials.is_some());
    }
    Err(malformed())
}

/// Reads a head to its end and nothing beyond: what follows is the gateway's.
async fn read_head(tcp: &mut TcpStream) -> Result<Vec<u8>, ProxyFailure> {
    let mut head = Vec::new();
    let mut seen = [0; 1024];
    loop {
        let peeked = tcp.peek(&mut seen).await.map_err(|e| broke(&e))?;
        if peeked == 0 {
            return Err(ProxyFailure::Closed("before it answered".to_owned()));
        }
        let before = head.len();
        head.extend_from_slice(&seen[..peeked]);
        let end = end_of_head(&head);
        head.truncate(end.unwrap_or(head.len()));
        // It is there, so that this takes all of it.
        let taken = head.len() - before;
        tcp.read_exact(&mut seen[..taken]).await.map_err(|e| broke(&e))?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD || !b"HTTP/1.".starts_with(&head[..head.len().min(7)]) {
            return Err(malformed());
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|start| start + 4)
}

fn malformed() -> ProxyFailure {
    ProxyFailure::Malformed("HTTP")
}

/// What a proxy answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    phrase: String,
    /// The schemes of authentication that it offers.
    schemes: Vec<String>,
}

impl Answer {
    fn parse(head: &[u8]) -> Result<Self, ProxyFailure> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(malformed()),
        }
        let challenges = answer.headers.iter();
        let schemes = challenges
            .filter(|field| field.name.eq_ignore_ascii_case("proxy-authenticate"))
            .map(|field| {
                let value = String::from_utf8_lossy(field.value);
                value.split([' ', ',']).next().unwrap_or_default().to_owned()
            })
            .filter(|scheme| !scheme.is_empty())
            .collect();
        Ok(Self {
            status: answer.code.ok_or_else(malformed)?,
            phrase: answer.reason.unwrap_or_default().to_owned(),
            schemes,
        })
    }

    fn verdict(self, had_credentials: bool) -> Result<(), ProxyFailure> {
        let says = |text: String| {
            // What a stranger says is cut to size and to one line, as a refusal's words are.
            Refusal::new(Reason::TargetUnreachable, text).message
        };
        let words = says(format!("{} {}", self.status, self.phrase).trim_end().to_owned());
        match self.status {
            200..300 => Ok(()),
            // tinyproxy says 401 to the wrong password where it says 407 to none.
            401 if had_credentials => Err(ProxyFailure::CredentialsRefused(words)),
            407 => {
                let offers = |scheme: &str| self.schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme));
                let schemes = says(self.schemes.join(", "));
                if !self.schemes.is_empty() && !offers("basic") {
                    let words = format!("{words}; it wants {schemes}, and only Basic is supported");
                    Err(ProxyFailure::Refused(words))
                } else if had_credentials {
                    Err(ProxyFailure::CredentialsRefused(words))
                } else {
                    Err(ProxyFailure::CredentialsMissing(words))
                }
            }
            _ => Err(ProxyFailure::Refused(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(head: &str, had_credentials: bool) -> Result<(), ProxyFailure> {
        Answer::parse(head.as_bytes())?.verdict(had_credentials)
    }

    #[test]
    fn n12_each_answer_of_a_proxy_is_a_diagnosis_by_name() {
        verdict("HTTP/1.1 200 Connection established\r\n\r\n", false).unwrap();
        verdict("HTTP/1.0 204\r\nContent-Length: 7\r\n\r\n", false).unwrap();
        let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        let required = "407 Proxy Authentication Required".to_owned();
        assert_eq!(
            verdict(basic, false),
            Err(ProxyFailure::CredentialsMissing(required.clone()))
        );
        assert_eq!(verdict(basic, true), Err(ProxyFailure::CredentialsRefused(required)));
        let wrong = Err(ProxyFailure::CredentialsRefused("401 Unauthorized".to_owned()));
        assert_eq!(verdict("HTTP/1.1 401 Unauthorized\r\n\r\n", true), wrong);
        let ntlm = "HTTP/1.1 407 No\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n";
        let words = "407 No; it wants NTLM, Negotiate, and only Basic is supported".to_owned();
        assert_eq!(verdict(ntlm, true), Err(ProxyFailure::Refused(words)));
        for (head, words) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
            ("HTTP/1.1 502\r\n\r\n", "502"),
            ("HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "302 Found"),
        ] {
            assert_eq!(verdict(head, false), Err(ProxyFailure::Refused(words.to_owned())));
        }
    }

    #[test]
    fn b17_a_head_of_too_many_fields_or_of_no_http_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        for head in [
            &many,
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(verdict(head, false), Err(malformed()), "{head}");
        }
    }
}
