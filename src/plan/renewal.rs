//! Bindings under live sessions: which must be renewed, and for how long.
//!
//! The packet path renews a binding at each new session. Between those, its idle time counts from
//! the last packet of any of its sessions, which only a walk over the sessions can tell.

use std::net::IpAddr;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;

use super::inbound::{Directory, ESP, udp_seconds};
use super::nft::{BindingKey, key_of, names};
use super::{Layout, View};
use crate::kstate::Bytes;
use crate::model::{
    Family, Mark, MarkLayout, Persistence, PersistenceKey, PersistenceMode, Service,
};

/// The IANA number of UDP.
const UDP: u8 = 17;

/// A binding gains at least this much, or it is left alone: an entry's remaining time is known to
/// the second only.
const LEAST_GAIN: Duration = Duration::from_millis(1500);

/// Under sessions that a flowtable carries, a binding gains at least this part of its time: they are
/// looked at often, and it is exact when they have left the flowtable.
const LAZY_GAIN: u32 = 60;

/// A session, as far as bindings care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// As the client sent it: from,
    pub source: IpAddr,
    /// and to.
    pub destination: IpAddr,
    /// The IANA number of its protocol.
    pub protocol: u8,
    /// The port that it went to.
    pub port: u16,
    /// All bits of its mark.
    pub mark: Mark,
    /// Since its last packet.
    pub idle: Duration,
    /// A flowtable carries it, and would let go of it if it were idle for long.
    pub carried: bool,
}

/// A binding as the kernel has it. `uplink` is what it leads to: of a service, its server's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// Its key.
    pub key: Bytes,
    /// The mark of its uplink.
    pub uplink: Mark,
    /// What is left of its time.
    pub left: Duration,
}

/// The bindings of one policy and family.
#[derive(Debug)]
pub struct LearnedMap {
    /// The map's name.
    pub name: String,
    /// A binding's time.
    pub timeout: Duration,
    by: By,
    bindings: HashMap<BindingKey, Bound>,
}

/// What makes a key of a session.
#[derive(Debug)]
enum By {
    /// A policy's key.
    Policy(PersistenceKey),
    /// The client, with so long a prefix.
    Client(u8),
}

#[derive(Debug)]
struct Bound {
    uplink: Mark,
    left: Duration,
    idle: Option<Duration>,
    carried: bool,
}

/// All bindings of a site, while its sessions pass by.
#[derive(Debug)]
pub struct Renewals<'a> {
    marks: MarkLayout,
    maps: HashMap<(Mark, Family), LearnedMap>,
    served: HashMap<String, LearnedMap>,
    directory: Option<Directory<'a>>,
    any_lasts: bool,
}

/// How often to look so that no binding ends early: a third of the shortest time. `None` when nobody
/// binds.
pub fn renewal_period(layout: &Layout) -> Option<Duration> {
    let policies = layout.policies.iter().filter_map(|policy| match policy.persistence {
        Persistence::By { timeout, .. } => Some(timeout),
        Persistence::None => None,
    });
    let binds = |service: &&Service| {
        !matches!(service.persistence.mode, PersistenceMode::Tcp | PersistenceMode::Ip)
    };
    let services = layout.site.services.iter().filter(binds);
    let services = services.filter_map(|service| service.persistence.timeout);
    policies.chain(services).min().map(|timeout| timeout / 3)
}

