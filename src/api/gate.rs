//! Who may ask what.
//!
//! On the Unix socket whoever can open it may read; only root, the user that homing runs as, and the
//! members of the group [`ADMINS`] may change anything. TCP is for reading alone. There the `Host`
//! header must be an address, `localhost` or this machine's name: a web page that a browser on this
//! machine shows could otherwise read the API under a name that it had made to point here. With a
//! token the name does not matter, for the page does not know the token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use nix::unistd::{Group, Uid, User, geteuid, gethostname};

use super::access::ADMINS;
use super::answers::{Answer, Refused};
use super::seldom::Seldom;
use super::server::LARGEST_PROFILE;

/// Other requests than profiles have hardly a body.
const LARGEST_OTHER: usize = 64 * 1024;

/// Of wrong tokens.
static WRONG: Seldom = Seldom::new();

/// Where a question comes in.
#[derive(Debug, Clone)]
pub(super) enum Gate {
    /// By the Unix socket, from this user with this group; from nobody if that is not known.
    Local(Option<(u32, u32)>),
    /// By TCP, with this token if there is one.
    Remote(Option<Arc<str>>),
}

impl Gate {
    /// Lets a request in, or says why not.
    pub(super) async fn judge(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Answer<()> {
        if let Gate::Remote(token) = self {
            check_host(headers, uri, token.is_some())?;
            if let Some(token) = token {
                check_token(headers, token)?;
            }
        }
        check_length(headers, uri)?;
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if reads || uri.path() == "/v1/check" {
            return Ok(());
        }
        match self {
            Gate::Remote(_) => {
                let reason = "by TCP one may only read: change things by the Unix socket";
                Err(Refused::new(StatusCode::FORBIDDEN, reason))
            }
            Gate::Local(who) => {
                let who = *who;
                let asking = tokio::task::spawn_blocking(move || may_change(who));
                match asking.await.unwrap_or(false) {
                    true => Ok(()),
                    false => Err(Refused::new(
                        StatusCode::FORBIDDEN,
                        "only root and the members of the group homing-admin may change things",
                    )),
                }
            }
        }
    }
}

/// Looked up when it is asked, for people come into groups and leave them.
fn may_change(who: Option<(u32, u32)>) -> bool {
    let Some((user, group)) = who else { return false };
    if user == 0 || user == geteuid().as_raw() {
        return true;
    }
    let Ok(Some(admins)) = Group::from_name(ADMINS) else { return false };
    let is_member = |name: &String| admins.mem.contains(name);
    let user = User::from_uid(Uid::from_raw(user)).ok().flatten();
    group == admins.gid.as_raw()
        || user.is_some_and(|user| user.gid == admins.gid || is_member(&user.name))
}

fn check_host(headers: &HeaderMap, uri: &Uri, with_token: bool) -> Answer<()> {
    let bad = |reason: &str| Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, reason));
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return bad("the request must have one Host header");
    };
    if with_token {
        return Ok(());
    }
    let names = [host.to_str().ok(), uri.host()];
    let ours = |name: &str| is_ours(name, &this_machine());
    match host.to_str().is_ok() && names.into_iter().flatten().all(ours) {
        true => Ok(()),
        false => bad("the Host header must be an address, localhost, or this machine's name"),
    }
}

fn this_machine() -> String {
    gethostname().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a `Host` header, with or without a port, cannot be a name that somebody else gave us.
fn is_ours(host: &str, machine: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => (address, Some(rest.strip_prefix(':').unwrap_or("none"))),
        None => host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let name = name.to_ascii_lowercase();
    let known = name == "localhost" || (!machine.is_empty() && name == machine);
    port.is_none_or(|port| port.parse::<u16>().is_ok()) && (known || name.parse::<IpAddr>().is_ok())
}

fn check_token(headers: &HeaderMap, token: &str) -> Answer<()> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let reason = match given {
        Some((_, given)) if is_same(given.trim(), token) => return Ok(()),
        Some(_) => "this is not the token",
        None => "send the token: `Authorization: Bearer TOKEN`",
    };
    if given.is_some() && WRONG.is_time() {
        tracing::warn!("the API was asked with a wrong token");
    }
    let refused = Refused::new(StatusCode::UNAUTHORIZED, reason);
    Err(refused.with(header::WWW_AUTHENTICATE, "Bearer"))
}

/// Compares in a time that does not tell how much of it was right.
fn is_same(given: &str, token: &str) -> bool {
    let differences = given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differences == 0
}

/// A body that is too long is refused before any of it is read.
fn check_length(headers: &HeaderMap, uri: &Uri) -> Answer<()> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    let most = if uri.path() == "/v1/check" { LARGEST_PROFILE } else { LARGEST_OTHER };
    if length <= most as u64 {
        return Ok(());
    }
    let reason = format!("the body is {length} bytes long: at most {most} are read");
    let refused = Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reason);
    Err(refused.with(header::CONNECTION, "close"))
}

#[cfg(test)]
mod tests {
    use super::{is_ours, is_same, may_change};

    #[test]
    fn addresses_localhost_and_the_machine_are_ours_and_other_names_are_not() {
        for host in ["127.0.0.1", "127.0.0.1:9480", "[::1]:9480", "[::1]", "localhost:1", "Gate:80"]
        {
            assert!(is_ours(host, "gate"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9480",
            "",
            ":80",
            "localhost.evil:80",
            "[::1]x:",
            "1.2.3.4:x",
        ] {
            assert!(!is_ours(host, "gate"), "{host}");
        }
        assert!(!is_ours("", ""), "a machine without a name");
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same("secret", "secret"));
        for wrong in ["", "secre", "secrets", "Secret"] {
            assert!(!is_same(wrong, "secret"), "{wrong}");
        }
    }

    #[test]
    fn root_may_change_things_and_nobody_may_not() {
        assert!(may_change(Some((0, 0))));
        assert!(!may_change(Some((65_534, 65_534))));
        assert!(!may_change(None));
    }
}
