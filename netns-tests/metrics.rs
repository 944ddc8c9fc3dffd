//! `/metrics`, held to Prometheus's own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use homing::lab::{Fault, Namespace, Protocol};
use homing::model::Family;
use serde_json::Value;

use crate::harness::farm::{self, QUICK};
use crate::harness::http::Door;
use crate::harness::{PATIENCE, Site, V4, both, one_policy, until};

both!(what_happens_is_counted);

const SHOP: &str = "  shop: { virtual: [fiber], protocol: tcp, ports: [80], group: web, persistence: ssl }
policies:
  - { name: bank, match: { ports: [443] }, persistence: { by: source }, uplinks: [[fiber], [cable]] }
  - { name: default, uplinks: [[fiber, cable], [lte]] }
notify: { pager: { command: [/bin/true] } }
api: { listen: [\"127.0.0.1:9480\"] }
";

/// What the site ships for Prometheus and Grafana.
fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("share").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Series, with labels, and their values.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(pair).collect()
}

fn look(site: &Site) -> BTreeMap<String, f64> {
    series(&site.get(Door::Socket, "/metrics").body)
}

/// Waits until a series has this value.
fn wait_series(site: &Site, name: &str, value: f64) {
    let read = || look(site).get(name).copied();
    let found = until(PATIENCE, read, |found| *found == Some(value));
    found.unwrap_or_else(|last| panic!("{name} is {last:?}, not {value}\n{}", site.log()));
}

/// Runs a program with a text on its input.
fn feed(program: &str, args: &[&str], text: &str) -> (bool, String) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let piped = || Stdio::piped();
    let child =
        Command::new(program).args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("start {program}: {error}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_series_is_there_from_the_start_and_promtool_is_content() {
    let mut site = Site::prepare(V4, |b| b);
    let _farm = site.farm(2);
    site.run(&farm::profile(V4, QUICK, &["port: 8080"; 2], SHOP));
    let answer = site.get(Door::Socket, "/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert_eq!(feed("promtool", &["check", "metrics"], &answer.body), (true, String::new()));
    let there = series(&answer.body);
    for name in [
        "homing_uplink_health{uplink=\"fiber\",state=\"down\"}",
        "homing_uplink_receive_bytes_total{uplink=\"lte\"}",
        "homing_uplink_rtt_seconds{uplink=\"fiber\"}",
        "homing_uplink_loss_ratio{uplink=\"fiber\"}",
        "homing_sessions",
        "homing_server_usable{group=\"web\",server=\"b\"}",
        "homing_apply_duration_seconds_count",
        "homing_conntrack_fill_ratio",
        "process_resident_memory_bytes",
    ] {
        assert!(there.contains_key(name), "{name} is missing in\n{}", answer.body);
    }
    for name in [
        "homing_new_sessions_total{policy=\"bank\",uplink=\"cable\"}",
        "homing_failovers_total{uplink=\"lte\",family=\"ipv6\"}",
        "homing_failbacks_total{uplink=\"fiber\",family=\"ipv4\"}",
        "homing_evacuated_sessions_total{uplink=\"fiber\"}",
        "homing_drift_repairs_total",
        "homing_events_total{kind=\"failover\"}",
        "homing_binding_map_fill_ratio{map=\"bind4-bank\"}",
        "homing_binding_map_fill_ratio{map=\"bind4-ssl.shop.fiber.80\"}",
        "homing_server_new_sessions_total{group=\"web\",server=\"a\"}",
        "homing_notices_total{notify=\"pager\",outcome=\"lost\"}",
        "homing_notice_failures_total{notify=\"pager\"}",
    ] {
        assert_eq!(there.get(name), Some(&0.0), "{name} in\n{}", answer.body);
    }
    // The documentation names every family, and no other.
    let docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let families = answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families.map(|line| line.split(' ').next().unwrap()).collect();
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
    let told = rows.filter_map(|row| row.split(['`', '{']).next());
    let told: BTreeSet<&str> = told.filter(|name| name.contains('_')).collect();
    assert_eq!(families, told);
    let open = site.request(
        Door::Socket,
        "GET",
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
        "",
    );
    assert!(open.head.contains("content-type: application/openmetrics-text"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    let same = open.body.replace("le=\"1.0\"", "le=\"1\"");
    assert!(series(&same).keys().eq(series(&answer.body).keys()), "{}", open.body);
}

fn what_happens_is_counted(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [[fiber], [cable]]"));
    site.wait_settled();
    site.router().ip(&["rule del pref 10300".to_owned()]).unwrap();
    wait_series(&site, "homing_drift_repairs_total", 1.0);
    let before = look(&site);
    let held = site.open_many(Protocol::Tcp, 0..10);
    let given = "homing_new_sessions_total{policy=\"default\",uplink=\"fiber\"}";
    wait_series(&site, given, before[given] + 10.0);
    assert!(look(&site)["homing_sessions"] >= 10.0);
    assert!(look(&site)["homing_uplink_rtt_seconds{uplink=\"fiber\"}"] > 0.0);
    let received = "homing_uplink_receive_bytes_total{uplink=\"fiber\"}";
    assert!(look(&site)[received] > before[received]);
    let away = format!("homing_failovers_total{{uplink=\"fiber\",family=\"{}\"}}", family.as_str());
    let back = format!("homing_failbacks_total{{uplink=\"fiber\",family=\"{}\"}}", family.as_str());
    site.fail(&["fiber"], Fault::Silent);
    wait_series(&site, &away, 1.0);
    wait_series(&site, "homing_uplink_health{uplink=\"fiber\",state=\"down\"}", 1.0);
    assert_eq!(look(&site)["homing_uplink_health{uplink=\"fiber\",state=\"up\"}"], 0.0);
    site.heal(&["fiber"]);
    wait_series(&site, &back, 1.0);
    assert!(look(&site)["homing_apply_duration_seconds_count"] >= 2.0);
    let events = look(&site);
    let of_kind = |kind: &str| events[&format!("homing_events_total{{kind=\"{kind}\"}}")];
    assert_eq!(of_kind("drift-repaired"), 1.0);
    assert!(of_kind("failover") >= 1.0 && of_kind("failback") >= 1.0);
    drop(held);
}

#[test]
fn the_alert_rules_are_right_by_prometheus_s_own_tests() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("share/prometheus");
    for (verb, file) in [("check", "homing-alerts.yml"), ("test", "homing-alerts-test.yml")] {
        let path = rules.join(file).display().to_string();
        let (well, said) = feed("promtool", &[verb, "rules", &path], "");
        assert!(well, "{verb} {file}: {said}");
    }
}

/// What Prometheus says to a question.
fn query(space: &Namespace, expression: &str) -> Value {
    let data = format!("query={expression}");
    let args =
        ["-sS", "-m", "10", "-G", "--data-urlencode", &data, "http://127.0.0.1:9090/api/v1/query"];
    let output = space.output("curl", &args).expect("run curl");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn results(space: &Namespace, expression: &str) -> usize {
    let answer = query(space, expression);
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().map_or(0, Vec::len)
}

/// Every expression of the dashboard, with its variables filled in.
fn expressions(dashboard: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = vec![dashboard];
    while let Some(value) = rest.pop() {
        if let Some(expression) = value["expr"].as_str() {
            let filled = expression.replace("$__rate_interval", "1m").replace("$site", ".*");
            found.insert(filled.replace("$instance", ".*"));
        }
        match value {
            Value::Array(items) => rest.extend(items),
            Value::Object(entries) => rest.extend(entries.values()),
            _ => {}
        }
    }
    found
}

/// A real Prometheus with the shipped settings scrapes homing: the alerts' and the dashboard's
/// expressions find their series, and a dead line is an alert.
#[test]
fn a_real_prometheus_finds_everything_that_the_dashboard_shows() {
    let mut site = Site::prepare(V4, |b| b);
    let _farm = site.farm(2);
    site.run(&farm::profile(V4, QUICK, &["port: 8080"; 2], SHOP));
    site.wait_server(0, "up");
    let door = Door::Tcp("127.0.0.1:9480".parse::<SocketAddr>().unwrap());
    until(PATIENCE, || site.try_connect(door).is_ok(), |open| *open).expect("it listens");
    let settings = shipped("prometheus/prometheus.yml").replace("15s", "1s");
    fs::write(site.path("prometheus.yml"), settings).unwrap();
    // As it is shipped, but for the time that an alert waits.
    let rules = shipped("prometheus/homing-alerts.yml");
    let rules: Vec<&str> =
        rules.lines().filter(|line| !line.trim_start().starts_with("for:")).collect();
    fs::write(site.path("homing-alerts.yml"), rules.join("\n")).unwrap();
    let (config, data) = (site.path("prometheus.yml"), site.path("data"));
    let (config, data) = (format!("--config.file={config}"), format!("--storage.tsdb.path={data}"));
    let args = [&*config, &*data, "--web.listen-address=127.0.0.1:9090"];
    let router = site.router();
    let _prometheus = site.start_program(&router, "prometheus", &args, &[]);
    let up = || query(&router, "up{job=\"homing\"}")["data"]["result"][0]["value"][1].clone();
    until(6 * PATIENCE, up, |up| *up == "1")
        .unwrap_or_else(|last| panic!("it scrapes nothing: {last}"));
    // Rates take two scrapes.
    let scrapes = || results(&router, "count_over_time(homing_ready[1m]) >= 3");
    until(6 * PATIENCE, scrapes, |count| *count == 1).expect("three scrapes");
    let dashboard: Value = serde_json::from_str(&shipped("grafana/homing.json")).expect("JSON");
    let all = expressions(&dashboard);
    assert!(all.len() >= 15, "{all:?}");
    for expression in &all {
        assert!(results(&router, expression) > 0, "the dashboard shows nothing for {expression}");
    }
    let errors = results(&router, "scrape_samples_scraped{job=\"homing\"} > 100");
    assert_eq!(errors, 1, "everything was scraped");
    assert_eq!(results(&router, "ALERTS{alertstate=\"firing\"}"), 0, "all is well");
    site.fail(&["cable"], Fault::Silent);
    let firing = || {
        results(
            &router,
            "ALERTS{alertname=\"HomingUplinkDown\",uplink=\"cable\",alertstate=\"firing\"}",
        )
    };
    until(6 * PATIENCE, firing, |count| *count == 1).expect("an alert of the dead line");
}
