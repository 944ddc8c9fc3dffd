//! Words from a profile as they are repeated in findings.

use std::fmt::Write as _;

/// Longest piece of a profile that a message repeats, in characters.
const LONGEST: usize = 60;

/// The text on one line: cut where it is long, control characters escaped.
pub(super) fn shortened(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The candidate that was probably meant.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// "`a`, `b` or `c`", cut after a dozen.
pub(super) fn choices<'c>(candidates: impl IntoIterator<Item = &'c str>) -> String {
    joined(candidates, "or")
}

/// "`a`, `b` and `c`", cut after a dozen.
pub(super) fn all_of<'c>(candidates: impl IntoIterator<Item = &'c str>) -> String {
    joined(candidates, "and")
}

fn joined<'c>(candidates: impl IntoIterator<Item = &'c str>, word: &str) -> String {
    let quoted: Vec<String> =
        candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        many if many.len() > 20 => format!("{}, …", many.get(..12).unwrap_or(many).join(", ")),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}

/// The lines as YAML counts them: a carriage return alone ends one too.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let strip = |line| str::strip_suffix(line, '\r').unwrap_or(line);
    text.split('\n').flat_map(move |line| strip(line).split('\r'))
}
