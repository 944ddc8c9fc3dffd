//! UDP: a datagram, and an answer that contains what is expected.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::connect::{datagrams, plain};
use super::since;

/// The longest that a datagram can be.
const LONGEST: usize = 65_535;

/// Asks a server. Its first answer counts; without any, it is up to the caller to stop waiting.
pub(super) async fn ask(
    to: SocketAddr,
    send: &[u8],
    expect: Option<&[u8]>,
) -> Result<Duration, String> {
    let started = Instant::now();
    let socket = datagrams(to, None).await?;
    socket.send(send).await.map_err(|error| plain(&error))?;
    let mut answer = vec![0; LONGEST];
    let length = socket.recv(&mut answer).await.map_err(|error| plain(&error))?;
    match expect.is_none_or(|expect| contains(&answer[..length], expect)) {
        true => Ok(since(started)),
        false => Err("another answer than expected".to_owned()),
    }
}

fn contains(answer: &[u8], part: &[u8]) -> bool {
    part.is_empty() || answer.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn a_part_may_be_anywhere_in_an_answer() {
        for part in ["", "pong", "p", "ng", "on"] {
            assert!(contains(b"pong", part.as_bytes()), "{part}");
        }
        for part in ["ping", "pong!", "x"] {
            assert!(!contains(b"pong", part.as_bytes()), "{part}");
        }
        assert!(!contains(b"", b"x"));
    }
}
