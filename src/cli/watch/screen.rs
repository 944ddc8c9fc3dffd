//! What is on the screen: a value that answers and keys change.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use super::rows::{self, Row, Sort};
use super::source::News;

/// So many moments of each uplink's traffic are remembered.
const MOMENTS: usize = 120;

/// Which list the keys are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Uplinks,
    Servers,
}

/// What the next key means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// One of the keys that the help names.
    Look,
    /// A letter of the filter.
    Filter,
    /// Whether an order is meant: verb, and what it is about.
    Confirm(&'static str, String),
    /// Nothing but the end of the help.
    Help,
}

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Stay,
    End,
    /// An order: a path of the API.
    Order(String),
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) colours: bool,
    pub(super) status: Value,
    /// As the API has them: the oldest first.
    pub(super) events: Vec<Value>,
    /// Why there is no answer now.
    pub(super) silence: Option<String>,
    /// How the last order went.
    pub(super) note: Option<String>,
    /// Uplink → bits per second both ways, moment after moment.
    pub(super) traffic: BTreeMap<String, VecDeque<f64>>,
    pub(super) focus: Focus,
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// What is chosen in each list; it stays so wherever it moves.
    chosen_uplink: Option<String>,
    chosen_server: Option<String>,
}

impl Screen {
    pub(super) fn new(colours: bool) -> Screen {
        Screen {
            colours,
            status: Value::Null,
            events: Vec::new(),
            silence: None,
            note: None,
            traffic: BTreeMap::new(),
            focus: Focus::Uplinks,
            mode: Mode::Look,
            sort: Sort::default(),
            filter: String::new(),
            chosen_uplink: None,
            chosen_server: None,
        }
    }

