//! TLS: a handshake that succeeds is the answer.
//!
//! A target must show a certificate that is trusted and its own, or anybody on the way could answer in
//! its place. A server of the site need not: hardly any has one for its address in a LAN.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::connect;
use super::since;

/// Shakes hands with a server, and hangs up with a farewell. A reset could overtake the server's last
/// words of the handshake, and it would complain.
pub(super) async fn ask(
    to: SocketAddr,
    name: String,
    settings: Arc<ClientConfig>,
) -> Result<Duration, String> {
    let started = Instant::now();
    let mut stream = handshake(connect(to, None).await?, name, settings).await?;
    let rtt = since(started);
    // The handshake was the answer; whoever is gone by now needs no farewell.
    let _ = stream.shutdown().await;
    Ok(rtt)
}

/// Makes a connection secure; the name is a host's or an address.
pub(super) async fn handshake(
    stream: TcpStream,
    name: String,
    settings: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let secure = TlsConnector::from(settings).connect(server, stream).await;
    secure.map_err(|error| format!("TLS: {error}"))
}

/// How to speak TLS, made when it is first needed.
#[derive(Default)]
pub(super) struct Tls {
    targets: Option<Arc<ClientConfig>>,
    servers: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// With targets: they must be trusted by the host's certificate store.
    pub(super) fn with_targets(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(settings) = &self.targets {
            return Ok(settings.clone());
        }
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err("this host trusts no certificates: install ca-certificates".to_owned());
        }
        self.trust(found)
    }

    /// Targets must be trusted by these authorities, and no others.
    pub(super) fn trust(
        &mut self,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let builder = builder(Arc::new(ring::default_provider()))?;
        let settings = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(self.targets.insert(settings).clone())
    }

    /// With servers of the site: any certificate will do.
    pub(super) fn with_servers(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(settings) = &self.servers {
            return Ok(settings.clone());
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let builder = builder(provider)?.dangerous().with_custom_certificate_verifier(verifier);
        let mut settings = builder.with_no_client_auth();
        // A session that is resumed would ask for less than a client that comes anew.
        settings.resumption = Resumption::disabled();
        Ok(self.servers.insert(Arc::new(settings)).clone())
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().map_err(|error| format!("TLS: {error}"))
}

/// Takes every certificate, from whoever has the key to it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
