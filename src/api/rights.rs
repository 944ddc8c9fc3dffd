//! Who may change something: root, the user whom homing runs as, and members of the group
//! `homing-admin`.
//!
//! Who may connect at all is a matter of the socket's file ([`super::access`]); whoever may, may read.

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Group, Uid, User};
use serde_json::json;
use tokio::net::UnixListener;

use super::access::ADMINS;

/// Who is at the other end of a connection, as the kernel tells: unix(7), `SO_PEERCRED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    user: Uid,
    group: Gid,
}

impl Peer {
    /// Who homing runs as.
    pub(super) fn own() -> Peer {
        Peer { user: Uid::effective(), group: Gid::effective() }
    }
}

/// A peer of a Unix socket; `None` when the kernel does not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller(pub(super) Option<Peer>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Caller {
        let told = stream.io().peer_cred().ok();
        Caller(told.map(|of| Peer { user: of.uid().into(), group: of.gid().into() }))
    }
}

/// Lets everybody read, and those who may change something change it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<ConnectInfo<Caller>>().and_then(|info| info.0.0);
    // Groups may be kept somewhere slow.
    let may = tokio::task::spawn_blocking(move || caller.is_some_and(may_change)).await;
    if may.unwrap_or(false) {
        return next.run(request).await;
    }
    let reason = format!("only root and members of the group {ADMINS} may change something");
    (StatusCode::FORBIDDEN, Json(json!({ "error": reason }))).into_response()
}

fn may_change(peer: Peer) -> bool {
    peer.user.is_root() || peer.user == Uid::effective() || is_admin(peer)
}

/// Whether the group is the peer's own, or the peer's user is named in it.
fn is_admin(peer: Peer) -> bool {
    let Ok(Some(admins)) = Group::from_name(ADMINS) else { return false };
    let named = || User::from_uid(peer.user).ok().flatten();
    peer.group == admins.gid || named().is_some_and(|user| admins.mem.contains(&user.name))
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::{Peer, may_change};

    #[test]
    fn root_and_our_own_user_may_change_something_and_others_may_not() {
        let peer = |user| Peer { user, group: Gid::from_raw(54_321) };
        assert!(may_change(peer(Uid::from_raw(0))));
        assert!(may_change(peer(Uid::effective())));
        assert!(!may_change(peer(Uid::from_raw(54_321))));
    }
}
