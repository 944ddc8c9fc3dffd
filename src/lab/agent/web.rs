//! What the servers say to web clients.

use std::net::SocketAddr;

/// Who asks at this port is sent to [`LOGIN`], whatever is asked for: a captive portal.
pub const PORTAL: u16 = 8880;

/// The portal's login page.
pub const LOGIN: &str = "http://portal.example/login";

/// The path that is asked for, if this is how a web client begins.
pub(super) fn asked(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let path = words.next().filter(|word| *word == "GET").and(words.next())?;
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some(path)
}

/// The page of a server: who called, and who answers.
pub(super) fn greeting(name: &str, caller: SocketAddr) -> String {
    match name {
        "" => format!("{caller}\n"),
        name => format!("{name} was called by {caller}\n"),
    }
}

/// The whole answer, after which the connection ends.
pub(super) fn page(port: u16, path: &str, text: &str) -> String {
    let (status, head, body) = match (port, path) {
        (PORTAL, _) => ("302 Found", format!("Location: {LOGIN}\r\n"), ""),
        (_, "/generate_204") => ("204 No Content", String::new(), ""),
        _ => ("200 OK", String::new(), text),
    };
    let length = match status {
        "204 No Content" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("HTTP/1.1 {status}\r\n{head}{length}Connection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::{PORTAL, asked, greeting, page};

    #[test]
    fn only_a_request_for_a_page_is_one() {
        assert_eq!(asked("GET /a?b HTTP/1.1\r\n"), Some("/a?b"));
        for line in ["hello\n", "GET /\n", "GET\n", "\n", "PUT / HTTP/1.1\r\n"] {
            assert_eq!(asked(line), None, "{line}");
        }
    }

    #[test]
    fn a_server_with_a_name_gives_it() {
        let caller = ([192, 0, 2, 1], 9).into();
        assert_eq!(greeting("", caller), "192.0.2.1:9\n");
        assert_eq!(greeting("server-a", caller), "server-a was called by 192.0.2.1:9\n");
    }

    #[test]
    fn pages_are_what_browsers_expect_of_them() {
        assert!(page(80, "/generate_204", "x").starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(
            page(80, "/", "192.0.2.1:9\n").ends_with("\r\nConnection: close\r\n\r\n192.0.2.1:9\n")
        );
        let portal = page(PORTAL, "/generate_204", "x");
        assert!(
            portal.starts_with("HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n")
        );
    }
}
