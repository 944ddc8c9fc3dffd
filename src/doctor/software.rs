//! Other software: tables of nft, systemd-networkd, what listens, the session table.

use super::{Case, Finding, error, note, warning};
use crate::kstate::{ForeignTable, Host};
use crate::model::InputPolicy;

pub(super) fn examine(case: Case<'_>, out: &mut Vec<Finding>) {
    out.extend(unlisted(case));
    for table in &case.host.tables {
        marks(case, table, out);
        out.extend(closed_forward(table));
        out.extend(offload(case, table));
    }
    out.extend(legacy(case.host));
    out.extend(networkd(case.host));
    out.extend(session_table(case.host));
    out.extend(open_ports(case));
}

/// Silence must mean that somebody looked.
fn unlisted(case: Case<'_>) -> Option<Finding> {
    let reason = case.host.unlisted.as_ref().filter(|_| case.missing.is_empty())?;
    let message = format!("the nft tables of others are not judged: {reason}");
    Some(warning("not-judged", message, "`nft -j list ruleset` must work for whoever asks"))
}

fn legacy(host: &Host) -> Option<Finding> {
    (!host.legacy_tables.is_empty()).then(|| {
        note(
            "legacy-tables",
            format!(
                "there are tables of iptables of the old kind ({}), which cannot be judged: they may drop what passes, or write marks",
                host.legacy_tables.join(", ")
            ),
            "`iptables-legacy-save` and `ip6tables-legacy-save` show them; `update-alternatives --set iptables /usr/sbin/iptables-nft` and a restart of what made them put them into nft's view",
        )
    })
}

fn marks(case: Case<'_>, table: &ForeignTable, out: &mut Vec<Finding>) {
    let marks = case.marks();
    let of_sessions = marks.uplink.0 | marks.server.0 | marks.policy.0;
    for change in &table.marks {
        let (whose, ours) = match change.connection {
            true => ("connection", of_sessions),
            false => ("packet", marks.uplink.0),
        };
        let shared = change.bits & ours;
        if shared == 0 {
            continue;
        }
        let message = format!(
            "a rule in chain {} of table {} writes bits {shared:#010x} of the {whose} mark, which are homing's",
            change.chain, table.name
        );
        let remedy = format!(
            "let it write its own bits only (`{} mark set {0} mark & {:#010x} | …`), or give homing others with `marks` in the profile",
            if change.connection { "ct" } else { "meta" },
            !change.bits | ours
        );
        out.push(match change.connection {
            true => error("session-mark-written", message + ": sessions lose their uplink", remedy),
            false => warning("packet-mark-written", message, remedy),
        });
    }
}

/// A chain of another table that drops what it does not accept: ours cannot let anything past it.
///
/// Docker and ufw have a chain for what an administrator lets through: with something in it, it is
/// likely that the LANs are.
fn closed_forward(table: &ForeignTable) -> Option<Finding> {
    let chain = table.chains.iter().find(|chain| chain.closes_forward)?;
    let empty = |name: &str| table.chains.iter().any(|chain| chain.name == name && !chain.accepts);
    let drops = format!(
        "chain {} of table {} drops what passes through unless it accepts it",
        chain.name, table.name
    );
    let program = if table.name.starts_with("ip6 ") { "ip6tables" } else { "iptables" };
    Some(if empty("DOCKER-USER") {
        let message = drops + ": Docker lets its own containers through, but no LAN";
        let remedy = format!(
            "`{program} -I DOCKER-USER -i LAN-DEVICE -j ACCEPT` and the same with `-o`, for each LAN, at every boot"
        );
        warning("docker", message, remedy)
    } else if empty("ufw-user-forward") || empty("ufw6-user-forward") {
        let remedy = "`ufw default allow routed` (homing keeps closed what comes from uplinks), or `ufw route allow in on LAN-DEVICE out on UPLINK-DEVICE` for each pair";
        warning("ufw", drops + ": ufw lets no LAN through", remedy)
    } else if table.name == "inet firewalld" {
        let remedy = "put LAN and uplink devices into zones with a policy between them (`firewall-cmd --new-policy`), and switch `masquerade` off there: homing translates";
        warning("firewalld", drops + " (firewalld)", remedy)
    } else {
        let remedy =
            "nothing, if it accepts what passes between LANs and uplinks; homing cannot tell";
        note("forward-closed", drops, remedy)
    })
}

fn offload(case: Case<'_>, table: &ForeignTable) -> Option<Finding> {
    let uplinks = &case.site?.uplinks;
    let device = table.offloaded.iter().find(|d| uplinks.iter().any(|u| u.interface == **d))?;
    Some(warning(
        "offload",
        format!("a flowtable of table {} takes sessions on {device} past all rules", table.name),
        "remove `flow add` there: packets that go past the rules are not steered when an uplink changes",
    ))
}

fn networkd(host: &Host) -> Option<Finding> {
    let settings: Vec<String> =
        host.networkd_removes.iter().map(|setting| format!("{setting}=no")).collect();
    (!settings.is_empty()).then(|| {
        warning(
            "networkd",
            "systemd-networkd removes rules and routes that it did not make, homing's too, whenever it configures a link",
            format!("in /etc/systemd/networkd.conf, section [Network]: {}; then `systemctl restart systemd-networkd`", settings.join(" and ")),
        )
    })
}

fn session_table(host: &Host) -> Option<Finding> {
    let (count, most) = host.sessions?;
    (count.saturating_mul(5) > most.saturating_mul(4)).then(|| {
        warning(
            "sessions-full",
            format!("the session table holds {count} of {most}: when it is full, new sessions are dropped"),
            format!("`sysctl net.netfilter.nf_conntrack_max={}`", most.saturating_mul(4)),
        )
    })
}

/// What the internet can reach on the router itself.
fn open_ports(case: Case<'_>) -> Option<Finding> {
    let site = case.site.filter(|site| site.firewall.input == InputPolicy::Open)?;
    let addresses = &case.seen.facts.addresses;
    let on_uplink = |ip: std::net::IpAddr| {
        ip.is_unspecified()
            || addresses.iter().any(|address| {
                address.net.addr() == ip
                    && site.uplinks.iter().any(|uplink| uplink.interface == address.device)
            })
    };
    let mut ports: Vec<String> = (case.host.listening.iter())
        .filter(|(_, socket)| on_uplink(socket.ip()))
        .map(|(protocol, socket)| format!("{protocol} {}", socket.port()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let shown = ports.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more =
        if ports.len() > 8 { format!(" and {} more", ports.len() - 8) } else { String::new() };
    (!ports.is_empty()).then(|| {
        note(
            "open-ports",
            format!("the router's own ports answer the internet: {shown}{more}"),
            "`firewall: { input: closed }` in the profile, with `allow` for what is meant; or nothing, if another table filters them",
        )
    })
}
