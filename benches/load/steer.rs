//! From the kernel's notice that a carrier is lost, or back, until new sessions go elsewhere.

use std::fmt::Write as _;
use std::time::Duration;

use crate::harness::{Site, V4, profile};
use crate::spread;

const TURNS: usize = 15;

/// One policy, and two hundred over all pairs of uplinks. Each uplink is lost in turn.
pub(crate) fn measure() {
    for policies in [1, 200] {
        let mut text = "policies:\n".to_owned();
        for number in 1..policies {
            let (members, port) =
                (["fiber, cable", "cable, lte", "lte, fiber"][number % 3], number);
            let weights = "balance: weighted, persistence: { by: source }";
            writeln!(
                text,
                "  - {{ name: p{number}, match: {{ ports: [{port}] }}, uplinks: [{members}], {weights} }}"
            )
            .unwrap();
        }
        text += "  - { name: default, persistence: { by: source } }\n";
        let site = Site::start(V4, &profile(&text));
        let mut times = Vec::new();
        for uplink in ["fiber", "cable", "lte"].into_iter().cycle().take(TURNS) {
            site.lose_carrier(uplink);
            site.wait_usable(uplink, false);
            times.push(last_steer(&site));
            site.stage.isp(uplink).unwrap().heal().unwrap();
            site.wait_usable(uplink, true);
        }
        println!("steering change, 3 uplinks, policies {policies}: {}", spread(times));
    }
}

fn last_steer(site: &Site) -> Duration {
    let took = site.status()["kernel"]["last_steer_ms"].as_f64();
    Duration::from_secs_f64(took.expect("steered the short way") / 1000.0)
}