    /// Takes what was heard.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Status(status) => self.take_status(status),
            News::Events(mut events) => {
                self.events = match events["events"].take() {
                    Value::Array(events) => events,
                    _ => Vec::new(),
                };
            }
            News::Silence(reason) => self.silence = Some(reason),
            News::Refused(reason) => self.note = Some(reason),
            News::Done => self.note = None,
        }
    }

    pub(super) fn take_status(&mut self, status: Value) {
        self.silence = None;
        self.status = status;
        let uplinks = rows::uplinks(&self.status);
        self.traffic.retain(|name, _| uplinks.iter().any(|row| row.name == *name));
        for row in uplinks {
            let moments = self.traffic.entry(row.name.clone()).or_default();
            // Of two looks in quick succession the second has no rate.
            moments.extend(row.down.is_some().then(|| row.traffic()));
            if moments.len() > MOMENTS {
                moments.pop_front();
            }
        }
    }

    pub(super) fn uplinks(&self) -> Vec<Row> {
        rows::select(rows::uplinks(&self.status), &self.filter, self.sort)
    }

    pub(super) fn servers(&self) -> Vec<Row> {
        rows::select(rows::servers(&self.status), &self.filter, self.sort)
    }

    /// Where the chosen row stands among these; `None` when the keys are about another list.
    pub(super) fn place(&self, focus: Focus, rows: &[Row]) -> Option<usize> {
        let chosen = match focus {
            Focus::Uplinks => &self.chosen_uplink,
            Focus::Servers => &self.chosen_server,
        };
        let found = || rows.iter().position(|row| Some(&row.name) == chosen.as_ref());
        (self.focus == focus && !rows.is_empty()).then(|| found().unwrap_or(0))
    }

    fn rows(&self) -> Vec<Row> {
        match self.focus {
            Focus::Uplinks => self.uplinks(),
            Focus::Servers => self.servers(),
        }
    }

    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Outcome {
        if key.kind == KeyEventKind::Release {
            return Outcome::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Outcome::End;
        }
        match std::mem::replace(&mut self.mode, Mode::Look) {
            Mode::Look => self.handle_look(key.code),
            Mode::Filter => self.handle_filter(key.code),
            Mode::Confirm(verb, name) => self.handle_confirm(key.code, verb, &name),
            Mode::Help if key.code == KeyCode::Char('q') => Outcome::End,
            Mode::Help => Outcome::Stay,
        }
    }

    fn handle_look(&mut self, key: KeyCode) -> Outcome {
        self.note = None;
        match key {
            KeyCode::Char('q') => return Outcome::End,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('d') => self.order("drain"),
            KeyCode::Char('x') => self.order("disable"),
            KeyCode::Char('e') => self.order("enable"),
            KeyCode::Tab | KeyCode::BackTab => self.change_focus(),
            KeyCode::Up | KeyCode::Char('k') => self.step(|place, _| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|place, last| last.min(place + 1)),
            KeyCode::Home => self.step(|_, _| 0),
            KeyCode::End => self.step(|_, last| last),
            _ => {}
        }
        Outcome::Stay
    }

    fn handle_filter(&mut self, key: KeyCode) -> Outcome {
        match key {
            KeyCode::Enter => return Outcome::Stay,
            KeyCode::Esc => {
                self.filter.clear();
                return Outcome::Stay;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.mode = Mode::Filter;
        Outcome::Stay
    }

    fn handle_confirm(&mut self, key: KeyCode, verb: &str, name: &str) -> Outcome {
        if key != KeyCode::Char('y') {
            self.note = Some("nothing done".to_owned());
            return Outcome::Stay;
        }
        let kind = match self.focus {
            Focus::Uplinks => "uplinks",
            Focus::Servers => "servers",
        };
        self.note = Some(format!("{verb} {name} …"));
        Outcome::Order(format!("/v1/{kind}/{name}/{verb}"))
    }

    /// Asks whether the order is meant.
    fn order(&mut self, verb: &'static str) {
        let rows = self.rows();
        let chosen = self.place(self.focus, &rows).and_then(|place| rows.get(place));
        if let Some(row) = chosen {
            self.mode = Mode::Confirm(verb, row.name.clone());
        }
    }

    fn change_focus(&mut self) {
        self.focus = match self.focus {
            Focus::Uplinks if !rows::servers(&self.status).is_empty() => Focus::Servers,
            Focus::Uplinks | Focus::Servers => Focus::Uplinks,
        };
    }

    /// Chooses another row: its place from the present one's and the last one's.
    fn step(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let Some(place) = self.place(self.focus, &rows) else { return };
        let name = rows.get(to(place, rows.len() - 1)).map(|row| row.name.clone());
        match self.focus {
            Focus::Uplinks => self.chosen_uplink = name,
            Focus::Servers => self.chosen_server = name,
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::{Value, json};

    use super::{Focus, Mode, Outcome, Screen};
    use crate::cli::watch::source::News;

    fn status() -> Value {
        let uplink = |health: &str, down: f64| json!({ "health": health, "admin": "enabled", "usable": true, "rx_bps": down });
        json!({
            "uplinks": { "cable": uplink("down", 0.0), "fiber": uplink("up", 5e6) },
            "groups": { "web": { "servers": { "a": { "health": "up", "admin": "enabled" } } } },
        })
    }

    fn screen() -> Screen {
        let mut screen = Screen::new(false);
        screen.take(News::Status(status()));
        screen
    }

    fn press(screen: &mut Screen, keys: &str) -> Outcome {
        let mut last = Outcome::Stay;
        for key in keys.chars() {
            let code = match key {
                '\t' => KeyCode::Tab,
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            last = screen.handle_key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        last
    }

    fn order(path: &str) -> Outcome {
        Outcome::Order(path.to_owned())
    }

    #[test]
    fn an_order_is_about_what_is_chosen_and_given_only_when_it_is_meant() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, "d"), Outcome::Stay);
        assert_eq!(screen.mode, Mode::Confirm("drain", "cable".to_owned()));
        assert_eq!(press(&mut screen, "n"), Outcome::Stay);
        assert_eq!(screen.mode, Mode::Look);
        assert_eq!(press(&mut screen, "jdy"), order("/v1/uplinks/fiber/drain"));
        assert_eq!(press(&mut screen, "xy"), order("/v1/uplinks/fiber/disable"));
        assert_eq!(press(&mut screen, "key"), order("/v1/uplinks/cable/enable"));
        assert_eq!(press(&mut screen, "\tdy"), order("/v1/servers/web/a/drain"));
        screen.take(News::Refused("no such server".to_owned()));
        assert_eq!(screen.note.as_deref(), Some("no such server"));
    }

    #[test]
    fn the_chosen_row_stays_chosen_when_it_moves() {
        let mut screen = screen();
        press(&mut screen, "j");
        for _ in 0..6 {
            press(&mut screen, "s");
            let rows = screen.uplinks();
            let place = screen.place(Focus::Uplinks, &rows).and_then(|place| rows.get(place));
            assert_eq!(place.map(|row| row.name.as_str()), Some("fiber"));
        }
    }

    #[test]
    fn letters_of_the_filter_are_no_keys_until_enter() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, "/qfi\u{8}\u{8}\u{8}cab"), Outcome::Stay);
        assert_eq!(screen.filter, "cab");
        assert_eq!(screen.uplinks().len(), 1);
        press(&mut screen, "\n");
        assert_eq!(press(&mut screen, "dy"), order("/v1/uplinks/cable/drain"));
        press(&mut screen, "\u{1b}");
        assert_eq!(screen.uplinks().len(), 2);
        assert_eq!(press(&mut screen, "q"), Outcome::End);
    }

    #[test]
    fn control_c_ends_it_whatever_is_asked() {
        let mut screen = screen();
        press(&mut screen, "d");
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.handle_key(key), Outcome::End);
    }

    #[test]
    fn the_help_goes_with_any_key_and_the_view_with_q() {
        let mut screen = screen();
        press(&mut screen, "?");
        assert_eq!(screen.mode, Mode::Help);
        assert_eq!(press(&mut screen, "d"), Outcome::Stay);
        assert_eq!(screen.mode, Mode::Look);
        assert_eq!(press(&mut screen, "?q"), Outcome::End);
    }

    #[test]
    fn traffic_is_remembered_for_two_minutes_and_goes_with_its_uplink() {
        let mut screen = screen();
        for _ in 0..200 {
            screen.take(News::Status(status()));
        }
        assert_eq!(screen.traffic["fiber"].len(), 120);
        let mut quick = status();
        quick["uplinks"]["fiber"]["rx_bps"] = Value::Null;
        screen.take(News::Status(quick));
        assert_eq!(screen.traffic["fiber"].back(), Some(&5e6));
        screen.take(News::Status(json!({ "uplinks": { "lte": {} } })));
        assert_eq!(screen.traffic.keys().collect::<Vec<_>>(), ["lte"]);
    }

    #[test]
    fn the_last_picture_stays_when_nobody_answers_and_without_events_none_are_shown() {
        let mut screen = screen();
        screen.take(News::Silence("gone".to_owned()));
        assert_eq!(screen.uplinks().len(), 2);
        assert_eq!(screen.silence.as_deref(), Some("gone"));
        screen.take(News::Events(json!({ "events": [{ "text": "it fell" }] })));
        assert_eq!(screen.events.len(), 1);
        screen.take(News::Events(Value::Null));
        screen.take(News::Status(status()));
        assert!(screen.events.is_empty() && screen.silence.is_none());
    }
}
