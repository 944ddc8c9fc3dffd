//! Answers that no resolver sent: for [`crate::hostile`].

use super::dns::{judge, question};

/// What comes back for a question: the first byte says how much of the rest is the name asked for.
pub fn dns(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (name, answer) = rest.split_at(usize::from(*length).min(rest.len()));
    let question = question(0x1234, &String::from_utf8_lossy(name));
    let _ = judge(&question, answer);
    // One that is an answer to it, and goes on so.
    let mut fitting = question.clone();
    if let Some(flags) = fitting.get_mut(2) {
        *flags |= 0x80;
    }
    fitting.extend(answer);
    assert_eq!(judge(&question, &fitting), Some(Ok(())), "more after the question changes nothing");
}
