//! Asks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::SOCKET;

/// Asks the running process.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no running homing at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("no permission to use {}", .0.display())]
    Permission(PathBuf),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("homing did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The talk broke off.
    #[error("cannot talk to homing: {0}")]
    Broken(String),
}

/// What an answer says that is none.
fn refusal(body: &[u8]) -> ClientError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = value.get("error").and_then(Value::as_str).unwrap_or("refused");
    ClientError::Refused(reason.to_owned())
}

impl Client {
    /// For the process with this runtime directory.
    pub fn new(runtime_dir: &Path) -> Client {
        Client { socket: runtime_dir.join(SOCKET) }
    }

    /// Reads a path.
    ///
    /// # Errors
    /// When there is no process, or it refuses.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, Duration::from_secs(10)).await
    }

    /// Reads a path as it comes, without a look at it.
    ///
    /// # Errors
    /// When there is no process, or it refuses.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let limit = Duration::from_secs(10);
        let talk = tokio::time::timeout(limit, self.fetch(Method::GET, path));
        let (status, body) = talk.await.map_err(|_| ClientError::Late(limit))??;
        if status == StatusCode::OK {
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
        Err(refusal(&body))
    }

    /// Orders something.
    ///
    /// # Errors
    /// When there is no process, or it refuses.
    pub async fn post(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Duration::from_secs(60)).await
    }

    async fn ask(&self, method: Method, path: &str, limit: Duration) -> Result<Value, ClientError> {
        let talk = tokio::time::timeout(limit, self.talk(method, path));
        talk.await.map_err(|_| ClientError::Late(limit))?
    }

    async fn talk(&self, method: Method, path: &str) -> Result<Value, ClientError> {
        let (status, body) = self.fetch(method, path).await?;
        if status != StatusCode::OK {
            return Err(refusal(&body));
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.to_string()))
    }

    async fn fetch(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "homing")
            .body(Empty::<Bytes>::new())
            .map_err(|e| broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| broken(&e))?.to_bytes();
        Ok((status, body))
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
            _ => ClientError::NotRunning(self.socket.clone()),
        }
    }
}
