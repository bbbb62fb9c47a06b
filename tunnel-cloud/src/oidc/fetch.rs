//! Key sets from the web: one GET over TLS 1.3, no redirects, a bounded answer.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The largest key set that is read, in bytes.
pub(super) const MAX_SET: usize = 256 * 1024;

/// A key set was not fetched; the text is for the log.
pub(super) type FetchError = Box<dyn std::error::Error + Send + Sync>;

/// The client's side of TLS: trusts the authorities in the given PEM file, or the system's.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for cert in CertificateDer::pem_file_iter(path)? {
                roots.add(cert?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(
            "there are no certificate authorities to trust; install ca-certificates, or set the key \"ca\"".into(),
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Fetches a document.
pub(super) async fn get(url: &Uri, tls: &Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let authority = url.authority().ok_or("the URL names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let io = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => Ok(Limited::new(response.into_body(), MAX_SET).collect().await?.to_bytes()),
            status => Err(FetchError::from(format!("the answer is {status}"))),
        }
    };
    // How the connection ends says nothing that the answer does not.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
