//! Asks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::listen::SOCKET;

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
    /// It has ended.
    #[error("homing has ended")]
    Gone,
    /// The talk broke off.
    #[error("cannot talk to homing: {0}")]
    Broken(String),
}

fn broken(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// Server-sent events, as they are put together from lines (HTML standard, section 9.2.6).
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    name: String,
    data: String,
}

impl Lines {
    /// Takes in some bytes; false when whoever is told has enough.
    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(&str, &str) -> bool) -> bool {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !data.is_empty() && !each(&name, &data) {
                    return false;
                }
            } else if let Some(text) = line.strip_prefix("event:") {
                text.trim_start().clone_into(&mut self.name);
            } else if let Some(text) = line.strip_prefix("data:") {
                self.data.push_str(text.strip_prefix(' ').unwrap_or(text));
            }
        }
        true
    }
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

    /// Reads a stream of events; each is given with its name, which is empty for usual ones. Ends when
    /// `each` says that it has enough.
    ///
    /// # Errors
    /// When there is no process, it refuses, or it has ended.
    pub async fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(&str, &str) -> bool,
    ) -> Result<(), ClientError> {
        let response = self.begin(Method::GET, path).await?;
        let (status, mut body) = (response.status(), response.into_body());
        if status != StatusCode::OK {
            let body = body.collect().await.map_err(|e| broken(&e))?.to_bytes();
            return Err(refusal(&body));
        }
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ClientError::Gone)?;
            if !lines.take(&frame.into_data().unwrap_or_default(), &mut each) {
                return Ok(());
            }
        }
        Err(ClientError::Gone)
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
        let response = self.begin(method, path).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| broken(&e))?.to_bytes();
        Ok((status, body))
    }

    async fn begin(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
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
        sender.send_request(request).await.map_err(|e| broken(&e))
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
            _ => ClientError::NotRunning(self.socket.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn events_are_put_together_whatever_pieces_they_come_in() {
        let text = ": hello\n\nid: 7\ndata: {\"a\":1}\n\nevent: lost\r\ndata: 3\r\n\r\n";
        for size in [1, 2, 5, text.len()] {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for part in text.as_bytes().chunks(size) {
                let mut each = |name: &str, data: &str| {
                    seen.push((name.to_owned(), data.to_owned()));
                    true
                };
                assert!(lines.take(part, &mut each));
            }
            let wanted = [("", "{\"a\":1}"), ("lost", "3")];
            assert_eq!(
                seen,
                wanted.map(|(name, data)| (name.to_owned(), data.to_owned())),
                "{size}"
            );
        }
    }
}
