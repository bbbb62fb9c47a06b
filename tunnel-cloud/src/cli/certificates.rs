//! `users certificate`: client certificates for TLS to the proxy port.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::Method;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use tunnel_daemon::{
    error::{CliError, Exit},
    file::{self, Mode},
    output::{self, OutputFormat},
};
use tunnel_identity::PrivateKey;

use super::{
    CertificateArgs,
    gateway::{Gateway, segment},
};
use crate::admin::api::{CertifyUser, UserCertificate};

pub(super) async fn run(args: CertificateArgs, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let made = match &args.key.out_key {
        Some(_) => Some(PrivateKey::generate().map_err(|e| failed(e.to_string()))?),
        None => None,
    };
    let request = match (&made, &args.key.csr) {
        (Some(key), _) => key.certificate_request().map_err(|e| failed(e.to_string()))?,
        (None, Some(path)) => read_request(path)?,
        (None, None) => return Err(CliError::new(Exit::Usage, "bad-request", "give --csr or --out-key")),
    };
    let wanted = CertifyUser {
        request: STANDARD.encode(request),
        ttl_s: args.ttl.as_secs(),
    };
    let path = format!("/v1/users/{}/certificates", segment(args.name.as_str()));
    let issued: UserCertificate = gateway.request(Method::POST, &path, Some(&wanted)).await?;
    if let (Some(key), Some(path)) = (made, &args.key.out_key) {
        write(path, key.to_pem().as_bytes(), Mode::Private)?;
    }
    if let Some(path) = &args.out_root {
        write(path, issued.root.as_bytes(), Mode::Public)?;
    }
    match format {
        OutputFormat::Table => output::data(issued.certificate.trim_end()),
        OutputFormat::Json => output::data(&output::to_json(&issued)?),
    }
}

/// The request in a PEM file, as DER.
fn read_request(path: &Path) -> Result<Vec<u8>, CliError> {
    let text = fs::read(path).map_err(|error| {
        let message = format!("{path:?} cannot be read: {error}");
        CliError::new(Exit::Failure, "certificate-file", message).with_hint("name a file that this user may read")
    })?;
    let request = CertificateSigningRequestDer::from_pem_slice(&text);
    request.map(|der| der.to_vec()).map_err(|_| {
        let message = format!("{path:?} holds no certificate request in PEM form");
        CliError::new(Exit::Usage, "certificate-request", message)
            .with_hint("it begins with -----BEGIN CERTIFICATE REQUEST-----")
    })
}

fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), CliError> {
    file::write_new(path, bytes, mode).map_err(|error| {
        let message = format!("{path:?} cannot be written: {error}");
        CliError::new(Exit::Failure, "certificate-file", message)
            .with_hint("name a file that does not exist yet, in a directory that this user may write to")
    })
}

fn failed(message: String) -> CliError {
    CliError::new(Exit::Failure, "certificate-not-issued", message)
}
