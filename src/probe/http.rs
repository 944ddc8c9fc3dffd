//! HTTP and HTTPS: one request; status and body must be the ones expected.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::connect::connect;
use super::tls::handshake;
use super::{Path, since};
use crate::model::{Host, HttpExpect, Url};

/// So much of a body is looked at, and what came along with the last of it.
const BODY_LIMIT: usize = 64 * 1024;

/// One request, and what a good answer is.
pub(super) struct Question {
    to: SocketAddr,
    /// The server name of TLS.
    name: String,
    /// The `Host` header.
    host: String,
    path: String,
    expect: HttpExpect,
    /// Whether a captive portal may answer in its place.
    portals: bool,
}

impl Question {
    /// To a target in the internet.
    pub(super) fn target(to: SocketAddr, url: &Url, expect: &HttpExpect) -> Question {
        let named = expect.host.clone().or(match &url.host {
            Host::Address(_) => None,
            Host::Name(name) => Some(name.clone()),
        });
        let host = named.clone().unwrap_or_else(|| literal(to.ip()));
        Question {
            to,
            name: named.unwrap_or_else(|| to.ip().to_string()),
            host: with_port(host, url.tls, url.port),
            path: url.path.clone(),
            expect: expect.clone(),
            portals: true,
        }
    }

    /// To a server of the site. A `host` is what its clients ask for, at the service's port, and so
    /// stands alone in the header.
    pub(super) fn server(to: SocketAddr, tls: bool, path: &str, expect: &HttpExpect) -> Question {
        let by_address = || with_port(literal(to.ip()), tls, to.port());
        Question {
            to,
            name: expect.host.clone().unwrap_or_else(|| to.ip().to_string()),
            host: expect.host.clone().unwrap_or_else(by_address),
            path: path.to_owned(),
            expect: expect.clone(),
            portals: false,
        }
    }

    /// What is wrong with such a status, if it is not the one expected.
    fn refuse(&self, response: &Response<Incoming>) -> Option<String> {
        let status = response.status();
        let expected = self.expect.status;
        if expected.map_or(status.is_success(), |wanted| wanted == status.as_u16()) {
            return None;
        }
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.filter(|_| status.is_redirection());
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        // Who is no portal says that something is wrong with itself.
        let portal = !(status.is_client_error() || status.is_server_error())
            || status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED;
        Some(self.blame(portal, format!("HTTP status {status}{to}")))
    }

    fn blame(&self, portal: bool, what: String) -> String {
        if self.portals && portal { format!("captive portal: {what}") } else { what }
    }
}

/// An address as it stands in a `Host` header.
pub(super) fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

pub(super) fn with_port(host: String, tls: bool, port: u16) -> String {
    let usual = if tls { 443 } else { 80 };
    if port == usual { host } else { format!("{host}:{port}") }
}

/// Asks, and judges the answer.
pub(super) async fn ask(
    question: &Question,
    path: Option<&Path>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Duration, String> {
    let started = Instant::now();
    let stream = connect(question.to, path).await?;
    match tls {
        None => exchange(stream, question).await?,
        Some(settings) => {
            let secure = handshake(stream, question.name.clone(), settings).await?;
            exchange(secure, question).await?;
        }
    }
    Ok(since(started))
}

async fn exchange<S>(stream: S, question: &Question) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(question.path.as_str())
        .header(HOST, question.host.as_str())
        .header(USER_AGENT, "homing")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("HTTP: {error}"))?;
    let judge = async |response: Response<Incoming>| {
        if let Some(why) = question.refuse(&response) {
            return Err(why);
        }
        let Some(text) = &question.expect.body else { return Ok(()) };
        let body = beginning(response.into_body()).await.map_err(failed)?;
        match String::from_utf8_lossy(&body).contains(text.as_str()) {
            true => Ok(()),
            false => Err(question.blame(true, "another body than expected".to_owned())),
        }
    };
    talk(stream, request, judge).await
}

fn failed(error: hyper::Error) -> String {
    format!("HTTP: {error}")
}

/// Sends one request, and judges the answer.
pub(super) async fn talk<S, B, T>(
    stream: S,
    request: Request<B>,
    judge: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
) -> Result<T, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Both at once: the connection does the work, the answer is what counts.
    let answer = async { judge(sender.send_request(request).await.map_err(failed)?).await };
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        // The server may end the connection right after its answer, which is then read already.
        _ = &mut connection => answer.await,
    }
}

async fn beginning(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.len() < BODY_LIMIT
        && let Some(frame) = body.frame().await.transpose()?
    {
        read.extend(frame.into_data().unwrap_or_default());
    }
    Ok(read)
}
