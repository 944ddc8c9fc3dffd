//! `cargo bench --bench load [-- evacuation|failover|probing|reload|server-bindings|server-moves|services|steer|sweep|watch]`:
//! what homing costs while it works, on sites in network namespaces, with the release binary. Prints figures; judges none.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a bench stops where it cannot go on

mod failover;
#[path = "../../netns-tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, unreachable_pub)]
// it serves more scenarios than these
mod harness;
mod reload;
mod services;
mod steer;
mod sweep;
mod watch;

use std::time::Duration;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all: [(&str, fn()); 10] = [
        ("evacuation", failover::measure_evacuation),
        ("failover", failover::measure),
        ("probing", failover::measure_probing),
        ("reload", reload::measure),
        ("server-bindings", services::measure_bindings),
        ("server-moves", services::measure_moves),
        ("services", services::measure),
        ("steer", steer::measure),
        ("sweep", sweep::measure),
        ("watch", watch::measure),
    ];
    for (name, measure) in all {
        if chosen.is_empty() || chosen.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
}

/// Least, middle and greatest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let middle = times[times.len() / 2];
    format!(
        "median {:.2} ms (min {:.2}, max {:.2}, {} runs)",
        milliseconds(middle),
        milliseconds(times[0]),
        milliseconds(times[times.len() - 1]),
        times.len()
    )
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
