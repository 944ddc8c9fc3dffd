//! Colours for tables on a terminal, and nowhere else.

use std::io::IsTerminal as _;

/// Columns whose words say how something is.
const TOLD: [&str; 3] = ["HEALTH", "ADMIN", "USABLE"];

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// Whether whoever looks wants colours: a terminal that has some, and no `NO_COLOR`.
pub(super) fn wanted() -> bool {
    let says = |name: &str| std::env::var_os(name).unwrap_or_default();
    std::io::stdout().is_terminal() && says("NO_COLOR").is_empty() && says("TERM") != "dumb"
}

/// Colours the tables in a text: their heads, and the words in the columns that say how something
/// is. Without the colours it is the same text.
pub(super) fn colour(text: &str) -> String {
    let mut shown = String::new();
    let mut told: Vec<usize> = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            told.clear();
        }
        if let Some(columns) = head(line) {
            shown += &format!("{}\n", paint(BOLD, line));
            told = columns;
            continue;
        }
        shown += &words_at(line, &told);
        shown.push('\n');
    }
    shown
}

/// Where the columns that say how something is begin, if this is the head of a table.
fn head(line: &str) -> Option<Vec<usize>> {
    let mut words = line.split_whitespace();
    let is_head = words.clone().count() > 1
        && words.all(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase()));
    is_head.then(|| {
        let starts = |column: &&str| line.find(*column).filter(|_| line.is_ascii());
        TOLD.iter().filter_map(starts).collect()
    })
}

/// A line with the words that begin at these places coloured.
fn words_at(line: &str, places: &[usize]) -> String {
    let mut places = places.to_vec();
    places.sort_unstable();
    let mut shown = String::new();
    let mut done = 0;
    for place in places {
        // Text before it that is not ASCII moves it: such a line stays as it is.
        let Some((before, rest)) = line.split_at_checked(place).filter(|(b, _)| b.is_ascii())
        else {
            break;
        };
        let word = rest.split(' ').next().unwrap_or_default();
        let begins = before.is_empty() || before.ends_with(' ');
        if let Some(code) = code(word).filter(|_| begins && place >= done) {
            shown += &line[done..place];
            shown += &paint(code, word);
            done = place + word.len();
        }
    }
    shown + &line[done..]
}

fn code(word: &str) -> Option<&'static str> {
    match word {
        "up" | "yes" => Some(GREEN),
        "degraded" | "unknown" | "unchecked" | "draining" => Some(YELLOW),
        "down" | "no" | "disabled" => Some(RED),
        _ => None,
    }
}

fn paint(code: &str, text: &str) -> String {
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::colour;

    const TEXT: &str = "site: ready

UPLINK  HEALTH    RX
fiber   up        1M
lte     degraded  0

fiber: up and down are words here
SERVER  HEALTH  ADMIN     SHARE
web/a   down    draining  0.0%
";

    fn plain(text: &str) -> String {
        let mut parts = text.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn heads_and_states_are_coloured_and_nothing_else_changes() {
        let shown = colour(TEXT);
        assert_eq!(plain(&shown), TEXT);
        let expected = [
            "\u{1b}[1mUPLINK  HEALTH    RX\u{1b}[0m",
            "fiber   \u{1b}[32mup\u{1b}[0m        1M",
            "lte     \u{1b}[33mdegraded\u{1b}[0m  0",
            "fiber: up and down are words here",
            "web/a   \u{1b}[31mdown\u{1b}[0m    \u{1b}[33mdraining\u{1b}[0m  0.0%",
        ];
        for line in expected {
            assert!(shown.lines().any(|shown| shown == line), "{shown}");
        }
    }

    #[test]
    fn text_that_is_no_table_or_not_ascii_stays_as_it_is() {
        for text in ["# nothing\n", "UPLINK  HEALTH\nfür     up\n", "\n\n", "A B\n"] {
            assert_eq!(plain(&colour(text)), text);
        }
        assert!(!colour("für  up\n").contains('\u{1b}'));
    }
}
