//! Certificates as text (RFC 7468).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Certificates in PEM form, one after the other.
pub fn encode_certs(certs: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for cert in certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = STANDARD.encode(cert);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Reads them back; `None` if one is damaged or there is none.
pub(crate) fn decode_certs(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().ok()?;
    (!certs.is_empty()).then_some(certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_read_back_as_they_were_written() {
        let certs: Vec<CertificateDer<'static>> = [0usize, 1, 47, 48, 49, 500]
            .map(|n| vec![0xa5; n].into())
            .into_iter()
            .collect();
        assert_eq!(decode_certs(encode_certs(&certs).as_bytes()).unwrap(), certs);
    }

    #[test]
    fn damaged_text_holds_no_certificates() {
        for bad in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(decode_certs(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
