//! Talking HTTP to homing byte by byte, by its socket or by TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{PATIENCE, Site};

/// Where the API is asked.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// The Unix socket.
    Socket,
    /// TCP, from the router itself.
    Tcp(SocketAddr),
}

/// A connection.
pub enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 0 when nothing came.
    pub status: u16,
    /// With names in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The reason that an error gives.
    pub fn error(&self) -> String {
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no reason: {self:?}")).to_owned()
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Unix(stream) => stream.read(buffer),
            Connection::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Unix(stream) => stream.write(buffer),
            Connection::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Site {
    /// Connects, with a deadline on every read and write.
    pub fn try_connect(&self, door: Door) -> io::Result<Connection> {
        match door {
            Door::Socket => {
                let stream = UnixStream::connect(self.path("run/api.sock"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Connection::Unix(stream))
            }
            Door::Tcp(at) => {
                let connect = || TcpStream::connect_timeout(&at, PATIENCE);
                let stream = self.router().enter(connect).expect("enter the router")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Connection::Tcp(stream))
            }
        }
    }

    pub fn connect(&self, door: Door) -> Connection {
        self.try_connect(door).unwrap_or_else(|error| panic!("connect to {door:?}: {error}"))
    }

    /// Sends these bytes, and reads until the other side closes.
    pub fn send(&self, door: Door, bytes: &[u8]) -> Answer {
        let mut connection = self.connect(door);
        // It may close before it has read all.
        let _ = connection.write_all(bytes);
        let mut read = Vec::new();
        let _ = connection.read_to_end(&mut read);
        answer(&read)
    }

    /// One request, as a decent client sends it.
    pub fn request(&self, door: Door, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let host = match door {
            Door::Socket => "homing".to_owned(),
            Door::Tcp(at) => at.to_string(),
        };
        let length = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let host = if head.contains("Host:") { String::new() } else { format!("Host: {host}\r\n") };
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{head}{length}\r\n{body}"
        );
        self.send(door, text.as_bytes())
    }

    pub fn get(&self, door: Door, path: &str) -> Answer {
        self.request(door, "GET", path, "", "")
    }

    /// A stream of events. Its head is read; what follows is to be read line by line.
    pub fn stream(&self, door: Door, path: &str, head: &str) -> Stream {
        let mut connection = self.connect(door);
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n");
        connection.write_all(text.as_bytes()).expect("ask for a stream");
        let mut stream = Stream { connection, rest: Vec::new() };
        let first = stream.line();
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        while !stream.line().is_empty() {}
        stream
    }
}

/// A stream of events, in chunks.
pub struct Stream {
    connection: Connection,
    rest: Vec<u8>,
}

impl Stream {
    /// The next line, whatever it is.
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            let mut buffer = [0; 4096];
            let read = self.connection.read(&mut buffer).expect("read the stream in time");
            assert!(read > 0, "the stream has ended");
            self.rest.extend_from_slice(&buffer[..read]);
        }
    }

    /// The `data` of the next event.
    pub fn event(&mut self) -> Value {
        loop {
            let line = self.line();
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("an event is JSON");
            }
        }
    }

    /// The next event of this kind.
    pub fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event();
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

fn answer(read: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(read).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
