//! What is seen of a screen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{draw, share, sparkline};
use crate::cli::watch::screen::Screen;
use crate::cli::watch::source::News;

fn uplink(health: &str, reason: &str, down: f64) -> Value {
    json!({
        "health": health, "admin": "enabled", "usable": health == "up", "reason": reason,
        "rtt_ms": 8.13, "loss": 0.25, "rx_bps": down, "tx_bps": 2e5, "sessions": 120,
    })
}

fn status(uplinks: usize) -> Value {
    let mut all = json!({
        "cable": uplink("down", "no answer from 2 targets", 0.0),
        "fiber": uplink("up", "answers", 5e6),
    });
    for number in 2..uplinks {
        all[format!("more-{number:02}")] = uplink("up", "answers", 1e6);
    }
    json!({
        "site": "osaka", "ready": true, "generation": 7, "kernel": { "state": "applied" },
        "uplinks": all,
        "policies": { "default": { "members": {
            "fiber": { "tier": 1, "share": 0.556, "usable": true },
            "cable": { "tier": 2, "share": 0.0, "usable": false },
        } } },
        "services": { "shop": {
            "usable": true, "group": "web", "bindings": 31, "ports": [80, 443],
            "virtual": ["198.51.101.2"],
        } },
        "groups": { "web": { "servers": {
            "a": { "health": "up", "admin": "draining", "share": 0.0, "sessions": 12 },
        } } },
    })
}

fn seen(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn screen(uplinks: usize) -> Screen {
    let mut screen = Screen::new(true);
    screen.take(News::Status(status(uplinks)));
    let event = |number| {
        let time = format!("2026-01-02T03:04:{number:02}Z");
        json!({ "number": number, "time": time, "kind": "uplink-health",
            "subject": "cable", "text": format!("event {number}") })
    };
    let events: Vec<Value> = (0..30).map(event).collect();
    screen.take(News::Events(json!({ "events": events })));
    screen
}

#[test]
fn everything_is_seen_on_a_terminal_of_80_by_24() {
    let lines = seen(&screen(2), 80, 24);
    let shown = lines.join("\n");
    let expected = [
        "osaka  ready  generation 7  kernel state applied  1 of 2 uplinks usable",
        ">cable        down      8.1ms   25%   0      200k   120      █",
        "   no answer from 2 targets",
        " fiber        up        8.1ms   25%   5M     200k   120      █",
        " default          fiber 55.6%  cable 0.0%",
        " shop             yes     web          31       80,443 at 198.51.101.2",
        " web/a            up        -       0%     12       0      draining",
        " 03:04:29 cable: event 29",
    ];
    for line in expected {
        assert!(lines.iter().any(|seen| seen == line), "no `{line}` in\n{shown}");
    }
    assert!(lines[23].starts_with("s sort (name)"), "{shown}");
}

#[test]
fn nothing_is_too_small() {
    for (width, height) in [(1, 1), (10, 3), (80, 5), (300, 100)] {
        let mut screen = screen(62);
        seen(&screen, width, height);
        screen.handle_key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE));
        seen(&screen, width, height);
    }
}

#[test]
fn the_chosen_uplink_is_seen_however_many_there_are() {
    let mut screen = screen(62);
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    for place in 0..62 {
        let shown = seen(&screen, 80, 24);
        let chosen = shown.iter().find(|line| line.starts_with('>'));
        assert!(chosen.is_some(), "{place}: {}", shown.join("\n"));
        assert!(shown.iter().any(|line| line.starts_with(" UPLINK")), "{place}");
        assert!(shown.iter().any(|line| line.contains("event 29")), "{}", shown.join("\n"));
        screen.handle_key(key(KeyCode::Down));
    }
    let shown = seen(&screen, 80, 24);
    assert!(shown.iter().any(|line| line.starts_with(">more-61")), "{}", shown.join("\n"));
    let head = shown.iter().find(|line| line.starts_with(" UPLINK"));
    assert!(head.is_some_and(|head| head.contains("TRAFFIC  (+5")), "{head:?}");
}

#[test]
fn a_process_that_is_gone_is_told_of_over_the_last_picture() {
    let mut screen = screen(2);
    screen.take(News::Silence("no running homing".to_owned()));
    let shown = seen(&screen, 80, 24).join("\n");
    assert!(shown.contains("no answer: no running homing"), "{shown}");
    assert!(shown.contains(">cable"), "{shown}");
}

#[test]
fn colours_are_there_when_they_are_wanted() {
    let colours = |wanted| {
        let mut screen = screen(2);
        screen.colours = wanted;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &screen)).unwrap();
        let content = terminal.backend().buffer().content().to_vec();
        content.iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert!(colours(true) > 0);
    assert_eq!(colours(false), 0);
}

#[test]
fn a_sparkline_shows_the_newest_moments_and_its_own_highest() {
    let moments: VecDeque<f64> = [9e9, 0.0, 1e6, 4e6, 8e6].into();
    assert_eq!(sparkline(Some(&moments), 4), " ▁▄█");
    assert_eq!(sparkline(Some(&[10.0, 500.0].into()), 4), "▁▄");
    assert_eq!(sparkline(None, 4), "");
}

#[test]
fn an_event_says_what_it_is_about_once() {
    let mut screen = screen(2);
    let events = json!([
        { "time": "2026-01-02T03:04:05.678Z", "uplink": "cable", "text": "uplink cable is down" },
        { "time": "2026-01-02T03:04:06.789Z", "server": "web/a", "text": "no answer" },
        { "time": "2026-01-02T03:04:07Z", "text": "the profile was read again" },
    ]);
    screen.take(News::Events(json!({ "events": events })));
    let shown = seen(&screen, 80, 24);
    for line in [
        " 03:04:05 uplink cable is down",
        " 03:04:06 web/a: no answer",
        " 03:04:07 the profile was read again",
    ] {
        assert!(shown.iter().any(|seen| seen == line), "{}", shown.join("\n"));
    }
}

#[test]
fn what_is_largest_gives_way() {
    assert_eq!(share(&[10, 3, 2], 20), [10, 3, 2]);
    assert_eq!(share(&[10, 3, 2], 9), [4, 3, 2]);
    assert_eq!(share(&[10, 10], 0), [0, 0]);
}
