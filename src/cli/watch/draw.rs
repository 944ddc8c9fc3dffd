//! From the screen's value to what is seen.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use serde_json::Value;

use super::rows::Row;
use super::screen::{Focus, Mode, Screen};
use crate::cli::show::{delay, entries, percent, rate, text};

/// What keys do.
const HELP: [&str; 8] = [
    "Up, Down    choose an uplink or a server",
    "Tab         from uplinks to servers, and back",
    "s           sort by name, health, delay, loss, traffic, sessions",
    "/           show only what has these letters; Esc: all",
    "d           drain: no new sessions, those that are there go on",
    "x           disable: no sessions at all",
    "e           enable",
    "q           end",
];

/// Lists are not squeezed below their head and this many lines.
const FEWEST: usize = 2;
/// So many events are shown where there is room for more of everything.
const EVENTS: usize = 12;

/// Shows everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let area = frame.area();
    let look = Look { colours: screen.colours, width: usize::from(area.width) };
    let head = head(screen, &look);
    let room = usize::from(area.height).saturating_sub(head.len() + 1);
    let mut lines = head;
    let sections = sections(screen, &look, room);
    let heights = share(&sections.iter().map(|one| one.lines.len()).collect::<Vec<_>>(), room);
    for (section, height) in sections.into_iter().zip(heights) {
        lines.extend(section.cut(height));
    }
    let whole = Rect { height: area.height.saturating_sub(1), ..area };
    frame.render_widget(Paragraph::new(lines), whole);
    let last = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    frame.render_widget(Paragraph::new(foot(screen, &look)), last);
    if screen.mode == Mode::Help {
        help(frame, area);
    }
}

/// Colours or none, and how wide it is.
struct Look {
    colours: bool,
    width: usize,
}

impl Look {
    fn colour(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn level(&self, word: &str) -> Style {
        match word {
            "warning" => self.colour(Color::Yellow),
            "error" => self.colour(Color::Red),
            _ => Style::new(),
        }
    }

    fn state(&self, word: &str) -> Style {
        match word {
            "up" | "yes" | "applied" => self.colour(Color::Green),
            "degraded" | "unknown" | "unchecked" | "draining" | "applying" => {
                self.colour(Color::Yellow)
            }
            "down" | "no" | "disabled" => self.colour(Color::Red),
            _ => Style::new(),
        }
    }
}

/// One part of the screen; its first line is its head.
#[derive(Default)]
struct Section {
    lines: Vec<Line<'static>>,
    /// This line must be seen.
    chosen: Option<usize>,
}

impl Section {
    /// The head, which tells how many lines are hidden, and what there is room for with the chosen
    /// line in it.
    fn cut(mut self, height: usize) -> Vec<Line<'static>> {
        let room = height.saturating_sub(1);
        let above = self.chosen.map_or(0, |chosen| chosen.saturating_sub(room));
        if room > 0 && above > 0 {
            self.lines.drain(1..=above);
        }
        let hidden = self.lines.len().saturating_sub(height) + above;
        self.lines.truncate(height);
        if let Some(head) = self.lines.first_mut().filter(|_| hidden > 0) {
            head.push_span(format!("  (+{hidden})"));
        }
        self.lines
    }
}

/// Gives every section what it wants, or takes from the largest until all have room.
pub(super) fn share(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut heights = wanted.to_vec();
    while heights.iter().sum::<usize>() > room {
        let largest = heights.iter().enumerate().max_by_key(|(_, height)| **height);
        match largest.map(|(place, height)| (place, *height)) {
            Some((place, height)) if height > 0 => heights[place] = height - 1,
            _ => break,
        }
    }
    heights
}

fn head(screen: &Screen, look: &Look) -> Vec<Line<'static>> {
    let status = &screen.status;
    let state = text(&status["kernel"]["state"]);
    let usable =
        |list: &str| entries(status, list).filter(|(_, one)| one["usable"] == true).count();
    let all = entries(status, "uplinks").count();
    let mut spans = vec![
        Span::styled(text(&status["site"]), look.bold()),
        Span::raw(format!(
            "  {}  generation {}  kernel state ",
            if status["ready"] == true { "ready" } else { "not ready" },
            status["generation"],
        )),
        Span::styled(state.clone(), look.state(if state == "degraded" { "down" } else { &state })),
        Span::raw(format!("  {} of {all} uplinks usable", usable("uplinks"))),
    ];
    if !screen.filter.is_empty() {
        spans.push(Span::raw(format!("  /{}", screen.filter)));
    }
    let mut lines = vec![Line::from(spans)];
    let bad = look.colour(Color::Red).add_modifier(Modifier::BOLD);
    let warnings = status["warnings"].as_array().into_iter().flatten().map(text);
    let wrong = screen.silence.iter().map(|why| format!("no answer: {why}"));
    let wrong = wrong.chain(status["kernel"]["reason"].as_str().map(str::to_owned));
    lines.extend(wrong.chain(warnings).take(3).map(|line| Line::styled(line, bad)));
    lines
}

