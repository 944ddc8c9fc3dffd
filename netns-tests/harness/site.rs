//! A stage with `homing run` in its router.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use homing::lab::{self, Builder, Fault, Namespace, PORTAL, Servers, Stage};
use homing::model::Family;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::program::install;
use super::until;

/// How long anything may take that is not itself under test.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Ports of every server on the internet, in the DMZ and in the LAN.
pub const TCP: [u16; 4] = [80, 443, 5060, 8080];
pub const UDP: [u16; 4] = [53, 80, 443, 5060];

/// A site under test. When it goes, nothing may have leaked; when a test fails, it tells all.
pub struct Site {
    pub stage: Stage,
    pub family: Family,
    _servers: Servers,
    pub dir: PathBuf,
    daemon: Option<Child>,
    /// What stands before `homing` on its command line.
    before: Vec<String>,
    /// The `homing` that is run.
    pub program: String,
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The usual uplinks (5:4:1) and LANs, and more sections.
pub fn profile(more: &str) -> String {
    format!("{}{more}", with_uplinks(&["weight: 5", "weight: 4", "weight: 1"]))
}

/// The usual site, with these keys for fiber, cable and lte.
pub fn with_uplinks(keys: &[&str; 3]) -> String {
    let mut text = "version: 1\nsite: test\nuplinks:\n".to_owned();
    for (index, name) in ["fiber", "cable", "lte"].iter().enumerate() {
        text += &format!("  {name}: {{ interface: wan{index}, {} }}\n", keys[index]);
    }
    text + PROBES + "lans:\n  office: { interface: lan0 }\n  dmz: { interface: dmz0 }\n"
}

/// Two servers of the internet in each family; who comes back is taken at once, and what was lost
/// before is forgotten in a few seconds.
pub const PROBES: &str = "probes:
  default:
    targets:
      - icmp: 203.0.113.10
      - icmp: 203.0.113.20
      - icmp: 2001:db8:ffff::10
      - icmp: 2001:db8:ffff::20
    interval: 250ms
    hold-down: 0s
";

/// One policy for everything.
pub fn one_policy(keys: &str) -> String {
    profile(&format!("policies:\n  - {{ name: default, {keys} }}\n"))
}

impl Site {
    /// The usual site, homing running.
    pub fn start(family: Family, profile: &str) -> Site {
        Site::start_on(family, profile, |builder| builder)
    }

    /// Another site, homing running.
    pub fn start_on(
        family: Family,
        profile: &str,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Site {
        let mut site = Site::prepare(family, change);
        site.run(profile);
        site
    }

    /// A site before homing is started for the first time.
    pub fn prepare(family: Family, change: impl FnOnce(Builder) -> Builder) -> Site {
        let stage = super::stage(change);
        let internet: Vec<IpAddr> = (0..4).map(|i| lab::server(family, i)).collect();
        let servers = Servers::start(
            &stage.layout().internet(),
            &internet,
            &[&TCP[..], &[PORTAL]].concat(),
            &UDP,
        )
        .expect("start the internet's servers");
        let dir = std::env::temp_dir().join(&stage.layout().prefix);
        fs::create_dir_all(&dir).expect("make a temporary directory");
        Site {
            stage,
            family,
            _servers: servers,
            dir,
            daemon: None,
            before: Vec::new(),
            program: homing().to_owned(),
        }
    }

    pub fn router(&self) -> Namespace {
        self.stage.router()
    }

    /// Whether this kernel has flowtables, as nft finds out.
    pub fn has_flowtables(&self) -> bool {
        let script = "add table inet witness\n\
            add flowtable inet witness f { hook ingress priority 0; devices = { lo }; }\n\
            add chain inet witness c { type filter hook forward priority 0; }\n\
            add rule inet witness c ct state established flow add @f\n\
            delete table inet witness\n";
        self.router().nft(script).is_ok()
    }

    pub fn profile_path(&self) -> PathBuf {
        self.dir.join("site.yaml")
    }

    pub fn write_profile(&self, text: &str) {
        fs::write(self.profile_path(), text).expect("write the profile");
    }

    /// Starts `homing run` and waits until it is ready and knows how every uplink answers.
    pub fn run(&mut self, profile: &str) {
        self.write_profile(profile);
        self.run_again();
    }

    /// The same with the profile as it lies there.
    pub fn run_again(&mut self) {
        self.spawn();
        self.wait_ready();
        self.wait_known();
    }

    /// Waits until it knows of each uplink how it answers.
    pub fn wait_known(&self) {
        self.wait_status("every uplink's health is known", |status| {
            let uplinks = status["uplinks"].as_object().into_iter().flat_map(|all| all.values());
            let mut families = uplinks.filter_map(|uplink| uplink["families"].as_object());
            families.all(|of| of.values().all(|one| one["reason"] != "waiting for answers"))
        });
    }

    /// Starts `homing run` with the profile as it lies there, and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "homing runs already");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("open the log");
        let command = || {
            self.program()
                .arg("run")
                .arg(self.profile_path())
                .args(["--runtime-dir", &self.path("run"), "--state-dir", &self.path("state")])
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("share the log"))
                .stderr(log)
                .spawn()
        };
        let child = self.router().enter(command).expect("enter the router");
        self.daemon = Some(child.expect("start homing"));
    }

