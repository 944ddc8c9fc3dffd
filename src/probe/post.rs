//! Sending a text by HTTP or HTTPS, for notices: over one uplink, or by what routes say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use rustls::ClientConfig;

use super::Path;
use super::connect::connect;
use super::http::{literal, talk, with_port};
use super::tls::{Tls, handshake};
use crate::model::{Host, Url};

/// Delivers.
#[derive(Debug, Default)]
pub struct Postman {
    /// How to speak TLS, made when it is first needed.
    tls: Option<Arc<ClientConfig>>,
}

impl Postman {
    /// Sends a JSON text to a server that is at this address. Takes as long as the server likes.
    ///
    /// # Errors
    /// Why it was not taken, in plain words.
    pub async fn post(
        &mut self,
        url: &Url,
        at: IpAddr,
        path: Option<&Path>,
        text: String,
    ) -> Result<(), String> {
        let (name, host) = match &url.host {
            Host::Name(name) => (name.clone(), name.clone()),
            Host::Address(address) => (address.to_string(), literal(*address)),
        };
        let request = Request::post(url.path.as_str())
            .header(HOST, with_port(host, url.tls, url.port))
            .header(USER_AGENT, "homing")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::<Bytes>::from(text))
            .map_err(|error| format!("HTTP: {error}"))?;
        let settings = if url.tls { Some(self.trust().await?) } else { None };
        let stream = connect(SocketAddr::new(at, url.port), path).await?;
        let status = match settings {
            None => talk(stream, request, async |response| Ok(response.status())).await?,
            Some(settings) => {
                let secure = handshake(stream, name, settings).await?;
                talk(secure, request, async |response| Ok(response.status())).await?
            }
        };
        if status.is_success() { Ok(()) } else { Err(format!("HTTP status {status}")) }
    }

    /// Reads the certificates that the host trusts: elsewhere, for that takes a while.
    async fn trust(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(settings) = &self.tls {
            return Ok(settings.clone());
        }
        let reading = tokio::task::spawn_blocking(|| Tls::default().with_targets());
        let settings = reading.await.map_err(|error| format!("TLS: {error}"))??;
        Ok(self.tls.insert(settings).clone())
    }
}
