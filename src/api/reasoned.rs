//! A reason in what the HTTP library answers by itself, when what came is no request at all.
//!
//! Such an answer has a status and no body. Ours have a body, always; so an error without one is the
//! library's, and goes out with a body that says what was wrong, as every other refusal does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose errors say why.
#[derive(Debug)]
pub(super) struct Reasoned<S> {
    stream: S,
    /// What goes out before anything else.
    answer: Vec<u8>,
}

/// The whole answer, where these bytes are an error that has no body.
fn answer_for(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let code: u16 = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let empty = |line: &str| line.eq_ignore_ascii_case("content-length: 0");
    if code < 400 || head.contains("\r\n\r\n") || !head.lines().any(empty) {
        return None;
    }
    let reason = match StatusCode::from_u16(code).ok()? {
        StatusCode::BAD_REQUEST => "this is no request of HTTP/1.1".to_owned(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head of the request is too long, or has too many fields".to_owned()
        }
        other => other.canonical_reason().unwrap_or("this cannot be answered").to_lowercase(),
    };
    let body = json!({ "error": reason }).to_string();
    let kept = head.lines().filter(|line| !empty(line)).map(|line| format!("{line}\r\n"));
    let head = kept.collect::<String>();
    let about = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    Some(format!("{head}{about}\r\n\r\n{body}").into_bytes())
}

impl<S: AsyncWrite + Unpin> Reasoned<S> {
    pub(super) fn new(stream: S) -> Reasoned<S> {
        Reasoned { stream, answer: Vec::new() }
    }

    /// Sends the answer that waits.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.answer.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.answer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.answer.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reasoned<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reasoned<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(context))?;
        match answer_for(bytes) {
            Some(answer) => {
                self.answer = answer;
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces {
            [piece] => self.poll_write(context, piece),
            _ => {
                ready!(self.poll_answer(context))?;
                Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::answer_for;

    #[test]
    fn only_an_error_without_a_body_gets_one() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\n\r\n";
        let answer = String::from_utf8(answer_for(bare.as_bytes()).unwrap_or_default());
        let answer = answer.unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(!head.contains("content-length: 0"), "{answer}");
        assert!(body.contains("too many fields"), "{answer}");

        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "content-length: 0\r\n\r\n",
            "",
        ] {
            assert_eq!(answer_for(other.as_bytes()), None, "{other}");
        }
    }
}