fn sections(screen: &Screen, look: &Look, room: usize) -> [Section; 5] {
    let mut sections = [
        uplinks(screen, look, room),
        policies(screen, look),
        services(screen, look),
        servers(screen, look),
        Section::default(),
    ];
    let taken: usize = sections.iter().map(|one| one.lines.len()).sum();
    sections[4] = events(screen, look, room.saturating_sub(taken + 1).clamp(FEWEST, EVENTS));
    sections
}

/// Text in a column of this width, its last place empty.
fn cell(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{cut:<width$}")
}

fn uplinks(screen: &Screen, look: &Look, room: usize) -> Section {
    let rows = screen.uplinks();
    let title = format!(
        " {}{}{}{}{}{}{}TRAFFIC",
        cell("UPLINK", 13),
        cell("HEALTH", 10),
        cell("RTT", 8),
        cell("LOSS", 6),
        cell("DOWN", 7),
        cell("UP", 7),
        cell("SESSIONS", 9),
    );
    let mut section =
        Section { lines: vec![heading(screen, look, Focus::Uplinks, &title)], chosen: None };
    // Reasons have a line of their own where they fit.
    let roomy = rows.len() * 2 <= room / 2;
    let place = screen.place(Focus::Uplinks, &rows);
    for (number, row) in rows.iter().enumerate() {
        let chosen = place == Some(number);
        section.lines.push(uplink(row, screen.traffic.get(&row.name), chosen, look));
        let why = why(row);
        if !why.is_empty() && (roomy || chosen) {
            section.lines.push(Line::styled(format!("   {why}"), look.dim()));
        }
        if chosen {
            section.chosen = Some(section.lines.len() - 1);
        }
    }
    section
}

fn uplink(row: &Row, traffic: Option<&VecDeque<f64>>, chosen: bool, look: &Look) -> Line<'static> {
    const BEFORE: usize = 61;
    Line::from(vec![
        marked(chosen, &row.name, 14, look),
        Span::styled(cell(&row.health, 10), look.state(&row.health)),
        Span::raw(cell(&delay(&row.delay.into()), 8)),
        Span::raw(cell(&percent(&row.loss.into()), 6)),
        Span::raw(cell(&rate(&row.down.into()), 7)),
        Span::raw(cell(&rate(&row.up.into()), 7)),
        Span::raw(cell(&row.sessions.to_string(), 9)),
        Span::styled(
            sparkline(traffic, look.width.saturating_sub(BEFORE)),
            look.colour(Color::Cyan),
        ),
    ])
}

/// The last moments, the highest as high as can be; the newest stands last.
pub(super) fn sparkline(moments: Option<&VecDeque<f64>>, width: usize) -> String {
    const LEVELS: [&str; 9] = [
        " ",
        bar::ONE_EIGHTH,
        bar::ONE_QUARTER,
        bar::THREE_EIGHTHS,
        bar::HALF,
        bar::FIVE_EIGHTHS,
        bar::THREE_QUARTERS,
        bar::SEVEN_EIGHTHS,
        bar::FULL,
    ];
    let Some(moments) = moments else { return String::new() };
    let first = moments.len().saturating_sub(width);
    let last = || moments.iter().skip(first).copied();
    // Less than a kilobit is silence, however it varies.
    let most = last().fold(1000.0, f64::max);
    last().map(|now| LEVELS[((now / most * 8.0).ceil() as usize).min(8)]).collect()
}