impl<'a> Renewals<'a> {
    /// The maps of a site, still empty. `view` tells where its services are.
    pub fn new(layout: &'a Layout, view: &View) -> Renewals<'a> {
        let mut maps = HashMap::new();
        for (policy, id) in layout.policies() {
            let Persistence::By { key: by, timeout } = policy.persistence else { continue };
            for family in Family::BOTH {
                let name = names::bindings(family, &policy.name);
                let by = By::Policy(by);
                let map = LearnedMap { name, timeout, by, bindings: HashMap::new() };
                maps.insert((layout.policy_mark(id), family), map);
            }
        }
        let directory = Directory::new(layout, view);
        let mut served = HashMap::new();
        for bound in Family::BOTH
            .into_iter()
            .flat_map(|family| directory.entrances(family))
            .filter_map(|entrance| entrance.bound.as_ref())
        {
            let (name, timeout, by) = (bound.map.clone(), bound.timeout, By::Client(bound.mask));
            let map = LearnedMap { name: name.clone(), timeout, by, bindings: HashMap::new() };
            served.insert(name, map);
        }
        let any_lasts = layout.site.services.iter().any(|service| udp_seconds(service).is_some());
        let directory = (any_lasts || !served.is_empty()).then_some(directory);
        Renewals { marks: layout.site.marks, maps, served, directory, any_lasts }
    }

    /// The maps, to be filled with what the kernel holds.
    pub fn maps_mut(&mut self) -> impl Iterator<Item = &mut LearnedMap> {
        self.maps.values_mut().chain(self.served.values_mut())
    }

    /// Whether there is anything to renew.
    pub fn is_empty(&self) -> bool {
        self.maps.values().chain(self.served.values()).all(|map| map.bindings.is_empty())
    }

    /// Whether some service says how long its UDP sessions last.
    pub fn any_lasts(&self) -> bool {
        self.any_lasts
    }

    /// How long a UDP session of a service lasts without a packet, if the service says.
    pub fn lasts(&self, live: &Live) -> Option<Duration> {
        if live.protocol != UDP || live.mark.0 & self.marks.server.0 == 0 {
            return None;
        }
        let directory = self.directory.as_ref()?;
        let entrance = directory.find(live.destination, live.protocol, live.port)?;
        entrance.udp_seconds().map(Duration::from_secs)
    }

    /// The binding that a session shows: its map, and what it would be there.
    pub fn shown_by(&self, live: &Live) -> Option<(&str, Learned)> {
        let bits = |mask: crate::model::MarkMask| Mark(live.mark.0 & mask.0);
        let server = bits(self.marks.server);
        let (map, member) = if server.0 == 0 {
            let (policy, uplink) = (bits(self.marks.policy), bits(self.marks.uplink));
            (self.maps.get(&(policy, Family::of(live.source)))?, uplink)
        } else {
            let directory = self.directory.as_ref()?;
            let entrance = directory.find(live.destination, live.protocol, live.port)?;
            // ESP shows what was learned elsewhere.
            let bound = entrance.bound.as_ref().filter(|_| live.protocol != ESP)?;
            (self.served.get(&bound.map)?, server)
        };
        let left = map.timeout.checked_sub(live.idle).filter(|left| !left.is_zero())?;
        let key = Bytes::from_slice(map.by.key(live)?.as_slice());
        (member.0 != 0).then_some((map.name.as_str(), Learned { key, uplink: member, left }))
    }

    /// A session passes by. Whether it has to begin anew, as its client is bound to another server:
    /// ESP knows no sessions, so it would go for as long as it flows where a hash once said, before
    /// the key exchange.
    pub fn see(&mut self, live: &Live) -> bool {
        let policy = Mark(live.mark.0 & self.marks.policy.0);
        let uplink = Mark(live.mark.0 & self.marks.uplink.0);
        let server = Mark(live.mark.0 & self.marks.server.0);
        if server.0 != 0 {
            return self.see_served(live, server);
        }
        if policy.0 == 0 || uplink.0 == 0 {
            return false;
        }
        let family = Family::of(live.source);
        if let Some(map) = self.maps.get_mut(&(policy, family)) {
            map.see(live, uplink);
        }
        false
    }

    /// The session of a service holds the binding of its client, at the address and port it went to.
    fn see_served(&mut self, live: &Live, server: Mark) -> bool {
        let Some(directory) = &self.directory else { return false };
        let entrance = directory.find(live.destination, live.protocol, live.port);
        let bound = entrance.and_then(|entrance| entrance.bound.as_ref());
        let map = bound.and_then(|bound| self.served.get_mut(&bound.map));
        let led = map.and_then(|map| map.see(live, server));
        live.protocol == ESP && led.is_some_and(|led| led != server)
    }
}

impl By {
    fn key(&self, live: &Live) -> Option<BindingKey> {
        match self {
            By::Policy(key) => key_of(*key, live.source, live.destination),
            By::Client(mask) => {
                let net = IpNet::new(live.source, *mask).ok()?;
                key_of(PersistenceKey::Source, net.network(), live.destination)
            }
        }
    }
}

impl LearnedMap {
    /// A session passes by that is with this member. One that kept another member than the binding
    /// has now does not hold it. Where the binding leads, if there is one.
    fn see(&mut self, live: &Live, member: Mark) -> Option<Mark> {
        let bound = self.bindings.get_mut(&self.by.key(live)?)?;
        if bound.uplink == member && live.carried {
            bound.carried = true;
        } else if bound.uplink == member {
            bound.idle = Some(bound.idle.map_or(live.idle, |idle| idle.min(live.idle)));
        }
        Some(bound.uplink)
    }

