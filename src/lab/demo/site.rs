//! The demo's site: stage, servers, homing, traffic.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Demo;
use super::doors::{self, CALLERS, FARM, Ports};
use super::register::Claim;
use super::traffic::{self, Traffic};
use super::view::{self, View};
use crate::lab::{
    Arrival, Builder, LabError, PORTAL, Protocol, Servers, Stage, dmz_router, farm_address,
    farm_name, server,
};
use crate::model::{Family, Gateway, Site};
use crate::profile;

/// The shipped profile.
const PROFILE: &str = include_str!("../../../profiles/lab.yaml");

/// How long homing may take to become ready, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that runs. It ends in the order of its fields.
pub(super) struct DemoSite {
    traffic: Traffic,
    homing: Homing,
    servers: Servers,
    farm: Vec<Servers>,
    view: View,
    stage: Stage,
    claim: Claim,
}

impl DemoSite {
    /// Builds it and waits until homing is ready.
    pub(super) fn build(demo: &Demo, claim: Claim) -> Result<DemoSite, LabError> {
        let (text, site) = read_profile(demo.profile.as_deref())?;
        let stage = builder(&site)?.build()?;
        let addresses: Vec<IpAddr> = Family::BOTH
            .iter()
            .flat_map(|&family| (0..4).map(move |index| server(family, index)))
            .collect();
        let internet = stage.layout().internet();
        let ports = [&traffic::TCP[..], &[PORTAL]].concat();
        let servers = Servers::start(&internet, &addresses, &ports, &traffic::UDP)?;
        let farm = start_farm(&stage, &doors::ports(&site))?;
        let homing = Homing::start(&stage, &claim.dir(), &text)?;
        claim.publish(stage.layout(), &homing.runtime_dir())?;
        Ok(DemoSite {
            traffic: Traffic::start(stage.layout(), doors::doors(&site, stage.layout())),
            homing,
            servers,
            farm,
            view: View::default(),
            stage,
            claim,
        })
    }

    /// That homing still runs.
    pub(super) fn check_homing(&mut self) -> Result<(), LabError> {
        self.homing.check()
    }

    /// What goes where now.
    pub(super) fn table(&mut self) -> String {
        let status = self.homing.status(&self.stage).unwrap_or_default();
        let arrivals = connections(&self.servers);
        let faults = self.claim.read().map(|r| r.faults().clone()).unwrap_or_default();
        let moment = view::Moment {
            layout: self.stage.layout(),
            status: &status,
            arrivals: &arrivals,
            served: &self.farm.iter().map(served).collect::<Vec<_>>(),
            faults: &faults,
            traffic: self.traffic.tally(),
        };
        self.view.draw(&moment)
    }
}

/// TCP connections of the office by source address.
fn connections(servers: &Servers) -> BTreeMap<IpAddr, u64> {
    let mut sources = BTreeMap::new();
    for (arrival, count) in servers.arrivals() {
        let called = traffic::calls(arrival.protocol, arrival.server);
        if called && arrival.protocol == Protocol::Tcp {
            *sources.entry(arrival.source).or_default() += count;
        }
    }
    sources
}

/// TCP connections that came to a server of the DMZ; homing's checks are none.
fn served(servers: &Servers) -> u64 {
    let checks = Family::BOTH.map(dmz_router);
    let counts = |a: &Arrival| a.protocol == Protocol::Tcp && !checks.contains(&a.source);
    let arrivals = servers.arrivals().into_iter().filter(|(arrival, _)| counts(arrival));
    arrivals.map(|(_, count)| count).sum()
}

/// The DMZ's servers, each in its namespace.
fn start_farm(stage: &Stage, ports: &Ports) -> Result<Vec<Servers>, LabError> {
    let layout = stage.layout();
    let start = |index| {
        let addresses = Family::BOTH.map(|family| farm_address(family, index));
        let space = layout.farm_space(index);
        Servers::start_named(&farm_name(index), &space, &addresses, &ports.tcp, &ports.udp)
    };
    (0..layout.farm).map(start).collect()
}

