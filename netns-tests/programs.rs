//! Services of real servers, used by real clients: nginx and curl, dnsmasq and dig, vsftpd and curl.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use homing::lab::Namespace;
use homing::model::Family;

use crate::harness::callers::caller;
use crate::harness::program::{LARGE, Program, in_url};
use crate::harness::{Outcome, Site, both, farm, profile};

both!(
    web_pages_come_from_one_server_for_each_client,
    names_are_told_by_one_server_over_udp_and_tcp,
    files_go_both_ways_with_passive_and_active_data_connections,
    files_come_into_the_lans_by_either_data_connection,
);

const SERVERS: usize = 3;

/// A site whose servers are these programs.
fn start(
    family: Family,
    check: u16,
    services: &str,
    server: impl Fn(&Site, usize, IpAddr) -> Program,
) -> (Site, Vec<Program>) {
    let mut site = Site::prepare(family, |b| b);
    site.add_callers();
    let addresses = site.add_servers(SERVERS);
    let mut programs: Vec<Program> =
        addresses.iter().enumerate().map(|(i, address)| server(&site, i, *address)).collect();
    let quick = farm::QUICK.replace("8080", &check.to_string());
    site.run(&farm::profile(family, &quick, &[""; SERVERS], services));
    for (index, program) in programs.iter_mut().enumerate() {
        program.assert_running();
        site.wait_server(index, "up");
    }
    (site, programs)
}

/// A command that must succeed; what it said.
fn well(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{outcome:.2000?}");
    outcome.stdout
}

fn web_pages_come_from_one_server_for_each_client(family: Family) {
    let services = "  shop: { virtual: [fiber, cable], protocol: tcp, ports: [80], group: web, \
                    persistence: { mode: ssl } }\n";
    let (site, _programs) = start(family, 80, services, nginx);
    let at = in_url(site.at("fiber", 80).ip());
    let mut seen = BTreeSet::new();
    for index in 0..6 {
        let client = caller(family, index).to_string();
        let get = |path: &str| {
            let url = format!("http://{at}/{path}");
            well(site.out_there("curl", &["-gsSf", "--interface", &client, &url]))
        };
        assert_eq!(get("who").trim(), client, "the server sees its client");
        let name = get("name");
        for _ in 0..3 {
            assert_eq!(get("name"), name, "client {client}");
        }
        assert_eq!(get("large").len(), LARGE);
        seen.insert(name);
    }
    assert_eq!(seen.len(), SERVERS, "{seen:?}");
    site.assert_settled();
}

