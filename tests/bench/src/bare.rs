//! The limit: socket, QUIC stream, socket, and nothing else. Same cryptography, same transport settings, same sizes of
//! reads and writes as the tunnel; no protocol of ours, no identity, no accounting.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tunnel_carrier::quic::{Dialer, Limits, Server};

const LISTENERS: usize = 2;
/// Reads grow while they come back full.
const MIN_READ: usize = 4 * 1024;
const MAX_READ: usize = 256 * 1024;

/// Accepts one far end and callers, and opens a stream for each caller. The first byte of a stream says which listener.
pub(crate) async fn near() -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["near".to_owned()])?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    let mut server = Server::bind("127.0.0.1:0".parse()?, tls, &[0; 32], &Limits::gateway())?;
    let mut listeners = Vec::new();
    let mut line = server.local_addr()?.to_string();
    for _ in 0..LISTENERS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        line += &format!(" {}", listener.local_addr()?);
        listeners.push(listener);
    }
    println!("{line}");
    let connection = server.accept().await.context("no far end")?.connection;
    println!("connected");
    for (index, listener) in listeners.into_iter().enumerate() {
        let connection = connection.clone();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let connection = connection.clone();
                tokio::spawn(async move {
                    caller.set_nodelay(true)?;
                    let (mut send, recv) = connection.open_bi().await?;
                    send.write_all(&[u8::try_from(index)?]).await?;
                    relay(caller, send, recv).await
                });
            }
        });
    }
    // Other subjects have their turns; a connection that is idle for a minute is given up.
    let mut turns = tokio::time::interval(Duration::from_secs(20));
    while connection.close_reason().is_none() {
        turns.tick().await;
        connection.send_datagram(Bytes::new())?;
    }
    Ok(())
}

/// Dials the near end, and a target for each stream.
pub(crate) async fn far(near: SocketAddr, targets: Vec<SocketAddr>) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyPeer))
        .with_no_client_auth();
    let connection = Dialer::bind(0, Limits::edge())?.dial_addresses(&[near], tls).await?;
    while let Ok((send, mut recv)) = connection.accept_bi().await {
        let targets = targets.clone();
        tokio::spawn(async move {
            let mut index = [0];
            recv.read_exact(&mut index).await?;
            let target = targets.get(usize::from(index[0])).context("no such target")?;
            let socket = TcpStream::connect(target).await?;
            socket.set_nodelay(true)?;
            relay(socket, send, recv).await
        });
    }
    Ok(())
}

async fn relay(socket: TcpStream, mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> anyhow::Result<()> {
    let (mut from, mut to) = socket.into_split();
    let up = async {
        let mut buffer = BytesMut::new();
        let mut room = MIN_READ;
        loop {
            buffer.reserve(room);
            if from.read_buf(&mut buffer).await? == 0 {
                send.finish()?;
                return anyhow::Ok(());
            }
            if buffer.len() >= room {
                room = (room * 2).min(MAX_READ);
            }
            send.write_chunk(buffer.split().freeze()).await?;
        }
    };
    let down = async {
        let mut chunks = [const { Bytes::new() }; 64];
        while let Some(count) = recv.read_chunks(&mut chunks).await? {
            let mut all = bytes::Buf::chain(Bytes::new(), Chunks(&mut chunks[..count]));
            to.write_all_buf(&mut all).await?;
        }
        to.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(up, down)?;
    Ok(())
}

/// Chunks as one buffer, so that they go out with one call.
struct Chunks<'a>(&'a mut [Bytes]);

impl bytes::Buf for Chunks<'_> {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|c| !c.is_empty()).map_or(&[], |c| c)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let full = self.0.iter().filter(|c| !c.is_empty());
        slices
            .iter_mut()
            .zip(full)
            .map(|(slice, chunk)| *slice = std::io::IoSlice::new(chunk))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        for chunk in self.0.iter_mut() {
            let taken = count.min(chunk.len());
            chunk.advance(taken);
            count -= taken;
        }
    }
}

/// The bare relay asks nobody who they are.
#[derive(Debug)]
struct AnyPeer;

impl rustls::client::danger::ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
