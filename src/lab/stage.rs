//! Building a site, changing it, and taking it down.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::capture::{self, Leak};
use super::leftovers::Claim;
use super::tools::{self, Tool};
use super::{Isp, IspLayout, LabError, Layout, Namespace, build};

static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// What to build.
#[derive(Debug, Clone)]
pub struct Builder {
    isps: Vec<IspLayout>,
    hosts: u16,
    inside: bool,
    farm: u8,
    callers: u16,
}

impl Builder {
    /// The usual site: ISPs of these names, numbered from 1, on wan0, wan1, …
    pub fn new(isps: &[&str]) -> Builder {
        let numbered = (1u8..).zip(isps);
        Builder {
            isps: numbered.map(|(number, name)| IspLayout::usual(name, number)).collect(),
            hosts: 64,
            inside: true,
            farm: 0,
            callers: 0,
        }
    }

    /// Changes one ISP before it is built; a name that does not exist changes nothing.
    #[must_use]
    pub fn isp(mut self, name: &str, change: impl FnOnce(&mut IspLayout)) -> Builder {
        if let Some(isp) = self.isps.iter_mut().find(|isp| isp.name == name) {
            change(isp);
        }
        self
    }

    /// How many hosts the LAN has; 64 unless told.
    #[must_use]
    pub fn hosts(mut self, hosts: u16) -> Builder {
        self.hosts = hosts;
        self
    }

    /// How many servers stand in the DMZ, in namespaces of their own (at most 26), and how many
    /// hosts of the internet call them (at most 200); none unless told.
    #[must_use]
    pub fn farm(mut self, servers: u8, callers: u16) -> Builder {
        (self.farm, self.callers) = (servers.min(26), callers.min(200));
        self
    }

