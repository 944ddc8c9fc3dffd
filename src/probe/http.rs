//! HTTP and HTTPS: one request; status and body must be the ones expected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::connect::connect;
use super::{Path, since};
use crate::model::{Host, HttpExpect, Url};

/// So much of a body is looked at.
const BODY_LIMIT: usize = 64 * 1024;

/// Asks, and judges the answer.
pub(super) async fn ask(
    to: SocketAddr,
    url: &Url,
    expect: &HttpExpect,
    path: &Path,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Duration, String> {
    let started = Instant::now();
    let stream = connect(to, path).await?;
    match tls {
        None => exchange(stream, url, expect).await?,
        Some(settings) => {
            let name = expect.host.clone().unwrap_or_else(|| bare(&url.host));
            let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let secure = TlsConnector::from(settings).connect(server, stream).await;
            let secure = secure.map_err(|error| format!("TLS: {error}"))?;
            exchange(secure, url, expect).await?;
        }
    }
    Ok(since(started))
}

async fn exchange<S>(stream: S, url: &Url, expect: &HttpExpect) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("HTTP: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(url.path.as_str())
        .header(HOST, host_header(url, expect))
        .header(USER_AGENT, "homing")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("HTTP: {error}"))?;
    // Both at once: the connection does the work, the answer is what counts.
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let right = expect.status.map_or(status.is_success(), |wanted| wanted == status.as_u16());
        if !right {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.filter(|_| status.is_redirection());
            let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
            // Who is no portal says that something is wrong with itself.
            let portal = !(status.is_client_error() || status.is_server_error())
                || status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED;
            let what = if portal { "captive portal: " } else { "" };
            return Err(format!("{what}HTTP status {status}{to}"));
        }
        let Some(text) = &expect.body else { return Ok(()) };
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|error| format!("HTTP: {error}"))?.to_bytes();
        match String::from_utf8_lossy(&body).contains(text.as_str()) {
            true => Ok(()),
            false => Err("captive portal: another body than expected".to_owned()),
        }
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        // The server may end the connection right after its answer, which is then read already.
        _ = &mut connection => answer.await,
    }
}

fn bare(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    }
}

fn host_header(url: &Url, expect: &HttpExpect) -> String {
    let host = expect.host.clone().unwrap_or_else(|| match &url.host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        other => bare(other),
    });
    let usual = if url.tls { 443 } else { 80 };
    if url.port == usual { host } else { format!("{host}:{}", url.port) }
}

/// Whom to trust: the host's certificate store, read when it is first needed.
#[derive(Default)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    pub(super) fn settings(&mut self) -> Result<Option<Arc<ClientConfig>>, String> {
        if self.0.is_none() {
            let found = rustls_native_certs::load_native_certs().certs;
            if found.is_empty() {
                return Err("this host trusts no certificates: install ca-certificates".to_owned());
            }
            self.trust(found);
        }
        Ok(self.0.clone())
    }

    /// Trusts these authorities, and no others.
    pub(super) fn trust(&mut self, authorities: Vec<CertificateDer<'static>>) {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        // The provider has cipher suites for every version; if it had not, nothing could be asked.
        self.0 = settings.ok().map(Arc::new);
    }
}
