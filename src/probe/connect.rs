//! TCP: a connection that comes about is the answer.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::Instant;

use super::{Path, since};

/// Connects, and hangs up at once: by a reset, so that nothing stays behind on either side.
pub(super) async fn ask(to: SocketAddr, path: Option<&Path>) -> Result<Duration, String> {
    let started = Instant::now();
    let stream = connect(to, path).await?;
    let rtt = since(started);
    // Without it the connection is closed in the usual way, which is no reason to complain.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    Ok(rtt)
}

/// A connection by this path, or by what routes say.
pub(super) async fn connect(to: SocketAddr, path: Option<&Path>) -> Result<TcpStream, String> {
    let socket = bound(Type::STREAM, Protocol::TCP, to, path)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(to).await.map_err(|error| plain(&error))?;
    // On an address of this host, by chance, from the very port that was asked: it met itself.
    match stream.local_addr() {
        Ok(own) if own == to => Err("connection refused".to_owned()),
        _ => Ok(stream),
    }
}

/// A datagram socket that hears one partner alone, by this path, or by what routes say.
pub(super) async fn datagrams(to: SocketAddr, path: Option<&Path>) -> Result<UdpSocket, String> {
    let socket = bound(Type::DGRAM, Protocol::UDP, to, path)?;
    let socket = UdpSocket::from_std(socket.into()).map_err(|error| plain(&error))?;
    socket.connect(to).await.map_err(|error| plain(&error))?;
    Ok(socket)
}

fn bound(
    kind: Type,
    protocol: Protocol,
    to: SocketAddr,
    path: Option<&Path>,
) -> Result<Socket, String> {
    let open = || {
        let socket = Socket::new(Domain::for_address(to), kind.nonblocking(), Some(protocol))?;
        if let Some(path) = path {
            socket.bind_device(Some(path.device.as_str().as_bytes()))?;
            socket.bind(&SocketAddr::new(path.source, 0).into())?;
        }
        Ok(socket)
    };
    open().map_err(|error: std::io::Error| format!("cannot ask: {}", plain(&error)))
}

/// An error without its number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}
