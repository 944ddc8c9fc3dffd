//! The server on bytes that no client of ours sent: for [`crate::hostile`].

use axum::Extension;
use axum::extract::ConnectInfo;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::rights::{Caller, Peer};
use super::server::router;

/// More than a request of ours, less than what would take long.
const MOST: usize = 32 * 1024;

/// What somebody sends on a connection; the engine is gone, so every good question is refused.
pub fn request(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return;
    };
    let (engine, _) = mpsc::channel(1);
    let (mut client, server) = tokio::io::duplex(MOST);
    let service = TowerToHyperService::new(
        router(engine).layer(Extension(ConnectInfo(Caller(Some(Peer::own()))))),
    );
    let talk = async {
        let serve = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        let send = async {
            let _ = client.write_all(&bytes[..bytes.len().min(MOST)]).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let _ = tokio::join!(serve, send);
    };
    runtime.block_on(talk);
}
