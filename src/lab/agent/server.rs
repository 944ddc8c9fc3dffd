//! Servers inside a namespace, on one thread.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::{Arrival, Protocol, web};
use crate::lab::{LabError, Namespace};

type Counts = Arc<Mutex<BTreeMap<Arrival, u64>>>;

/// Servers that answer everything with the source address they saw, and their name if they have
/// one; they end when dropped.
#[derive(Debug)]
pub struct Servers {
    counts: Counts,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Starts them: TCP on every address of the namespace, UDP on `addresses`.
    ///
    /// # Errors
    /// When an address or port cannot be had.
    pub fn start(
        space: &Namespace,
        addresses: &[IpAddr],
        tcp: &[u16],
        udp: &[u16],
    ) -> Result<Servers, LabError> {
        Servers::start_named("", space, addresses, tcp, udp)
    }

    /// The same, with a name that they tell their clients.
    ///
    /// # Errors
    /// When an address or port cannot be had.
    pub fn start_named(
        name: &str,
        space: &Namespace,
        addresses: &[IpAddr],
        tcp: &[u16],
        udp: &[u16],
    ) -> Result<Servers, LabError> {
        let counts = Counts::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let wanted = Wanted {
            name: name.into(),
            space: space.clone(),
            tcp: tcp.to_vec(),
            udp: udp
                .iter()
                .flat_map(|&port| addresses.iter().map(move |&a| SocketAddr::new(a, port)))
                .collect(),
            counts: Arc::clone(&counts),
        };
        let thread = thread::spawn(move || serve(&wanted, &ready, stopped));
        started.recv().map_err(|_| LabError::Running("the servers' thread ended".to_owned()))??;
        Ok(Servers { counts, stop: Some(stop), thread: Some(thread) })
    }

    /// How often each caller came to each server.
    pub fn arrivals(&self) -> BTreeMap<Arrival, u64> {
        lock(&self.counts).clone()
    }

    /// How often each source address came, to whichever server.
    pub fn sources(&self) -> BTreeMap<IpAddr, u64> {
        let mut sources = BTreeMap::new();
        for (arrival, count) in self.arrivals() {
            *sources.entry(arrival.source).or_default() += count;
        }
        sources
    }

    /// Counts from nothing again.
    pub fn forget(&self) {
        lock(&self.counts).clear();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Wanted {
    name: Arc<str>,
    space: Namespace,
    tcp: Vec<u16>,
    udp: Vec<SocketAddr>,
    counts: Counts,
}

fn lock(counts: &Counts) -> std::sync::MutexGuard<'_, BTreeMap<Arrival, u64>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counts: &Counts, protocol: Protocol, source: IpAddr, server: SocketAddr) {
    let arrival = Arrival {
        protocol,
        source: source.to_canonical(),
        server: SocketAddr::new(server.ip().to_canonical(), server.port()),
    };
    *lock(counts).entry(arrival).or_default() += 1;
}

type Ready = mpsc::Sender<Result<(), LabError>>;

fn serve(wanted: &Wanted, ready: &Ready, stopped: oneshot::Receiver<()>) {
    let runtime = wanted.space.join().and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LabError::system("start the servers"))
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let _ = ready.send(open(wanted));
        // An error means that the owner is gone: the same as being told to stop.
        let _ = stopped.await;
    });
    runtime.shutdown_background();
}

fn open(wanted: &Wanted) -> Result<(), LabError> {
    for &port in &wanted.tcp {
        let listener = listen(port).map_err(LabError::system(format!("listen on tcp {port}")))?;
        tokio::spawn(accept(listener, Arc::clone(&wanted.name), Arc::clone(&wanted.counts)));
    }
    for &address in &wanted.udp {
        let socket =
            receive(address).map_err(LabError::system(format!("listen on udp {address}")))?;
        let (name, counts) = (Arc::clone(&wanted.name), Arc::clone(&wanted.counts));
        tokio::spawn(datagrams(socket, address, name, counts));
    }
    Ok(())
}

/// One socket for both families.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

fn receive(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn accept(listener: TcpListener, name: Arc<str>, counts: Counts) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors for example: nothing better to do than to stop serving.
            return pending().await;
        };
        if let Ok(local) = stream.local_addr() {
            count(&counts, Protocol::Tcp, peer.ip(), local);
        }
        tokio::spawn(talk(stream, peer, Arc::clone(&name)));
    }
}

/// Answers each line; a web client gets its page instead.
async fn talk(mut stream: TcpStream, peer: SocketAddr, name: Arc<str>) {
    let port = stream.local_addr().map_or(0, |local| local.port());
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let answer = answer(peer, &name) + "\n";
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while reader.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        if let Some(path) = web::asked(&line) {
            let page = web::page(port, path, &web::greeting(&name, peer));
            while reader.read_line(&mut line).await.is_ok_and(|n| n > 2) {}
            let _ = writer.write_all(page.as_bytes()).await;
            let _ = writer.shutdown().await;
            return;
        }
        line.clear();
        if writer.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Who called, and who answers.
fn answer(peer: SocketAddr, name: &str) -> String {
    match name {
        "" => peer.to_string(),
        name => format!("{peer} {name}"),
    }
}

async fn datagrams(socket: UdpSocket, local: SocketAddr, name: Arc<str>, counts: Counts) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier answer comes as an error here: go on.
        let Ok((_, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        count(&counts, Protocol::Udp, peer.ip(), local);
        let _ = socket.send_to(answer(peer, &name).as_bytes(), peer).await;
    }
}