    /// Takes in what the kernel holds.
    pub fn fill(&mut self, learned: impl IntoIterator<Item = Learned>) {
        let bound = |l: Learned| {
            let key = BindingKey::new(&[&l.key])?;
            Some((key, Bound { uplink: l.uplink, left: l.left, idle: None, carried: false }))
        };
        self.bindings.extend(learned.into_iter().filter_map(bound));
    }

    /// Those to renew, each with the time that it then has.
    pub fn due(&self) -> Vec<Learned> {
        let least = LEAST_GAIN.min(self.timeout / 12);
        let due = |(key, bound): (&BindingKey, &Bound)| {
            let lazy = least.max(self.timeout / LAZY_GAIN);
            let carried = bound.carried && self.timeout >= bound.left + lazy;
            let idle = if carried { Duration::ZERO } else { bound.idle? };
            let left = self.timeout.checked_sub(idle)?;
            let gains = left >= bound.left + least;
            let key = Bytes::from_slice(key.as_slice());
            gains.then_some(Learned { key, uplink: bound.uplink, left })
        };
        self.bindings.iter().filter_map(due).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

    use super::*;
    use crate::plan::Remembered;
    use crate::profile;

    const PROFILE: &str = "
version: 1
site: test
uplinks:
  fiber: { interface: wan0, id: 1 }
  cable: { interface: wan1, id: 2 }
lans: { office: { interface: lan0 } }
policies:
  - { name: pairs, match: { ports: [53] }, persistence: { by: source-destination, timeout: 30s } }
  - { name: clients, persistence: { by: source, timeout: 60s } }
";

    const FIBER: Mark = Mark(0x0100);
    const CABLE: Mark = Mark(0x0200);

    fn layout() -> Layout {
        let loaded = profile::load_bytes(PROFILE.as_bytes());
        Layout::new(loaded.site.expect("a right profile"), &Remembered::default())
    }

    fn policy(layout: &Layout, name: &str) -> Mark {
        let (_, id) = layout.policies().find(|(p, _)| p.name.as_str() == name).unwrap();
        layout.policy_mark(id)
    }

    fn live(mark: u32, source: &str, idle: u64) -> Live {
        let source: IpAddr = source.parse().unwrap();
        let destination = match Family::of(source) {
            Family::V4 => "203.0.113.9",
            Family::V6 => "2001:db8::9",
        };
        Live {
            source,
            destination: destination.parse().unwrap(),
            protocol: 6,
            port: 80,
            mark: Mark(mark),
            idle: Duration::from_secs(idle),
            carried: false,
        }
    }

    /// One binding of `source` to fiber, with 10 s left.
    fn bound(renewals: &mut Renewals<'_>, map: &str, source: &str) {
        let session = live(0, source, 0);
        let map = renewals.maps_mut().find(|m| m.name == map).unwrap();
        let key = map.by.key(&session).unwrap();
        let key = Bytes::from_slice(key.as_slice());
        map.fill([Learned { key, uplink: FIBER, left: Duration::from_secs(10) }]);
    }

    fn due(renewals: &mut Renewals<'_>, map: &str) -> Vec<u64> {
        let map = renewals.maps_mut().find(|m| m.name == map).unwrap();
        map.due().iter().map(|due| due.left.as_secs()).collect()
    }

    #[test]
    fn a_binding_is_given_what_its_latest_packet_earned() {
        let layout = layout();
        for (family, source) in [("4", "192.0.2.1"), ("6", "2001:db8::1")] {
            for (name, time) in [("clients", 60), ("pairs", 30)] {
                let map = format!("bind{family}-{name}");
                let mark = policy(&layout, name).0 | FIBER.0;
                let mut renewals = Renewals::new(&layout, &View::default());
                bound(&mut renewals, &map, source);
                assert!(due(&mut renewals, &map).is_empty(), "without a session");
                renewals.see(&live(mark, source, 12));
                renewals.see(&live(mark, source, 5));
                renewals.see(&live(mark, source, 50));
                assert_eq!(due(&mut renewals, &map), [time - 5], "{map}");
            }
        }
    }

    #[test]
    fn what_does_not_hold_a_binding_leaves_it_alone() {
        let layout = layout();
        let clients = policy(&layout, "clients").0;
        let others = [
            ("another uplink", live(clients | CABLE.0, "192.0.2.1", 0)),
            ("another policy", live(policy(&layout, "pairs").0 | FIBER.0, "192.0.2.1", 0)),
            ("no policy", live(FIBER.0, "192.0.2.1", 0)),
            ("no uplink", live(clients, "192.0.2.1", 0)),
            ("another client", live(clients | FIBER.0, "192.0.2.2", 0)),
            ("idle for longer than its time", live(clients | FIBER.0, "192.0.2.1", 61)),
            ("nothing to gain", live(clients | FIBER.0, "192.0.2.1", 50)),
        ];
        for (what, session) in others {
            let mut renewals = Renewals::new(&layout, &View::default());
            bound(&mut renewals, "bind4-clients", "192.0.2.1");
            renewals.see(&session);
            assert!(due(&mut renewals, "bind4-clients").is_empty(), "{what}");
        }
    }

    #[test]
    fn a_binding_is_kept_under_carried_sessions_and_is_exact_afterwards() {
        let layout = layout();
        let mark = policy(&layout, "clients").0 | FIBER.0;
        let carried = Live { carried: true, ..live(mark, "192.0.2.1", 0) };
        let map = "bind4-clients";
        let mut renewals = Renewals::new(&layout, &View::default());
        bound(&mut renewals, map, "192.0.2.1");
        renewals.see(&carried);
        renewals.see(&live(mark, "192.0.2.1", 40));
        assert_eq!(due(&mut renewals, map), [60]);
        // With nearly all of its time it is left alone.
        let almost = |renewals: &mut Renewals<'_>| {
            let map = renewals.maps_mut().find(|m| m.name == map).unwrap();
            map.bindings.values_mut().for_each(|one| one.left = Duration::from_millis(58_700));
        };
        almost(&mut renewals);
        assert!(due(&mut renewals, map).is_empty());
        // And a session that met the rules again says how long ago.
        let mut renewals = Renewals::new(&layout, &View::default());
        bound(&mut renewals, map, "192.0.2.1");
        renewals.see(&live(mark, "192.0.2.1", 30));
        assert_eq!(due(&mut renewals, map), [30]);
    }

    #[test]
    fn sweeps_come_at_a_third_of_the_shortest_time() {
        assert_eq!(renewal_period(&layout()), Some(Duration::from_secs(10)));
    }
}