fn nginx(site: &Site, index: usize, address: IpAddr) -> Program {
    let root = site.directory_of(index);
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/empty/{kind};"))
        .join(" ");
    let text = format!(
        "daemon off; master_process off; {user} pid {root}.pid; error_log stderr;
events {{ }}
http {{
    access_log off; {temporary}
    server {{
        listen {}:80;
        root {root};
        location = /who {{ return 200 \"$remote_addr\\n\"; }}
    }}
}}
",
        in_url(address)
    );
    let file = format!("{root}.conf");
    fs::write(&file, text).expect("write a configuration");
    let space = site.stage.layout().dmz();
    site.start_program(&space, "nginx", &["-p", &root, "-e", "stderr", "-c", &file], &[])
}

fn names_are_told_by_one_server_over_udp_and_tcp(family: Family) {
    let services = "  names: { virtual: [fiber, cable], protocol: [tcp, udp], ports: [53], \
                    group: web, persistence: { mode: sticky } }\n";
    let (site, _programs) = start(family, 53, services, dnsmasq);
    let at = format!("@{}", site.at("cable", 53).ip());
    let mut seen = BTreeSet::new();
    for index in 0..6 {
        let client = caller(family, index).to_string();
        let dig = |more: &[&str]| {
            let always = [&*at, "-b", &*client, "+short", "+tries=1", "+time=5"];
            let question = ["who.example", "TXT"];
            well(site.out_there("dig", &[&always[..], more, &question].concat()))
        };
        let name = dig(&["+notcp"]);
        assert!(name.starts_with('"'), "an answer: {name}");
        for way in ["+notcp", "+tcp", "+notcp"] {
            assert_eq!(dig(&[way]), name, "client {client} {way}");
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), SERVERS, "{seen:?}");
    site.assert_settled();
}

fn dnsmasq(site: &Site, index: usize, address: IpAddr) -> Program {
    let listen = format!("--listen-address={address}");
    let record = format!("--txt-record=who.example,{}", farm::name(index));
    let always = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--except-interface=lo",
        "--log-facility=-",
        "--user=",
        "--pid-file",
    ];
    let args = [&always[..], &[&listen, &record]].concat();
    site.start_program(&site.stage.layout().dmz(), "dnsmasq", &args, &[])
}

fn files_go_both_ways_with_passive_and_active_data_connections(family: Family) {
    let services = "  files: { virtual: [fiber, cable], protocol: tcp, ports: [21], group: web, \
                    helper: ftp }\n";
    let (site, _programs) = start(family, 21, services, vsftpd);
    // EPSV, PASV, EPRT and PORT (RFC 959, RFC 2428); IPv6 has only the extended ones.
    let ways: &[&[&str]] = match family {
        Family::V4 => &[
            &[],
            &["--disable-epsv"],
            &["--ftp-port", "CLIENT"],
            &["--disable-eprt", "--ftp-port", "CLIENT"],
        ],
        Family::V6 => &[&[], &["--ftp-port", "CLIENT"]],
    };
    let local = site.dir.join("upload").display().to_string();
    fs::write(&local, vec![b'y'; LARGE]).expect("write a file");
    for uplink in ["fiber", "cable"] {
        let at = in_url(site.at(uplink, 21).ip());
        for way in ways {
            let mut seen = BTreeSet::new();
            for index in 0..3 {
                let client = caller(family, index).to_string();
                let curl = |more: &[&str], path: &str| {
                    let url = format!("ftp://{at}/{path}");
                    let way: Vec<&str> =
                        way.iter().map(|w| if *w == "CLIENT" { &client } else { *w }).collect();
                    let always = ["-gsSv", "-m", "15", "--interface", &*client];
                    let args = [&always[..], &way, more, &[&*url]].concat();
                    well(site.out_there("curl", &args))
                };
                // Twice, or each round would be as long as the servers are many.
                seen.extend([curl(&[], "name"), curl(&[], "name")]);
                assert_eq!(curl(&[], "large").len(), LARGE, "{way:?} by {uplink}");
                curl(&["-T", &local], &format!("incoming/{uplink}-{index}-{}", way.len()));
            }
            assert_eq!(seen.len(), SERVERS, "{way:?} by {uplink}: {seen:?}");
        }
    }
    let uploads = |index| {
        let directory = site.dir.join(format!("server-{}/incoming", farm::name(index)));
        let files = fs::read_dir(directory).expect("list uploads").flatten();
        files.map(|file| file.metadata().map_or(0, |data| data.len())).collect::<Vec<_>>()
    };
    let uploads: Vec<u64> = (0..SERVERS).flat_map(uploads).collect();
    assert_eq!(uploads, vec![LARGE as u64; 2 * 3 * ways.len()]);
    site.assert_settled();
}

fn files_come_into_the_lans_by_either_data_connection(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let server = site.server(1, 21).ip();
    let mut program = vsftpd_in(&site.stage.layout().internet(), &site, 0, server);
    site.run(&profile("helpers: [ftp]\n"));
    program.assert_running();
    let client = site.host(2).to_string();
    let (active, old) = (["--ftp-port", &client], ["--disable-eprt", "--ftp-port", &client]);
    let passive: &[&str] = &[];
    let ways = [passive, &active, &old];
    let ways = if family == Family::V4 { &ways[..] } else { &ways[..2] };
    let get = |way: &[&str], path: &str| {
        let url = format!("ftp://{}/{path}", in_url(server));
        let always = ["-gsSv", "-m", "5", "--interface", &*client];
        site.in_lan("curl", &[&always[..], way, &[&*url]].concat())
    };
    // Often enough to go by every uplink.
    for round in 0..6 {
        for way in ways {
            assert_eq!(well(get(way, "name")), "a\n", "{way:?}, round {round}");
        }
    }
    assert_eq!(well(get(&active, "large")).len(), LARGE);
    // Without a helper the server is told of an address that it does not reach.
    site.reload(&profile(""));
    assert_ne!(get(&active, "name").code, Some(0));
    site.assert_settled();
}

fn vsftpd(site: &Site, index: usize, address: IpAddr) -> Program {
    vsftpd_in(&site.stage.layout().dmz(), site, index, address)
}

fn vsftpd_in(space: &Namespace, site: &Site, index: usize, address: IpAddr) -> Program {
    let root = site.directory_of(index);
    fs::create_dir(format!("{root}/incoming")).expect("make a directory");
    let listen = match address {
        IpAddr::V4(address) => format!("listen=YES\nlisten_address={address}"),
        IpAddr::V6(address) => format!("listen=NO\nlisten_ipv6=YES\nlisten_address6={address}"),
    };
    let text = format!(
        "{listen}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
anon_upload_enable=YES
write_enable=YES
allow_writeable_chroot=YES
ftp_username=root
nopriv_user=root
secure_chroot_dir={root}/empty
connect_from_port_20=YES
ftp_data_port=20
run_as_launching_user=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
xferlog_enable=NO
"
    );
    let file = format!("{root}.conf");
    fs::write(&file, text).expect("write a configuration");
    site.start_program(space, "vsftpd", &[&file], &[])
}
