//! Reading single values: words, numbers, durations, rates, shares.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::{IfName, Share};

use super::fields::did_you_mean;
use super::finding::Findings;
use super::text::{choices, shortened};
use super::tree::{Kind, Node};

/// Reports that something else was expected.
pub(super) fn expected(node: Node<'_>, what: &str, hint: &str, out: &mut Findings) {
    out.error_with(node, format!("expected {what}, not {}", node.describe()), hint);
}

/// Any text, in quotes or not.
pub(super) fn text<'t>(node: Node<'t>, what: &str, out: &mut Findings) -> Option<&'t str> {
    let found = node.text().filter(|text| !node.is_null() && !text.is_empty());
    if found.is_none() {
        out.error(node, format!("expected {what}, not {}", node.describe()));
    }
    found
}

/// Text, or bytes in hexadecimal: `0x00ff`.
pub(super) fn bytes(node: Node<'_>, out: &mut Findings) -> Option<Vec<u8>> {
    let found = text(node, "text", out)?;
    let Some(digits) = found.strip_prefix("0x") else { return Some(found.as_bytes().to_vec()) };
    let bytes = parse_hex(digits);
    if bytes.is_none() {
        let hint = "two hexadecimal digits for each byte: `0x00ff`";
        expected(node, "bytes after `0x`", hint, out);
    }
    bytes
}

fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    if digits.is_empty() { None } else { pairs.map(byte).collect() }
}

