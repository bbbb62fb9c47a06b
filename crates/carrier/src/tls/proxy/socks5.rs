//! SOCKS version 5 (RFC 1928), with user name and password (RFC 1929).

use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tunnel_model::HostPort;

use super::{Credentials, ProxyFailure, broke};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

pub(super) async fn connect(
    tcp: &mut TcpStream,
    target: &HostPort,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyFailure> {
    let methods: &[u8] = match credentials {
        Some(_) => &[NO_AUTHENTICATION, USER_PASSWORD],
        None => &[NO_AUTHENTICATION],
    };
    send(tcp, &[&[VERSION, length(methods)?], methods].concat()).await?;
    let method = match receive(tcp).await? {
        [VERSION, method] => method,
        _ => return Err(malformed()),
    };
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => {}
        (USER_PASSWORD, Some(credentials)) => authenticate(tcp, credentials).await?,
        (NONE_ACCEPTABLE, None) => return Err(ProxyFailure::CredentialsMissing("no method acceptable".to_owned())),
        (NONE_ACCEPTABLE, Some(_)) => {
            return Err(ProxyFailure::Refused(
                "it takes neither none nor a user name and a password".to_owned(),
            ));
        }
        _ => return Err(malformed()),
    }
    let mut request = vec![VERSION, 1, 0];
    match target.ip() {
        Some(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        None => {
            request.extend([3, length(target.host().as_bytes())?]);
            request.extend(target.host().as_bytes());
        }
    }
    request.extend(target.port().to_be_bytes());
    send(tcp, &request).await?;
    match receive(tcp).await? {
        [VERSION, 0, _, kind] => skip_address(tcp, kind).await,
        [VERSION, reply, ..] => Err(ProxyFailure::Refused(words(reply))),
        _ => Err(malformed()),
    }
}

async fn authenticate(tcp: &mut TcpStream, credentials: &Credentials) -> Result<(), ProxyFailure> {
    let (user, password) = (credentials.user.as_bytes(), credentials.password.as_bytes());
    let request = [&[1, length(user)?], user, &[length(password)?], password].concat();
    send(tcp, &request).await?;
    match receive(tcp).await? {
        [1, 0] => Ok(()),
        [1, status] => Err(ProxyFailure::CredentialsRefused(format!("status {status}"))),
        _ => Err(malformed()),
    }
}

/// The address that the proxy uses, which is of no interest.
async fn skip_address(tcp: &mut TcpStream, kind: u8) -> Result<(), ProxyFailure> {
    let length = match kind {
        1 => 4,
        3 => {
            let [length] = receive(tcp).await?;
            usize::from(length)
        }
        4 => 16,
        _ => return Err(malformed()),
    };
    let mut ignored = [0; 255 + 2];
    let read = tcp.read_exact(&mut ignored[..length + 2]).await;
    read.map(drop).map_err(|e| broke(&e))
}

async fn send(tcp: &mut TcpStream, bytes: &[u8]) -> Result<(), ProxyFailure> {
    tcp.write_all(bytes).await.map_err(|e| broke(&e))
}

async fn receive<const N: usize>(tcp: &mut TcpStream) -> Result<[u8; N], ProxyFailure> {
    let mut bytes = [0; N];
    tcp.read_exact(&mut bytes).await.map_err(|e| broke(&e))?;
    Ok(bytes)
}

fn length(bytes: &[u8]) -> Result<u8, ProxyFailure> {
    u8::try_from(bytes.len()).map_err(|_| ProxyFailure::Refused("a name is too long for SOCKS".to_owned()))
}

fn malformed() -> ProxyFailure {
    ProxyFailure::Malformed("SOCKS 5")
}

/// RFC 1928 section 6
fn words(reply: u8) -> String {
    match reply {
        1 => "general failure".to_owned(),
        2 => "not allowed by its rules".to_owned(),
        3 => "network unreachable".to_owned(),
        4 => "host unreachable, or its name does not resolve".to_owned(),
        5 => "connection refused".to_owned(),
        6 => "TTL expired".to_owned(),
        7 => "it does not know CONNECT".to_owned(),
        8 => "it does not know this type of address".to_owned(),
        _ => format!("reply {reply}"),
    }
}
