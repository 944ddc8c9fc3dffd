//! The short sections: `firewall`, `marks`, `routing`, `fast-path`, `api`, `helpers`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::model::{
    Allow, AllowTarget, Api, FastPath, Firewall, ForwardPolicy, Helper, InputPolicy, MarkLayout,
    MarkMask, Routing,
};

use super::fields::{Fields, list_or_none};
use super::finding::Findings;
use super::names::{Names, reference};
use super::tree::Node;
use super::{net, scalar};

pub(super) const FIREWALL_KEYS: &[&str] = &["forward", "input", "allow"];
pub(super) const ALLOW_KEYS: &[&str] = &["in", "to", "protocol", "ports"];
pub(super) const MARK_KEYS: &[&str] = &["uplink", "server", "policy"];
pub(super) const ROUTING_KEYS: &[&str] = &["priority", "table"];
pub(super) const API_KEYS: &[&str] = &["listen", "page", "token-file"];

pub(super) const HELPERS: &[(&str, Helper)] =
    &[("ftp", Helper::Ftp), ("sip", Helper::Sip), ("tftp", Helper::Tftp)];

pub(super) const FAST_PATH: &[(&str, FastPath)] =
    &[("auto", FastPath::Auto), ("off", FastPath::Off), ("hardware", FastPath::Hardware)];

/// Reads `firewall`.
pub(super) fn firewall(node: Node<'_>, names: &Names, out: &mut Findings) -> Option<Firewall> {
    let fields = Fields::read(node, FIREWALL_KEYS, out)?;
    let forward = [("closed", ForwardPolicy::Closed), ("open", ForwardPolicy::Open)];
    let input = [("open", InputPolicy::Open), ("closed", InputPolicy::Closed)];
    let what = "`open` or `closed`";
    let forward = fields.get("forward", out).and_then(|n| scalar::choice(n, what, &forward, out));
    let input = fields.get("input", out).and_then(|n| scalar::choice(n, what, &input, out));
    let mut allowed = Vec::new();
    if let Some(node) = fields.get("allow", out) {
        for item in list_or_none(node) {
            allowed.extend(allow(item, names, out));
        }
    }
    Some(Firewall {
        forward: forward.unwrap_or_default(),
        input: input.unwrap_or_default(),
        allow: allowed,
    })
}

fn allow(node: Node<'_>, names: &Names, out: &mut Findings) -> Option<Allow> {
    let fields = Fields::read(node, ALLOW_KEYS, out)?;
    let uplink = fields.get("in", out);
    let to = fields.get("to", out);
    let protocol = fields.get("protocol", out);
    let ports = fields.get("ports", out);
    let uplink = uplink.and_then(|node| reference(node, "uplink", &names.uplinks, out));
    let to = match to {
        None => AllowTarget::Any,
        Some(node) if node.text() == Some("router") => AllowTarget::Router,
        Some(node) => net::prefix(node, out).map_or(AllowTarget::Any, AllowTarget::Net),
    };
    let (protocols, ports) = net::protocols_and_ports(protocol, ports, out);
    Some(Allow { uplink, to, protocols, ports })
}

/// Reads `marks`; whether the masks fit each other and the site is for `checks`.
pub(super) fn marks<'t>(node: Node<'t>, out: &mut Findings) -> Option<(MarkLayout, Fields<'t>)> {
    let fields = Fields::read(node, MARK_KEYS, out)?;
    let mut layout = MarkLayout::default();
    let masks = [&mut layout.uplink, &mut layout.server, &mut layout.policy];
    for (mask, key) in masks.into_iter().zip(["uplink", "server", "policy"]) {
        let node = fields.get(key, out);
        if let Some(bits) = node.and_then(|node| scalar::number(node, 1..=u32::MAX, out)) {
            *mask = MarkMask(bits);
        }
    }
    Some((layout, fields))
}

/// Reads `routing`.
pub(super) fn routing(node: Node<'_>, out: &mut Findings) -> Option<Routing> {
    let fields = Fields::read(node, ROUTING_KEYS, out)?;
    let priority = fields.get("priority", out);
    let table = fields.get("table", out);
    // 32766 and 32767 are the kernel's own rules; ours must come before them.
    let priority = priority.and_then(|node| scalar::number(node, 1..=32_000, out));
    // 253 to 255 are the kernel's own tables.
    let table = table.and_then(|node| scalar::number(node, 256..=2_000_000_000, out));
    let default = Routing::default();
    Some(Routing {
        first_priority: priority.unwrap_or(default.first_priority),
        first_table: table.unwrap_or(default.first_table),
    })
}

/// Reads `fast-path`.
pub(super) fn fast_path(node: Node<'_>, out: &mut Findings) -> Option<FastPath> {
    scalar::choice(node, "a fast path", FAST_PATH, out)
}

/// Reads `helpers`.
pub(super) fn helpers(node: Node<'_>, out: &mut Findings) -> Vec<Helper> {
    let items = list_or_none(node);
    items.into_iter().filter_map(|item| helper(item, out)).collect()
}

/// One connection-tracking helper.
pub(super) fn helper(node: Node<'_>, out: &mut Findings) -> Option<Helper> {
    scalar::choice(node, "a helper", HELPERS, out)
}

/// Reads `api`.
pub(super) fn api(node: Node<'_>, out: &mut Findings) -> Option<Api> {
    let fields = Fields::read(node, API_KEYS, out)?;
    let page = fields.get("page", out);
    let token = fields.get("token-file", out);
    let listen = listen(&fields, out);
    let page_value = page.and_then(|node| scalar::boolean(node, out)).unwrap_or_default();
    if let (true, Some(node)) = (page_value, page) {
        out.note(node, "the page does not exist yet", "it will be served when it does");
    }
    let token = token.and_then(|node| absolute_path(node, out));
    Some(Api { listen, page: page_value, token_file: token })
}

fn listen(fields: &Fields<'_>, out: &mut Findings) -> Vec<std::net::SocketAddr> {
    let Some(node) = fields.get("listen", out) else {
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for item in list_or_none(node) {
        let Some(socket) = net::socket(item, out) else {
            continue;
        };
        if !socket.ip().is_loopback() && fields.raw("token-file").is_none() {
            let hint = "add `token-file: PATH`, or listen on 127.0.0.1 or [::1]";
            out.error_with(
                item,
                format!("`{socket}` can be reached from outside without a token"),
                hint,
            );
        }
        if !seen.insert(socket) {
            out.error_with(item, format!("`{socket}` a second time"), "remove one of them");
        }
        all.push(socket);
    }
    all
}

fn absolute_path(node: Node<'_>, out: &mut Findings) -> Option<PathBuf> {
    let text = scalar::text(node, "a path", out)?;
    if !text.starts_with('/') {
        out.error_with(
            node,
            format!("{} is not an absolute path", node.describe()),
            "begin it with `/`",
        );
    }
    Some(PathBuf::from(text))
}
