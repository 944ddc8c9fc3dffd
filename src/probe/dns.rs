//! DNS: one question for the IPv4 addresses of a name; an answer without error is good.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::connect::{datagrams, plain};
use super::{Path, since};

/// Where resolvers listen.
pub(super) const PORT: u16 = 53;
const HEADER: usize = 12;
/// "This is a question, and you may ask others for me."
const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
const CODE: u16 = 0x000f;

/// Asks, and waits for an answer to this very question.
pub(super) async fn ask(
    server: SocketAddr,
    name: &str,
    path: Option<&Path>,
) -> Result<Duration, String> {
    let started = Instant::now();
    let socket = datagrams(server, path).await?;
    let question = question(RandomState::new().hash_one(name) as u16, name);
    socket.send(&question).await.map_err(|error| plain(&error))?;
    let mut answer = [0; 4096];
    loop {
        let length = socket.recv(&mut answer).await.map_err(|error| plain(&error))?;
        if let Some(outcome) = judge(&question, &answer[..length]) {
            return outcome.map(|()| since(started));
        }
    }
}

/// A question for the address (`A`, class `IN`) of a name.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(label.len() as u8);
        message.extend(label);
    }
    message.push(0);
    for number in [1_u16, 1] {
        message.extend(number.to_be_bytes());
    }
    message
}

/// What an answer says; `None` when it is not one to this question.
pub(super) fn judge(question: &[u8], answer: &[u8]) -> Option<Result<(), String>> {
    let word = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let flags = word(2)?;
    if answer.get(..2)? != question.get(..2)? || flags & RESPONSE == 0 {
        return None;
    }
    // What was asked stands in the answer as well (RFC 5452, section 9.1); who only complains may
    // leave it out.
    let left_out = word(4)? == 0 && flags & CODE != 0;
    let asked = question.get(HEADER..)?;
    let same = || Some(answer.get(HEADER..HEADER + asked.len())?.eq_ignore_ascii_case(asked));
    if !left_out && same() != Some(true) {
        return None;
    }
    Some(match flags & CODE {
        0 => Ok(()),
        2 => Err("the resolver failed (SERVFAIL)".to_owned()),
        3 => Err("the name does not exist (NXDOMAIN)".to_owned()),
        5 => Err("the resolver refused (REFUSED)".to_owned()),
        code => Err(format!("the resolver answered with error {code}")),
    })
}

#[cfg(test)]
mod tests {
    use super::{judge, question};

    #[test]
    fn a_question_is_written_as_rfc_1035_says() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
        assert_eq!(question(0x1234, "example.com"), expected);
        assert_eq!(question(0x1234, "example.com."), expected);
    }

    #[test]
    fn only_an_answer_to_this_question_without_error_is_good() {
        let question = question(0x1234, "example.com");
        let with = |id: [u8; 2], flags: [u8; 2]| {
            let mut answer = question.clone();
            answer[..2].copy_from_slice(&id);
            answer[2..4].copy_from_slice(&flags);
            judge(&question, &answer)
        };
        assert_eq!(with([0x12, 0x34], [0x81, 0x80]), Some(Ok(())));
        assert_eq!(with([0x12, 0x35], [0x81, 0x80]), None, "another question's");
        assert_eq!(with([0x12, 0x34], [0x01, 0x00]), None, "the question itself");
        let refused = with([0x12, 0x34], [0x81, 0x83]).and_then(Result::err);
        assert_eq!(refused.as_deref(), Some("the name does not exist (NXDOMAIN)"));
        assert_eq!(judge(&question, &[0x12]), None);
        let mut another = super::question(0x1234, "example.net");
        another[2..4].copy_from_slice(&[0x81, 0x80]);
        assert_eq!(judge(&question, &another), None, "it was asked something else");
        let bare = [0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0];
        let refused = judge(&question, &bare).and_then(Result::err);
        assert_eq!(refused.as_deref(), Some("the resolver refused (REFUSED)"));
    }
}