    fn program(&self) -> Command {
        let Some((first, rest)) = self.before.split_first() else {
            return Command::new(&self.program);
        };
        let mut program = Command::new(first);
        program.args(rest).arg(&self.program);
        program
    }

    /// From the next start on homing is started by this command.
    pub fn run_by(&mut self, command: &[&str]) {
        self.before = command.iter().map(|&word| word.to_owned()).collect();
    }

    /// From the next start on homing has mounts of its own, which this script makes; `$0` is `name`.
    pub fn with_mounts(&mut self, script: &str, name: &str) {
        let script = format!("{script} && exec \"$@\"");
        self.run_by(&["/usr/bin/unshare", "--mount", "sh", "-c", &script, name]);
    }

    /// A file or directory as the process sees it, mounts and all.
    pub fn seen_by_homing(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.path(name)))
    }

    /// From the next start on homing calls an `nft` that obeys [`Site::spoil_nft`].
    pub fn replace_nft(&mut self) {
        let real = self.path("nft.real");
        install("/usr/sbin/nft", &real);
        let spoilt = self.path("nft.spoilt");
        let script = format!("#!/bin/sh\n[ ! -e {spoilt} ] || . {spoilt}\nexec {real} \"$@\"\n");
        let (written, file) = (self.dir.join("nft.written"), self.dir.join("nft"));
        fs::write(&written, script).expect("write a script");
        install(&written, &file);
        let over = "mount --bind \"$0\" \"$(readlink -f /usr/sbin/nft)\"";
        self.with_mounts(over, &file.display().to_string());
    }

    /// What that `nft` does before its work; nothing with `None`.
    pub fn spoil_nft(&self, script: Option<&str>) {
        let file = self.path("nft.spoilt");
        match script {
            Some(script) => fs::write(file, format!("{script}\n")).expect("spoil nft"),
            None => fs::remove_file(file).expect("mend nft"),
        }
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(&mut self) {
        let last = until(
            PATIENCE,
            || (self.homing(&["status", "--json"]), self.running()),
            |(status, running)| !running || status.json()["ready"] == true,
        );
        match last {
            Ok((_, true)) => {}
            Ok((_, false)) => panic!("homing ended instead of being ready:\n{}", self.log()),
            Err((status, _)) => {
                let kernel = &status.json()["kernel"];
                panic!("homing is not ready: {kernel:.2000?}\n{}", self.log())
            }
        }
    }

    /// Whether the process lives.
    pub fn running(&self) -> bool {
        let stat = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let alive = |stat: String| !stat.is_empty() && !stat.contains(") Z ");
        self.daemon.as_ref().is_some_and(|child| alive(stat(child.id())))
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("homing runs").id()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).expect("send a signal");
    }

    /// Sends a signal, and waits for the end of the process; its exit code.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        until(PATIENCE, || self.running(), |running| !running).expect("homing ends");
        let mut child = self.daemon.take().expect("homing ran");
        child.wait().expect("its exit status").code()
    }

    /// Runs a `homing` command in the router, on this site's directories.
    pub fn homing(&self, args: &[&str]) -> Outcome {
        let run = self.path("run");
        let state = self.path("state");
        let mut all = args.to_vec();
        match args.first() {
            Some(&"down" | &"run") => all.extend(["--runtime-dir", &run, "--state-dir", &state]),
            Some(&"check" | &"doctor" | &"plan" | &"schema") => {}
            _ => all.extend(["--runtime-dir", &run]),
        }
        self.command(homing(), &all)
    }

    /// Runs a program in the router, 20 seconds at most.
    pub fn command(&self, program: &str, args: &[&str]) -> Outcome {
        let work = || {
            Command::new("/usr/bin/timeout")
                .args(["-k", "1", "20", program])
                .args(args)
                .stdin(Stdio::null())
                .output()
        };
        let output = self.router().enter(work).expect("enter the router");
        let output = output.expect("start timeout");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Reloads another profile, which must be accepted.
    pub fn reload(&self, profile: &str) {
        self.write_profile(profile);
        let outcome = self.homing(&["reload"]);
        assert_eq!(outcome.code, Some(0), "reload: {outcome:?}\n{profile}");
    }

    pub fn status(&self) -> Value {
        let outcome = self.homing(&["status", "--json"]);
        assert_eq!(outcome.code, Some(0), "status: {outcome:?}");
        outcome.json()
    }

    /// Polls the status until it is right; panics with the last one.
    pub fn wait_status(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, || self.status(), right)
            .unwrap_or_else(|last| panic!("never came true: {what}; last status: {last:#}"))
    }

    /// Waits until an uplink is usable, or is not.
    pub fn wait_usable(&self, uplink: &str, usable: bool) {
        self.wait_status(&format!("{uplink} usable: {usable}"), |status| {
            status["uplinks"][uplink]["usable"] == usable
        });
    }

    /// An uplink's health in the family of this site, and why.
    pub fn health(&self, uplink: &str) -> (String, String) {
        health_in(&self.status(), uplink, self.family)
    }

    /// Waits until an uplink has this health in the family of this site; its reason.
    pub fn wait_health(&self, uplink: &str, health: &str) -> String {
        let status = self.wait_status(&format!("{uplink} is {health}"), |status| {
            health_in(status, uplink, self.family).0 == health
        });
        health_in(&status, uplink, self.family).1
    }

    /// Breaks or mends several lines.
    pub fn fail(&self, uplinks: &[&str], fault: Fault) {
        for uplink in uplinks {
            self.stage.isp(uplink).unwrap().fail(fault).unwrap();
        }
    }

    pub fn heal(&self, uplinks: &[&str]) {
        for uplink in uplinks {
            self.stage.isp(uplink).unwrap().heal().unwrap();
        }
    }

    /// Takes an uplink's carrier away. The moment at which the kernel told of it comes back: it tells
    /// of carriers that are lost at most once a second.
    pub fn lose_carrier(&self, uplink: &str) -> Instant {
        let isp = self.stage.isp(uplink).expect("the ISP");
        isp.fail(Fault::Carrier).expect("fail");
        let device = isp.layout().interface.clone();
        let state = || {
            let shown = self.router().ip_json(&["link", "show", "dev", &device]).expect("ip");
            (shown[0]["operstate"].clone(), Instant::now())
        };
        let told = until(PATIENCE, state, |(state, _)| state != "UP");
        told.expect("the kernel tells of the carrier").1
    }

    /// Waits until `homing plan` finds nothing.
    pub fn wait_settled(&self) {
        let plan = || self.homing(&["plan", &self.path("site.yaml")]).stdout;
        until(2 * PATIENCE, plan, |plan| plan == "# nothing to change\n").expect("settled");
    }

    /// `homing plan` must find nothing.
    pub fn assert_settled(&self) {
        let profile = self.path("site.yaml");
        let outcome = self.homing(&["plan", &profile]);
        assert_eq!(outcome.stdout, "# nothing to change\n", "{outcome:?}");
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> String {
        Path::new(&self.dir).join(name).display().to_string()
    }

    /// What one wants to know when a test has failed.
    fn tell_all(&self) {
        for (program, args) in [
            ("ip", &["rule"][..]),
            ("ip", &["-6", "rule"]),
            ("ip", &["route", "show", "table", "all"]),
            ("ip", &["-6", "route", "show", "table", "all"]),
            ("nft", &["list", "table", "inet", "homing"]),
            ("conntrack", &["-L"]),
            ("conntrack", &["-L", "-f", "ipv6"]),
        ] {
            let outcome = self.command(program, args);
            let text: String =
                outcome.stdout.lines().take(250).map(|l| format!("  {l}\n")).collect();
            eprintln!("--- {program} {}\n{text}", args.join(" "));
        }
        eprintln!("--- homing's log\n{}", self.log());
    }
}

fn health_in(status: &Value, uplink: &str, family: Family) -> (String, String) {
    let of = &status["uplinks"][uplink]["families"][family.as_str()];
    let text = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
    (text("health"), text("reason"))
}

impl Drop for Site {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            self.tell_all();
        }
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
        if !failed && let Err(leaks) = self.stage.check_leaks() {
            panic!("{leaks}");
        }
    }
}

impl Outcome {
    /// Standard output as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }
}

/// The program under test.
pub fn homing() -> &'static str {
    env!("CARGO_BIN_EXE_homing")
}