    /// Leaves the router without addresses on LAN and DMZ.
    #[must_use]
    pub fn bare_inside(mut self) -> Builder {
        self.inside = false;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// When a tool is missing or the system refuses; nothing is left behind then.
    pub fn build(self) -> Result<Stage, LabError> {
        tools::check()?;
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("hl-{}-{sequence}", std::process::id());
        let stage = Stage {
            claim: Claim::take(&prefix)?,
            own: own_addresses(&self.isps),
            layout: Layout {
                prefix,
                isps: self.isps,
                hosts: self.hosts,
                inside: self.inside,
                farm: self.farm,
                callers: self.callers,
            },
        };
        stage.raise()?;
        stage.wait_going()?;
        Ok(stage)
    }
}

/// A site that stands. Dropping it removes everything.
#[derive(Debug)]
pub struct Stage {
    layout: Layout,
    /// By ISP: the sources that are ours to use there.
    own: BTreeMap<String, Vec<IpNet>>,
    claim: Claim,
}

/// Links are given so long to begin; the kernel sets them going once a second.
const GOING: Duration = Duration::from_secs(3);

impl Stage {
    /// Waits until every link that has carrier is going: before that the kernel drops what it is to
    /// send.
    fn wait_going(&self) -> Result<(), LabError> {
        let begun = Instant::now();
        for space in self.layout.all() {
            while begun.elapsed() < GOING {
                let links = space.ip_json(&["link", "show"])?;
                let waits = |link: &serde_json::Value| {
                    let flags = link["flags"].as_array().into_iter().flatten();
                    let going = ["UP", "UNKNOWN"].iter().any(|state| link["operstate"] == *state);
                    flags.into_iter().any(|flag| flag == "LOWER_UP") && !going
                };
                if !links.as_array().into_iter().flatten().any(waits) {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Its map.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The router's namespace.
    pub fn router(&self) -> Namespace {
        self.layout.router()
    }

    /// One of its ISPs.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn isp(&self, name: &str) -> Result<Isp, LabError> {
        Isp::of(&self.layout, name)
    }

    /// Lets one more source leave by an ISP.
    pub fn allow_source(&mut self, isp: &str, net: IpNet) {
        self.own.entry(isp.to_owned()).or_default().push(net);
    }

    /// Every ISP at which a source was seen that is not ours to use there.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn leaks(&self) -> Result<Vec<Leak>, LabError> {
        let mut leaks = Vec::new();
        for isp in &self.layout.isps {
            let own = self.own.get(&isp.name).map_or(&[][..], Vec::as_slice);
            let allowed = |source: IpAddr| {
                capture::harmless(source) || own.iter().any(|net| net.contains(&source))
            };
            let mut packets = capture::sightings(&self.layout.isp(isp))?;
            packets.retain(|packet| !allowed(packet.source));
            if !packets.is_empty() {
                leaks.push(Leak { isp: isp.name.clone(), packets: packets.into_iter().collect() });
            }
        }
        Ok(leaks)
    }

    /// That nothing leaked so far.
    ///
    /// # Errors
    /// With everything that did.
    pub fn check_leaks(&self) -> Result<(), String> {
        let leaks = self.leaks().map_err(|error| error.to_string())?;
        let lines: Vec<String> = leaks.iter().map(Leak::to_string).collect();
        if lines.is_empty() {
            return Ok(());
        }
        Err(lines.join("\n"))
    }

    /// Deletes the line's interface and makes it again, with another index and as unconfigured as
    /// a new one; then what a DHCP client would do, if `configured`.
    ///
    /// # Errors
    /// When a tool refuses.
    pub fn recreate_line(&self, name: &str, configured: bool) -> Result<(), LabError> {
        self.delete_line(name)?;
        self.create_line(name, configured)
    }

    /// Deletes the line's interface.
    ///
    /// # Errors
    /// When a tool refuses.
    pub fn delete_line(&self, name: &str) -> Result<(), LabError> {
        let isp = self.layout.find(name)?;
        self.router().ip(&[format!("link del {}", isp.interface)])
    }

    /// Makes the line's interface.
    ///
    /// # Errors
    /// When a tool refuses, because it is there for example.
    pub fn create_line(&self, name: &str, configured: bool) -> Result<(), LabError> {
        let isp = self.layout.find(name)?;
        let line = build::line_wire(&self.layout, isp);
        tools::feed(Tool::Ip, &["-batch", "-"], &line)?;
        self.layout.isp(isp).ip(&build::isp_line(isp))?;
        let wanted = IspLayout { configured, ..isp.clone() };
        self.router().ip(&build::router_line(&wanted))
    }

    /// The ISP gives us other addresses: gateway and customer as in `change`. Router and ISP change
    /// as with a new lease, the old addresses first removed. What is on its way may still bear an
    /// old one, until [`Stage::forget_old_addresses`].
    ///
    /// # Errors
    /// With a leak up to now, or when a tool refuses.
    pub fn renumber(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut IspLayout),
    ) -> Result<(), LabError> {
        let old = self.layout.find(name)?.clone();
        let mut new = old.clone();
        change(&mut new);
        let space = self.layout.isp(&old);
        space.ip(&["addr flush dev cust".to_owned()])?;
        space.ip(&build::isp_line(&new))?;
        self.layout.internet().ip(&build::way_back(&new))?;
        let mut lines = vec![format!("addr flush dev {} scope global", old.interface)];
        lines.extend(build::router_addresses(&new));
        self.router().ip(&lines)?;
        self.router().try_ip(&build::router_defaults(&new))?;
        self.own.entry(new.name.clone()).or_default().extend(own(&new));
        for isp in &mut self.layout.isps {
            if isp.name == new.name {
                *isp = new.clone();
            }
        }
        Ok(())
    }

    /// From now on only an ISP's present addresses are ours. What was seen until now is checked and
    /// forgotten.
    ///
    /// # Errors
    /// With a leak up to now, or when a tool refuses.
    pub fn forget_old_addresses(&mut self, name: &str) -> Result<(), LabError> {
        self.check_leaks().map_err(LabError::Running)?;
        let isp = self.layout.find(name)?.clone();
        capture::forget(&self.layout.isp(&isp))?;
        self.own.insert(isp.name.clone(), own(&isp));
        Ok(())
    }

    fn raise(&self) -> Result<(), LabError> {
        let (spaces, links) = build::wires(&self.layout);
        tools::feed(Tool::Ip, &["-batch", "-"], &spaces.join("\n"))?;
        for ns in self.layout.all() {
            ns.sysctl(&build::SYSCTLS)?;
        }
        let isps = self.layout.isps.iter().map(|isp| self.layout.isp(isp));
        for ns in isps.chain([self.layout.internet()]) {
            ns.sysctl(&build::ROUTER_SYSCTLS)?;
        }
        tools::feed(Tool::Ip, &["-batch", "-"], &links.join("\n"))?;
        self.furnish()
    }

    /// Everything inside the namespaces, side by side; the router last, when the far ends are up.
    fn furnish(&self) -> Result<(), LabError> {
        let layout = &self.layout;
        thread::scope(|scope| {
            let mut work = vec![
                scope.spawn(|| layout.internet().ip(&build::internet(layout))),
                scope.spawn(|| layout.lan().ip(&build::lan(layout))),
                scope.spawn(|| layout.dmz().ip(&build::dmz(layout))),
            ];
            for index in 0..layout.farm {
                let space = layout.farm_space(index);
                work.push(scope.spawn(move || space.ip(&build::farm_server(index))));
            }
            for isp in &layout.isps {
                work.push(scope.spawn(|| {
                    let space = layout.isp(isp);
                    let mut lines = build::isp_core(isp);
                    lines.extend(build::isp_line(isp));
                    space.ip(&lines)?;
                    space.nft(capture::SCRIPT)
                }));
            }
            work.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        layout.router().ip(&build::router(layout))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.claim.remove_site();
    }
}

fn own_addresses(isps: &[IspLayout]) -> BTreeMap<String, Vec<IpNet>> {
    isps.iter().map(|isp| (isp.name.clone(), own(isp))).collect()
}

fn own(isp: &IspLayout) -> Vec<IpNet> {
    use crate::model::Family;
    let addresses = Family::BOTH.map(|family| IpNet::from(isp.customer(family)));
    addresses.into_iter().chain(isp.prefixes.iter().copied()).collect()
}
