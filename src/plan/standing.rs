//! What is known of uplinks beside what the kernel shows: how they answer, and what people want of
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use litemap::LiteMap;

use crate::health::Health;
use crate::model::{Family, Name};

/// What people want of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Admin {
    /// It takes part.
    #[default]
    Enabled,
    /// No new sessions, but of those that are bound to it; sessions go on.
    Draining,
    /// No sessions at all.
    Disabled,
}

impl Admin {
    /// The wish of that name.
    pub fn parse(text: &str) -> Option<Admin> {
        let all = [Admin::Enabled, Admin::Draining, Admin::Disabled];
        all.into_iter().find(|admin| admin.as_str() == text)
    }

    /// What the order of that name leads to.
    pub fn ordered(verb: &str) -> Option<Admin> {
        match verb {
            "drain" => Some(Admin::Draining),
            "disable" => Some(Admin::Disabled),
            "enable" => Some(Admin::Enabled),
            _ => None,
        }
    }

    /// As `status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Admin::Enabled => "enabled",
            Admin::Draining => "draining",
            Admin::Disabled => "disabled",
        }
    }
}

/// How an uplink answers, in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How well.
    pub health: Health,
    /// Why it is said so, in plain words; empty when all is well.
    pub reason: String,
}

/// How one server answers, and what people want of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStanding {
    /// How well.
    pub health: Health,
    /// It answers ICMP alone, and what it is there for is not checked.
    pub unchecked: bool,
    /// Why it is said so, in plain words; empty when all is well.
    pub reason: String,
    /// What people want of it.
    pub admin: Admin,
    /// How much of its weight it gets, in thousandths: less after a recovery.
    pub ramp: u16,
    /// Slots by what is measured, where its group chooses by that.
    pub slots: Option<u16>,
}

impl Default for ServerStanding {
    fn default() -> ServerStanding {
        ServerStanding {
            health: Health::Unknown,
            unchecked: false,
            reason: String::new(),
            admin: Admin::Enabled,
            ramp: ServerStanding::WHOLE,
            slots: None,
        }
    }
}

impl ServerStanding {
    /// A ramp that is over.
    pub const WHOLE: u16 = 1000;

    /// As `status` shows it.
    pub fn shown(&self) -> &'static str {
        match self.health {
            Health::Up | Health::Degraded if self.unchecked => "unchecked",
            health => health.as_str(),
        }
    }

    /// Its health as far as new sessions are concerned.
    pub fn eligible(&self) -> Health {
        if self.admin == Admin::Enabled { self.health } else { Health::Down }
    }
}

/// How the servers of one group answer.
pub type GroupStanding = LiteMap<Name, ServerStanding>;

/// How all of them answer. Of one that is left out nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings {
    /// How they answer.
    pub answers: BTreeMap<Name, BTreeMap<Family, Standing>>,
    /// What people want, where it is not the usual.
    pub admin: BTreeMap<Name, Admin>,
    /// Slot tables that are dealt by what is measured.
    pub dealt: BTreeMap<String, Dealt>,
    /// Servers, by group. A group that changes is another one.
    pub groups: Arc<BTreeMap<Name, Arc<GroupStanding>>>,
}

/// What measuring made of a slot table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    /// Number of the uplink → slots.
    pub counts: BTreeMap<u8, usize>,
    /// The figures, in plain words.
    pub why: String,
}

impl Standings {
    /// How well an uplink answers.
    pub fn health(&self, uplink: &Name, family: Family) -> Health {
        self.of(uplink, family).map_or(Health::Unknown, |standing| standing.health)
    }

    /// What is said of it, if anything is known.
    pub fn of(&self, uplink: &Name, family: Family) -> Option<&Standing> {
        self.answers.get(uplink)?.get(&family)
    }

    /// Whether new sessions go the same ways, as far as this decides.
    pub fn steers_like(&self, other: &Standings) -> bool {
        let health = |standings: &Standings| -> Vec<Health> {
            let families = standings.answers.values();
            families.flat_map(|all| all.values().map(|one| one.health)).collect()
        };
        self.admin == other.admin && health(self) == health(other)
    }

    /// Whether the same is to be remembered of servers: how well they answer, and what people want.
    pub fn remembers_like(&self, other: &Standings) -> bool {
        let same = |one: &GroupStanding, other: &GroupStanding| {
            one.len() == other.len()
                && one.iter().all(|(name, standing)| {
                    let with = |other: &ServerStanding| {
                        (other.health, other.admin) == (standing.health, standing.admin)
                    };
                    other.get(name).is_some_and(with)
                })
        };
        Arc::ptr_eq(&self.groups, &other.groups)
            || self.groups.len() == other.groups.len()
                && self.groups.iter().all(|(name, group)| {
                    let with = |other: &Arc<GroupStanding>| {
                        Arc::ptr_eq(group, other) || same(group, other)
                    };
                    other.groups.get(name).is_some_and(with)
                })
    }

    /// How a server answers.
    pub fn server(&self, group: &Name, server: &Name) -> ServerStanding {
        let known = self.groups.get(group).and_then(|servers| servers.get(server));
        known.cloned().unwrap_or_default()
    }

    /// Whether measuring deals the same slots.
    pub fn deals_like(&self, other: &Standings) -> bool {
        let counts = |standings: &Standings| -> Vec<(String, BTreeMap<u8, usize>)> {
            let dealt = standings.dealt.iter();
            dealt.map(|(map, dealt)| (map.clone(), dealt.counts.clone())).collect()
        };
        counts(self) == counts(other)
    }

    /// What people want of it.
    pub fn admin(&self, uplink: &Name) -> Admin {
        self.admin.get(uplink).copied().unwrap_or_default()
    }
}