fn why(row: &Row) -> String {
    let ordered = row.admin != "enabled" && !row.reason.contains(&row.admin);
    let parts = [ordered.then(|| row.admin.clone()), Some(row.reason.clone())];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

fn policies(screen: &Screen, look: &Look) -> Section {
    let mut section = Section::default();
    section.lines.push(Line::styled(format!(" {}SHARES", cell("POLICY", 17)), look.bold()));
    for (name, policy) in entries(&screen.status, "policies") {
        if !name.contains(&screen.filter) && !screen.filter.is_empty() {
            continue;
        }
        let mut spans = vec![Span::raw(format!(" {}", cell(name, 17)))];
        let mut members: Vec<_> = entries(policy, "members").collect();
        members.sort_by_key(|(_, member)| member["tier"].as_u64());
        for (uplink, member) in members {
            let share = member["share"].as_f64().unwrap_or(0.0);
            let style = match (share > 0.0, member["usable"] == true) {
                (true, true) => look.state("up"),
                (true, false) => look.state("degraded"),
                (false, _) => look.dim(),
            };
            spans.push(Span::styled(format!("{uplink} {:.1}%  ", share * 100.0), style));
        }
        section.lines.push(Line::from(spans));
    }
    section
}

fn services(screen: &Screen, look: &Look) -> Section {
    let mut section = Section::default();
    for (name, service) in entries(&screen.status, "services") {
        if !name.contains(&screen.filter) && !screen.filter.is_empty() {
            continue;
        }
        let usable = if service["usable"] == true { "yes" } else { "no" };
        let places = service["virtual"].as_array().into_iter().flatten().map(text);
        let ports = service["ports"].as_array().into_iter().flatten().map(text);
        section.lines.push(Line::from(vec![
            Span::raw(format!(" {}", cell(name, 17))),
            Span::styled(cell(usable, 8), look.state(usable)),
            Span::raw(cell(&text(&service["group"]), 13)),
            Span::raw(cell(&text(&service["bindings"]), 9)),
            Span::raw(format!(
                "{} at {}",
                ports.collect::<Vec<_>>().join(","),
                places.collect::<Vec<_>>().join(" "),
            )),
        ]));
    }
    if !section.lines.is_empty() {
        let title = format!(
            " {}{}{}{}PORTS",
            cell("SERVICE", 17),
            cell("USABLE", 8),
            cell("GROUP", 13),
            cell("BINDINGS", 9),
        );
        section.lines.insert(0, Line::styled(title, look.bold()));
    }
    section
}

fn servers(screen: &Screen, look: &Look) -> Section {
    let rows = screen.servers();
    if rows.is_empty() {
        return Section::default();
    }
    let title = format!(
        " {}{}{}{}{}{}WHY",
        cell("SERVER", 17),
        cell("HEALTH", 10),
        cell("RTT", 8),
        cell("SHARE", 7),
        cell("SESSIONS", 9),
        cell("BOUND", 7),
    );
    let mut section =
        Section { lines: vec![heading(screen, look, Focus::Servers, &title)], chosen: None };
    let place = screen.place(Focus::Servers, &rows);
    for (number, row) in rows.iter().enumerate() {
        section.lines.push(Line::from(vec![
            marked(place == Some(number), &row.name, 18, look),
            Span::styled(cell(&row.health, 10), look.state(&row.health)),
            Span::raw(cell(&delay(&row.delay.into()), 8)),
            Span::raw(cell(&percent(&row.share.into()), 7)),
            Span::raw(cell(&row.sessions.to_string(), 9)),
            Span::raw(cell(&row.bound.to_string(), 7)),
            Span::styled(why(row), look.dim()),
        ]));
        if place == Some(number) {
            section.chosen = Some(section.lines.len() - 1);
        }
    }
    section
}

/// The newest of them; the newest stands last.
fn events(screen: &Screen, look: &Look, most: usize) -> Section {
    let mut section = Section::default();
    if screen.events.is_empty() {
        return section;
    }
    section.lines.push(Line::styled(" EVENTS", look.bold()));
    let first = screen.events.len().saturating_sub(most);
    for event in &screen.events[first..] {
        let time = text(&event["time"]);
        let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock);
        section.lines.push(Line::from(vec![
            Span::styled(format!(" {}", cell(clock, 9)), look.dim()),
            Span::styled(told(event), look.level(&text(&event["level"]))),
        ]));
    }
    section
}

/// What happened, and what it is about unless the text says so.
fn told(event: &Value) -> String {
    let text = text(&event["text"]);
    let about = ["subject", "server", "uplink"].iter().find_map(|key| event[key].as_str());
    match about.filter(|about| !text.contains(about)) {
        Some(about) => format!("{about}: {text}"),
        None => text,
    }
}

/// A list's head; that of the list which the keys are about stands out.
fn heading(screen: &Screen, look: &Look, of: Focus, title: &str) -> Line<'static> {
    let style = match screen.focus == of {
        true => look.bold().add_modifier(Modifier::UNDERLINED),
        false => look.bold(),
    };
    Line::styled(title.to_owned(), style)
}

fn marked(chosen: bool, name: &str, width: usize, look: &Look) -> Span<'static> {
    let mark = if chosen { '>' } else { ' ' };
    let style = if chosen { look.bold().add_modifier(Modifier::REVERSED) } else { look.bold() };
    Span::styled(format!("{mark}{}", cell(name, width - 1)), style)
}

fn foot(screen: &Screen, look: &Look) -> Line<'static> {
    match &screen.mode {
        Mode::Confirm(verb, name) => {
            let question = format!("{verb} {name}? y: yes, any other key: no");
            Line::styled(question, look.bold().add_modifier(Modifier::REVERSED))
        }
        Mode::Filter => Line::styled(format!("/{}_", screen.filter), look.bold()),
        Mode::Look | Mode::Help => match &screen.note {
            Some(note) => Line::styled(note.clone(), look.colour(Color::Yellow)),
            None => Line::styled(
                format!(
                    "s sort ({})  / filter  Tab list  d drain  x disable  e enable  ? help  q end",
                    screen.sort.as_str()
                ),
                look.dim(),
            ),
        },
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let width = 72.min(area.width);
    let height = (HELP.len() as u16 + 2).min(area.height);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let text: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" Keys ")), place);
}