/// `true` or `false`.
pub(super) fn boolean(node: Node<'_>, out: &mut Findings) -> Option<bool> {
    let text = node.text().unwrap_or_default();
    if node.is_plain() && matches!(text, "true" | "false") {
        return Some(text == "true");
    }
    let hint = match text.to_ascii_lowercase().as_str() {
        "true" | "false" if !node.is_plain() => "remove the quotes",
        "yes" | "on" | "y" | "1" | "true" => "say `true`",
        "no" | "off" | "n" | "0" | "false" => "say `false`",
        _ => "say `true` or `false`",
    };
    if hint == "remove the quotes" {
        out.error_with(node, format!("`\"{text}\"` is text, not a boolean"), hint);
    } else {
        expected(node, "`true` or `false`", hint, out);
    }
    None
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: Node<'_>,
    what: &str,
    options: &[(&'static str, T)],
    out: &mut Findings,
) -> Option<T> {
    let text = node.text().unwrap_or_default();
    if let Some((_, value)) = options.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words = || options.iter().map(|(word, _)| *word);
    let hint =
        did_you_mean(text, words(), out).unwrap_or_else(|| format!("say {}", choices(words())));
    expected(node, what, &hint, out);
    None
}

/// A whole number, decimal or hexadecimal.
pub(super) fn number(
    node: Node<'_>,
    range: RangeInclusive<u32>,
    out: &mut Findings,
) -> Option<u32> {
    let text = node.text().unwrap_or_default();
    let parsed = parse_number(text);
    match parsed {
        Some(value) if !node.is_plain() => {
            expected_quoted(node, value, out);
            None
        }
        Some(value) => {
            let value = u32::try_from(value).ok().filter(|value| range.contains(value));
            if value.is_none() {
                let hint = format!("a number from {} to {}", range.start(), range.end());
                out.error_with(node, format!("`{}` is out of range", shortened(text)), hint);
            }
            value
        }
        None => {
            let what = format!("a number from {} to {}", range.start(), range.end());
            expected(node, "a number", &what, out);
            None
        }
    }
}

fn expected_quoted(node: Node<'_>, value: u64, out: &mut Findings) {
    out.error_with(
        node,
        format!("expected a number, not text (`\"{value}\"`)"),
        "remove the quotes",
    );
}

/// Decimal digits, or `0x` and hexadecimal digits.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let clean = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    // More digits than fit are a number too, only too large a one.
    clean.then(|| u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

/// `500ms`, `2s`, `30m`, `1h`.
pub(super) fn duration(
    node: Node<'_>,
    range: RangeInclusive<Duration>,
    out: &mut Findings,
) -> Option<Duration> {
    let text = node.text().unwrap_or_default();
    let Some(value) = parse_duration(text) else {
        let hint = match parse_number(text) {
            Some(0) => "say `0s`".to_owned(),
            Some(value) => format!("say the unit: `{value}s`, or `ms`, `m`, `h`"),
            None => "a whole number and its unit: `500ms`, `2s`, `30m`, `1h`".to_owned(),
        };
        expected(node, "a time", &hint, out);
        return None;
    };
    if range.contains(&value) {
        return Some(value);
    }
    let hint = format!("from {} to {}", show(*range.start()), show(*range.end()));
    out.error_with(node, format!("`{}` is out of range", shortened(text)), hint);
    None
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(unit_at)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let count: u64 = digits.parse().unwrap_or(u64::MAX);
    Some(Duration::from_millis(count.saturating_mul(millis)))
}

/// A time as a profile writes it.
pub(super) fn show(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m => format!("{m}ms"),
    }
}

/// `500k`, `20M`, `1.5G`: bits per second.
pub(super) fn rate(node: Node<'_>, out: &mut Findings) -> Option<u64> {
    let text = node.text().unwrap_or_default();
    if let Some(rate) = parse_rate(text).filter(|rate| (1_000..=10_000_000_000_000).contains(rate))
    {
        return Some(rate);
    }
    let hint = match text.as_bytes() {
        [digits @ .., b'm' | b'g'] if is_decimal(digits) => {
            format!("did you mean `{}`?", text.to_uppercase())
        }
        [digits @ .., b'K'] if is_decimal(digits) => {
            format!("did you mean `{}`?", text.to_lowercase())
        }
        digits if is_decimal(digits) => {
            format!("say the unit: `{}M` is megabits per second", shortened(text))
        }
        _ => "a number and its unit, in bits per second: `500k`, `20M`, `1G`".to_owned(),
    };
    expected(node, "a rate", &hint, out);
    None
}

fn is_decimal(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

fn parse_rate(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit: u64 = match unit {
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let clean =
        |s: &str, most| (1..=most).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !clean(whole, 7) || !clean(part, 3) {
        return None;
    }
    let thousandths: u64 = format!("{part:0<3}").parse().ok()?;
    Some(whole.parse::<u64>().ok()? * unit + thousandths * unit / 1_000)
}

/// `5%`, from 0 to 100.
pub(super) fn share(node: Node<'_>, out: &mut Findings) -> Option<Share> {
    let text = node.text().unwrap_or_default();
    let number = text.strip_suffix('%').filter(|digits| is_decimal(digits.as_bytes()));
    let ratio = number.and_then(|digits| digits.parse::<f64>().ok()).map(|percent| percent / 100.0);
    if let Some(ratio) = ratio.filter(|ratio| (0.0..=1.0).contains(ratio)) {
        return Some(Share(ratio));
    }
    let hint = if is_decimal(text.as_bytes()) && text.len() <= 3 {
        format!("say `{text}%`")
    } else {
        "a share from `0%` to `100%`".to_owned()
    };
    expected(node, "a share", &hint, out);
    None
}

/// The name of a network device.
pub(super) fn interface(node: Node<'_>, out: &mut Findings) -> Option<IfName> {
    let text = node.text().filter(|_| node.kind() == Kind::Scalar && !node.is_null());
    if text == Some("lo") {
        let hint = "name the device that the link or network is behind";
        out.error_with(node, "`lo` is this machine itself", hint);
        return None;
    }
    let found = text.and_then(|text| IfName::new(text).ok());
    if found.is_none() {
        let hint = "1 to 15 of A-Z, a-z, 0-9, `_`, `.`, `@` and `-`, as `ip link` shows it";
        out.error_with(node, format!("{} is not an interface name", node.describe()), hint);
    }
    found
}