/// A `homing run` of our own program.
struct Homing {
    child: Child,
    dir: PathBuf,
}

impl Homing {
    fn start(stage: &Stage, dir: &Path, profile: &str) -> Result<Homing, LabError> {
        let path = dir.join("site.yaml");
        fs::write(&path, profile).map_err(LabError::system("write the profile"))?;
        let log = File::create(dir.join("log")).map_err(LabError::system("write the log"))?;
        let program = std::env::current_exe().map_err(LabError::system("find our program"))?;
        let spawn = || {
            use std::os::unix::process::CommandExt;
            Command::new(program)
                .arg("run")
                .arg(&path)
                .arg("--runtime-dir")
                .arg(dir.join("run"))
                .arg("--state-dir")
                .arg(dir.join("state"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                // Ctrl-C is for us: homing ends when the site does.
                .process_group(0)
                .spawn()
        };
        let child = stage.router().enter(spawn)?;
        let child = child.map_err(LabError::system("start homing"))?;
        let mut homing = Homing { child, dir: dir.to_owned() };
        homing.wait_ready(stage)?;
        Ok(homing)
    }

    fn runtime_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn wait_ready(&mut self, stage: &Stage) -> Result<(), LabError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.check()?;
            if self.status(stage).is_some_and(|status| status["ready"] == true) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(self.trouble("homing did not become ready"))
    }

    fn check(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.trouble("homing ended")),
        }
    }

    fn status(&self, stage: &Stage) -> Option<Value> {
        let program = std::env::current_exe().ok()?;
        let runtime_dir = self.runtime_dir();
        let args = ["status", "--json", "--runtime-dir", runtime_dir.to_str()?];
        let output = stage.router().output(program.to_str()?, &args).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What happened, with the last lines of homing's log.
    fn trouble(&self, what: &str) -> LabError {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n");
        LabError::Running(format!("{what}; its last words:\n{tail}"))
    }
}

impl Drop for Homing {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read_profile(path: Option<&Path>) -> Result<(String, Site), LabError> {
    let text = match path {
        None => PROFILE.to_owned(),
        Some(path) => {
            let what = format!("read {}", path.display());
            fs::read_to_string(path).map_err(LabError::system(what))?
        }
    };
    let name = path.map_or_else(|| "profiles/lab.yaml".into(), |p| p.display().to_string());
    let loaded = profile::load(&text);
    match loaded.site {
        Some(site) => Ok((text, site)),
        None => Err(LabError::Running(profile::render(&loaded.findings, &name, &text))),
    }
}

/// A stage with the profile's uplinks: the lab is their ISPs.
fn builder(site: &Site) -> Result<Builder, LabError> {
    let names: Vec<&str> = site.uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
    if names.len() > 9 {
        return Err(LabError::Running("the lab has room for nine uplinks".to_owned()));
    }
    if let Some(lan) =
        site.lans.iter().find(|lan| !["lan0", "dmz0"].contains(&lan.interface.as_str()))
    {
        return Err(LabError::Running(format!(
            "the lab's router has lan0 and dmz0: `lans.{}.interface` is {}",
            lan.name, lan.interface
        )));
    }
    let fixed = |uplink: &&crate::model::Uplink| {
        Family::BOTH.iter().any(|&family| *uplink.gateway_of(family) != Gateway::Auto)
    };
    if let Some(uplink) = site.uplinks.iter().find(fixed) {
        return Err(LabError::Running(format!(
            "the lab gives gateways out itself: leave `uplinks.{}.gateway` and `gateway6` on auto",
            uplink.name
        )));
    }
    doors::check(site)?;
    let (farm, callers) = if site.groups.is_empty() { (0, 0) } else { (FARM, CALLERS) };
    let plain = Builder::new(&names).farm(farm, callers);
    Ok(site.uplinks.iter().fold(plain, |builder, uplink| {
        builder.isp(uplink.name.as_str(), |isp| {
            isp.interface = uplink.interface.to_string();
            isp.prefixes.clone_from(&uplink.prefixes);
        })
    }))
}
