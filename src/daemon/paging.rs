//! Sessions by the page: there may be a million, and nobody is to hold them all.
//!
//! Sessions have an order of their own, so a page begins after the last one of the page before,
//! whatever came or went meanwhile.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::requests::SessionLine;

/// Which sessions are wanted, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionQuery {
    /// Pinned to this uplink.
    pub uplink: Option<String>,
    /// Of this policy.
    pub policy: Option<String>,
    /// Of this service.
    pub service: Option<String>,
    /// With this server: `GROUP/NAME`, or its name alone.
    pub server: Option<String>,
    /// Begun by this client.
    pub client: Option<IpAddr>,
    /// Only those after this one.
    pub after: Option<Cursor>,
    /// How many at most.
    pub limit: usize,
}

/// A place in the order of sessions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    protocol: String,
    client: IpAddr,
    client_port: Option<u16>,
    to: IpAddr,
    port: Option<u16>,
}

/// Some sessions, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SessionPage {
    /// Always 1.
    pub version: u32,
    /// The sessions.
    pub sessions: Vec<SessionLine>,
    /// How many there are that fit, on all pages.
    pub total: u64,
    /// Where the next page begins (`after`); null on the last.
    pub next: Option<String>,
}

impl Cursor {
    fn of(line: &SessionLine) -> Cursor {
        Cursor {
            protocol: line.protocol.clone(),
            client: line.client,
            client_port: line.client_port,
            to: line.to,
            port: line.port,
        }
    }

    /// Reads what [`Cursor`] shows.
    pub fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.split('~');
        let port = |text: &str| match text {
            "" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let cursor = Cursor {
            protocol: parts.next()?.to_owned(),
            client: parts.next()?.parse().ok()?,
            client_port: port(parts.next()?)?,
            to: parts.next()?.parse().ok()?,
            port: port(parts.next()?)?,
        };
        parts.next().is_none().then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        let (from, to) = (port(self.client_port), port(self.port));
        write!(f, "{}~{}~{from}~{}~{to}", self.protocol, self.client, self.to)
    }
}

impl SessionQuery {
    fn admits(&self, session: &SessionLine) -> bool {
        let is = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        // A server by its name alone, or with its group.
        let server = self.server.as_ref().is_none_or(|wanted| {
            session.server.as_ref().is_some_and(|has| {
                has == wanted || has.split_once('/').is_some_and(|(_, name)| name == wanted)
            })
        });
        is(&self.uplink, &session.uplink)
            && is(&self.policy, &session.policy)
            && is(&self.service, &session.service)
            && self.client.is_none_or(|client| client == session.client)
            && server
    }
}

/// Gathers one page out of sessions that come in any order.
pub(super) struct Pager<'a> {
    query: &'a SessionQuery,
    /// The first of them, the last on top.
    first: BinaryHeap<SessionLine>,
    total: u64,
    more: bool,
}

impl Pager<'_> {
    pub(super) fn new(query: &SessionQuery) -> Pager<'_> {
        Pager { query, first: BinaryHeap::new(), total: 0, more: false }
    }

    pub(super) fn add(&mut self, line: SessionLine) {
        if !self.query.admits(&line) {
            return;
        }
        self.total += 1;
        if self.query.after.as_ref().is_some_and(|after| Cursor::of(&line) <= *after) {
            return;
        }
        self.first.push(line);
        if self.first.len() > self.query.limit {
            self.first.pop();
            self.more = true;
        }
    }

    pub(super) fn finish(self) -> SessionPage {
        let sessions = self.first.into_sorted_vec();
        let last = sessions.last().filter(|_| self.more);
        let next = last.map(|line| Cursor::of(line).to_string());
        SessionPage { version: 1, sessions, total: self.total, next }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use super::{Cursor, Pager, SessionQuery};
    use crate::daemon::SessionLine;

    fn session(client: &str, port: u16) -> SessionLine {
        SessionLine {
            protocol: "tcp".to_owned(),
            client: client.parse().unwrap(),
            client_port: Some(port),
            to: "203.0.113.1".parse().unwrap(),
            port: Some(443),
            uplink: Some("fiber".to_owned()),
            policy: None,
            service: None,
            server: Some("web/a".to_owned()),
            state: None,
            answered: true,
            offloaded: false,
            left_s: 1,
        }
    }

    #[test]
    fn every_session_is_on_one_page_in_order() {
        let mut all: Vec<SessionLine> = Vec::new();
        for port in [7, 3, 9, 1, 5, 2] {
            all.extend(["10.1.0.2", "10.1.0.1"].map(|client| session(client, port)));
        }
        let (mut seen, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let query = SessionQuery { limit: 5, after, ..SessionQuery::default() };
            let mut pager = Pager::new(&query);
            all.iter().for_each(|line| pager.add(line.clone()));
            let page = pager.finish();
            assert_eq!(page.total, 12);
            seen.extend(page.sessions);
            pages += 1;
            let Some(next) = page.next else { break };
            after = Some(Cursor::parse(&next).unwrap());
        }
        all.sort_unstable();
        assert_eq!((seen, pages), (all, 3));
    }

    #[test]
    fn a_cursor_is_read_as_it_is_shown_and_nonsense_is_not() {
        let mut line = session("2001:db8::1", 40_000);
        assert_eq!(Cursor::parse(&Cursor::of(&line).to_string()), Some(Cursor::of(&line)));
        (line.client_port, line.port) = (None, None);
        assert_eq!(Cursor::parse(&Cursor::of(&line).to_string()), Some(Cursor::of(&line)));
        for bad in ["", "tcp", "tcp~x~1~::1~2", "tcp~::1~1~::1~2~3", "tcp~::1~70000~::1~2"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_those_that_fit_are_counted() {
        let count = |query: SessionQuery| {
            let query = SessionQuery { limit: 10, ..query };
            let mut pager = Pager::new(&query);
            pager.add(session("10.1.0.1", 1));
            pager.finish().total
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(count(SessionQuery::default()), 1);
        assert_eq!(count(SessionQuery { server: text("a"), ..SessionQuery::default() }), 1);
        assert_eq!(count(SessionQuery { server: text("web/b"), ..SessionQuery::default() }), 0);
        assert_eq!(count(SessionQuery { policy: text("x"), ..SessionQuery::default() }), 0);
        let client = "10.1.0.2".parse().ok();
        assert_eq!(count(SessionQuery { client, ..SessionQuery::default() }), 0);
    }
}
