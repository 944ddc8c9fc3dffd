//! Services: sessions from the internet, and from inside, find a server behind a virtual address.

use homing::lab::Protocol;
use homing::model::Family;

use crate::harness::{Site, both, farm};

both!(sessions_by_each_uplink_find_a_server_and_their_answers_go_back_there,);

const SHOP: &str = "  shop: { virtual: [fiber, cable, lte], protocol: [tcp, udp], ports: [80, 443], group: web }\n";

fn sessions_by_each_uplink_find_a_server_and_their_answers_go_back_there(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(3);
    let port = "port: 8080";
    site.run(&farm::profile(family, farm::QUICK, &[port, port, port], SHOP));
    let mut sessions = Vec::new();
    for uplink in ["fiber", "cable", "lte"] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for _ in 0..3 {
                let caller = Some(site.client(1));
                let session = site.outside().open(protocol, caller, site.at(uplink, 443));
                let session = session.unwrap_or_else(|e| panic!("{protocol:?} by {uplink}: {e}"));
                assert_eq!(session.seen.ip(), site.client(1), "the server sees who calls");
                sessions.push(session);
            }
        }
    }
    assert_eq!(site.counts(&farm, &sessions), [6, 6, 6]);
    site.assert_stay(&mut sessions, "a while later");
    site.assert_settled();
}
