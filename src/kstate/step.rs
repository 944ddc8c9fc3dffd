//! One operation on the kernel, and what it does to a [`KernelState`].

use std::fmt;
use std::sync::Arc;

use super::{
    Bytes, Chain, Declared, ElementData, Elements, Flowtable, KernelState, Object, OwnAddress,
    Role, Route, RouteKind, Rule, RuleAction, Set, SetShape, SysctlKey, TABLE_NAME,
};

/// One step of a change set. "Exists already" and "gone already" count as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Set a kernel setting.
    SetSysctl(SysctlKey, String),
    /// Take an address.
    AddAddress(OwnAddress),
    /// Give an address up.
    DeleteAddress(OwnAddress),
    /// Add a route.
    AddRoute(Route),
    /// Delete a route.
    DeleteRoute(Route),
    /// Add a rule.
    AddRule(Rule),
    /// Delete a rule.
    DeleteRule(Rule),
    /// One nft transaction: all of it, or nothing.
    Nft(Vec<NftOp>),
}

/// One statement of an nft transaction on the table `inet homing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NftOp {
    /// Make the table, if it is not there.
    AddTable,
    /// Remove the table and all that is in it, if it is there.
    DeleteTable,
    /// Make a set or map (without elements).
    AddSet {
        /// Its name.
        name: String,
        /// `set` or `map` and the declaration follow from these.
        shape: SetShape,
        /// What stands between the braces.
        declaration: Declared,
        /// Whose elements it holds.
        role: Role,
    },
    /// Remove a set or map.
    DeleteSet(String),
    /// Add elements.
    AddElements {
        /// The set.
        set: String,
        /// How to write them.
        shape: SetShape,
        /// Which.
        elements: Elements,
    },
    /// Delete elements (the data is shown, the key decides).
    DeleteElements {
        /// The set.
        set: String,
        /// How to write them.
        shape: SetShape,
        /// Which.
        elements: Elements,
    },
    /// Make an object that rules name.
    AddObject(Object),
    /// Remove an object (no rule may name it).
    DeleteObject(Object),
    /// Make a flowtable.
    AddFlowtable(String, Flowtable),
    /// Remove a flowtable (no rule may name it): its sessions go by the rules again.
    DeleteFlowtable(String),
    /// Make a chain.
    AddChain {
        /// Its name.
        name: String,
        /// Hook, priority and policy, or nothing.
        declaration: Declared,
    },
    /// Remove a chain (it must be empty and not referred to).
    DeleteChain(String),
    /// Remove the rules of a chain.
    FlushChain(String),
    /// Append a rule to a chain.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Declared,
    },
}

impl KernelState {
    /// What the state is after a step: the model of the kernel that the fake and the property
    /// tests use.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::SetSysctl(key, value) => {
                self.sysctls.insert(key.clone(), value.clone());
            }
            Step::AddAddress(address) => {
                self.addresses.insert(address.clone());
            }
            Step::DeleteAddress(address) => {
                self.addresses.remove(address);
            }
            Step::AddRoute(route) => {
                self.routes.insert(route.clone());
            }
            Step::DeleteRoute(route) => {
                self.routes.remove(route);
            }
            Step::AddRule(rule) => {
                self.rules.insert(rule.clone());
            }
            Step::DeleteRule(rule) => {
                self.rules.remove(rule);
            }
            Step::Nft(ops) => ops.iter().for_each(|op| self.apply_nft(op)),
        }
    }

    fn apply_nft(&mut self, op: &NftOp) {
        if op == &NftOp::DeleteTable {
            self.nft = None;
            return;
        }
        let table = Arc::make_mut(self.nft.get_or_insert_default());
        match op {
            NftOp::AddTable | NftOp::DeleteTable => {}
            NftOp::AddSet { name, shape, declaration, role } => {
                table.sets.entry(name.clone()).or_insert_with(|| Set {
                    declaration: declaration.clone(),
                    role: *role,
                    shape: shape.clone(),
                    elements: Elements::new(),
                });
            }
            NftOp::DeleteSet(name) => {
                table.sets.remove(name);
            }
            NftOp::AddElements { set, elements, .. } => {
                if let Some(set) = table.sets.get_mut(set) {
                    set.elements.extend(elements.clone());
                }
            }
            NftOp::DeleteElements { set, elements, .. } => {
                if let Some(set) = table.sets.get_mut(set) {
                    set.elements.retain(|key, _| !elements.contains_key(key));
                }
            }
            NftOp::AddObject(object) => {
                table.objects.insert(*object);
            }
            NftOp::DeleteObject(object) => {
                table.objects.remove(object);
            }
            NftOp::AddFlowtable(name, flowtable) => {
                table.flowtables.insert(name.clone(), flowtable.clone());
            }
            NftOp::DeleteFlowtable(name) => {
                table.flowtables.remove(name);
            }
            NftOp::AddChain { name, declaration } => {
                let declaration = declaration.clone();
                let chain = Chain { declaration, rules: Vec::new() };
                table.chains.entry(name.clone()).or_insert(chain);
            }
            NftOp::DeleteChain(name) => {
                table.chains.remove(name);
            }
            NftOp::FlushChain(name) => {
                if let Some(chain) = table.chains.get_mut(name) {
                    chain.rules.clear();
                }
            }
            NftOp::AddRule { chain, rule } => {
                if let Some(chain) = table.chains.get_mut(chain) {
                    chain.rules.push(rule.clone());
                }
            }
        }
    }
}

