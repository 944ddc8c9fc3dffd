//! Where the API listens: the Unix socket from the start to the end; TCP as the site in force says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::access;
use super::answers::Engine;
use super::connections::Connections;
use super::gate::Gate;
use super::server::router;
use crate::daemon::Request;
use crate::model::Api;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "api.sock";

/// So soon an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The pause after a connection that could not be taken: what is short may be there again.
const BREATH: Duration = Duration::from_millis(100);

/// Connections that may wait to be taken.
const BACKLOG: i32 = 1024;

/// The socket's file; it is removed with this, and TCP is left.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is no obstacle to anybody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens the socket (a stale one is no obstacle) and answers from then on; by TCP as `api` says.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn serve(
    runtime_dir: &Path,
    engine: Engine,
    api: watch::Receiver<Api>,
) -> io::Result<SocketFile> {
    fs::create_dir_all(runtime_dir)?;
    let path = runtime_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    if let Err(error) = access::admit_admins(&path) {
        tracing::warn!("the group of administrators cannot use the socket: {error}");
    }
    let router = router(engine.clone());
    tokio::spawn(serve_unix(listener, router.clone()));
    tokio::spawn(tend(api, router, engine));
    Ok(SocketFile(path))
}

async fn serve_unix(listener: UnixListener, router: Router) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let who = stream.peer_cred().ok().map(|who| (who.uid(), who.gid()));
                connections.admit(stream, router.clone(), Gate::Local(who));
            }
            Err(error) => short_of(&error).await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, router: Router, gate: Gate) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers go at once; without it they are only slower.
                let _ = stream.set_nodelay(true);
                connections.admit(stream, router.clone(), gate.clone());
            }
            Err(error) => short_of(&error).await,
        }
    }
}

async fn short_of(error: &io::Error) {
    tracing::debug!("a connection to the API is not taken: {error}");
    tokio::time::sleep(BREATH).await;
}

/// A listener at work.
struct Listener {
    token: Option<Arc<str>>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens and closes TCP listeners, as is wished for; what cannot be had is told, and tried again.
async fn tend(mut wished: watch::Receiver<Api>, router: Router, engine: Engine) {
    let mut open: BTreeMap<SocketAddr, Listener> = BTreeMap::new();
    let mut told = Vec::new();
    loop {
        let api = wished.borrow_and_update().clone();
        let troubles = match token_of(&api).await {
            Ok(token) => {
                open.retain(|at, one| api.listen.contains(at) && one.token == token);
                let missing = api.listen.iter().filter(|at| !open.contains_key(*at));
                let missing: Vec<SocketAddr> = missing.copied().collect();
                open_all(&missing, &token, &router, &mut open)
            }
            Err(trouble) => {
                open.clear();
                vec![trouble]
            }
        };
        let again = !troubles.is_empty();
        if troubles != told {
            troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
            told.clone_from(&troubles);
            if engine.send(Request::Trouble(troubles)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = wished.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if again => {}
        }
    }
}

fn open_all(
    missing: &[SocketAddr],
    token: &Option<Arc<str>>,
    router: &Router,
    open: &mut BTreeMap<SocketAddr, Listener>,
) -> Vec<String> {
    let mut troubles = Vec::new();
    for at in missing {
        match listener(*at) {
            Ok(listener) => {
                tracing::info!("the API listens on {at}");
                let serving = serve_tcp(listener, router.clone(), Gate::Remote(token.clone()));
                let task = tokio::spawn(serving).abort_handle();
                open.insert(*at, Listener { token: token.clone(), task });
            }
            Err(error) => troubles.push(format!("api.listen: cannot listen on {at}: {error}")),
        }
    }
    troubles
}

fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The token that readers must send; none if the profile names no file.
async fn token_of(api: &Api) -> Result<Option<Arc<str>>, String> {
    let Some(file) = api.token_file.clone().filter(|_| !api.listen.is_empty()) else {
        return Ok(None);
    };
    let name = file.display().to_string();
    let reading = tokio::task::spawn_blocking(move || fs::read_to_string(file));
    let text = reading
        .await
        .map_err(|error| error.to_string())
        .and_then(|read| read.map_err(|error| error.to_string()));
    let text = text.map_err(|error| format!("api.token-file: cannot read {name}: {error}"))?;
    match text.trim() {
        "" => Err(format!("api.token-file: {name} holds no token")),
        token => Ok(Some(Arc::from(token))),
    }
}
