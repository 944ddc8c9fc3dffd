//! The server on bytes that no client of ours sent: for [`crate::hostile`].

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::connections::{Answering, serve};
use super::gate::Gate;
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
    // From root, or most of it would get no further.
    let answering = Answering::begin(router(engine), Gate::Local(Some((0, 0))));
    let talk = async {
        let send = async {
            let _ = client.write_all(&bytes[..bytes.len().min(MOST)]).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let _ = tokio::join!(serve(server, answering), send);
    };
    runtime.block_on(talk);
}