impl Step {
    /// The step as commands that a person would type, one a line.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Step::SetSysctl(key, value) => vec![format!("sysctl -w {}={value}", key.dotted())],
            Step::AddAddress(address) => {
                vec![format!("{} add {address}", ip(address.family(), "addr"))]
            }
            Step::DeleteAddress(address) => {
                vec![format!("{} del {address}", ip(address.family(), "addr"))]
            }
            Step::AddRoute(route) => vec![format!("{} add {route}", ip(route.family(), "route"))],
            Step::DeleteRoute(route) => {
                vec![format!("{} del {route}", ip(route.family(), "route"))]
            }
            Step::AddRule(rule) => vec![format!("{} add {rule}", ip(rule.family, "rule"))],
            Step::DeleteRule(rule) => vec![format!("{} del {rule}", ip(rule.family, "rule"))],
            Step::Nft(ops) => ops.iter().map(|op| format!("nft '{op}'")).collect(),
        }
    }
}

fn ip(family: crate::model::Family, object: &str) -> String {
    match family {
        crate::model::Family::V4 => format!("ip {object}"),
        crate::model::Family::V6 => format!("ip -6 {object}"),
    }
}

impl SysctlKey {
    /// As `sysctl(8)` takes it: dots for slashes, and slashes for the dots of an interface name.
    pub fn dotted(&self) -> String {
        let swap = |c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        self.0.chars().map(swap).collect()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == RouteKind::Unreachable {
            f.write_str("unreachable ")?;
        }
        if self.is_default() {
            f.write_str("default")?;
        } else {
            write!(f, "{}", self.destination)?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        write!(f, " table {}", self.table)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        write!(f, " proto {}", self.protocol)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pref {}", self.priority)?;
        if self.invert {
            f.write_str(" not")?;
        }
        if let Some(source) = &self.source {
            write!(f, " from {source}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark}/{mask}")?;
        }
        if let Some(input) = &self.input {
            write!(f, " iif {input}")?;
        }
        if let Some(output) = &self.output {
            write!(f, " oif {output}")?;
        }
        match self.action {
            RuleAction::Lookup(table) if table.0 == 254 => f.write_str(" lookup main")?,
            RuleAction::Lookup(table) => write!(f, " lookup {table}")?,
            RuleAction::Unreachable => f.write_str(" unreachable")?,
            RuleAction::Other(number) => write!(f, " action {number}")?,
        }
        if let Some(length) = self.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        write!(f, " protocol {}", self.protocol)
    }
}

impl fmt::Display for NftOp {
    /// One line of an nft script.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = format!("inet {TABLE_NAME}");
        match self {
            NftOp::AddTable => write!(f, "add table {t}"),
            NftOp::DeleteTable => write!(f, "delete table {t}"),
            NftOp::AddSet { name, shape, declaration, .. } => {
                let kind = shape.kind();
                let comment = declaration.comment();
                write!(f, "add {kind} {t} {name} {{ {} comment \"{comment}\"; }}", declaration.text)
            }
            NftOp::DeleteSet(name) => write!(f, "delete set {t} {name}"),
            NftOp::AddElements { set, shape, elements } => {
                write!(f, "add element {t} {set} {{ {} }}", render_elements(shape, elements, true))
            }
            NftOp::DeleteElements { set, shape, elements } => {
                let elements = render_elements(shape, elements, false);
                write!(f, "delete element {t} {set} {{ {elements} }}")
            }
            NftOp::AddObject(object) => {
                let (kind, declaration) = (object.kind(), object.declaration());
                write!(f, "add {kind} {t} {object} {{ {declaration} }}")
            }
            NftOp::DeleteObject(object) => write!(f, "delete {} {t} {object}", object.kind()),
            NftOp::AddFlowtable(name, flowtable) => {
                write!(f, "add flowtable {t} {name} {{ {flowtable} }}")
            }
            NftOp::DeleteFlowtable(name) => write!(f, "delete flowtable {t} {name}"),
            NftOp::AddChain { name, declaration } => {
                let comment = declaration.comment();
                write!(f, "add chain {t} {name} {{ {} comment \"{comment}\"; }}", declaration.text)
            }
            NftOp::DeleteChain(name) => write!(f, "delete chain {t} {name}"),
            NftOp::FlushChain(name) => write!(f, "flush chain {t} {name}"),
            NftOp::AddRule { chain, rule } => {
                write!(f, "add rule {t} {chain} {} comment \"{}\"", rule.text, rule.comment())
            }
        }
    }
}

impl SetShape {
    /// The nft keyword.
    pub fn kind(&self) -> &'static str {
        if self.data == super::SetData::Nothing { "set" } else { "map" }
    }
}

fn render_elements(shape: &SetShape, elements: &Elements, with_data: bool) -> String {
    let render = |(key, data): (&Bytes, &ElementData)| {
        shape.render(key, if with_data { data } else { &ElementData::Nothing })
    };
    elements.iter().map(render).collect::<Vec<_>>().join(", ")
}
