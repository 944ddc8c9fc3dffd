//! A profile: YAML text → located tree → [`Site`], with every finding at once.
//!
//! Nothing here reads a file, a clock or a socket. [`load`] parses the text into a flat tree in
//! which each value knows its line and column (`parse`, `tree`), reads each section with readers
//! that report and go on (`fields`, `scalar`, `net`, and one module a section), and then looks at
//! what only the whole site shows (`checks`, `cover`). A site comes out exactly when nothing was
//! an error.

mod check;
mod checks;
mod claims;
mod cover;
mod fields;
mod finding;
mod groups;
mod lans;
mod names;
mod net;
mod notify;
mod overlap;
mod parse;
mod policies;
mod probes;
mod render;
mod scalar;
mod schema;
mod services;
mod settings;
mod text;
mod tree;
mod uplinks;
mod url;

#[cfg(test)]
mod tests;

pub use finding::{Finding, Severity, to_json};
pub use render::render;
pub use schema::schema;

use crate::model::{Name, Site};

use checks::Sections;
use fields::Fields;
use finding::Findings;
use names::{Names, keys};
use tree::Node;

const KEYS: &[&str] = &[
    "version",
    "site",
    "uplinks",
    "lans",
    "probes",
    "policies",
    "groups",
    "services",
    "firewall",
    "marks",
    "routing",
    "fast-path",
    "helpers",
    "api",
    "notify",
];

/// What became of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The site, exactly when no finding is an error.
    pub site: Option<Site>,
    /// In the order of the file.
    pub findings: Vec<Finding>,
}

/// Reads a profile. Never panics, whatever the text.
pub fn load(text: &str) -> Loaded {
    let mut out = Findings::default();
    let tree = parse::parse(text, &mut out);
    let site = tree.as_ref().and_then(|tree| site(tree.root(), &mut out));
    finish(site, out)
}

/// Reads a profile that may not even be text.
pub fn load_bytes(bytes: &[u8]) -> Loaded {
    let mut out = Findings::default();
    // Too large is told before bad: a reader may have cut the file inside a character.
    if bytes.len() > parse::LARGEST {
        parse::too_large(&mut out);
        return finish(None, out);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => load(text),
        Err(error) => {
            parse::not_text(bytes, error.valid_up_to(), &mut out);
            finish(None, out)
        }
    }
}

fn finish(site: Option<Site>, out: Findings) -> Loaded {
    let findings = out.into_sorted();
    let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
    Loaded { site: site.filter(|_| usable), findings }
}

fn site(root: Node<'_>, out: &mut Findings) -> Option<Site> {
    if root.is_null() {
        let hint = "a profile begins with `version: 1` and names at least two uplinks";
        out.error_with(root, "the profile is empty", hint);
        return None;
    }
    let top = Fields::read(root, KEYS, out)?;
    version(&top, out);
    let names = Names {
        uplinks: keys(top.raw("uplinks")),
        lans: keys(top.raw("lans")),
        probes: keys(top.raw("probes")),
        groups: keys(top.raw("groups")),
    };
    let sections = sections(&top, &names, out);
    checks::check(&sections, out);
    cover::check(&sections.policies, out);
    Some(assemble(&top, &names, sections, out))
}

fn version(top: &Fields<'_>, out: &mut Findings) {
    let node = top.required("version", "begin the file with `version: 1`", out);
    let Some((node, version)) =
        node.and_then(|node| Some((node, scalar::number(node, 0..=u32::MAX, out)?)))
    else {
        return;
    };
    if version != 1 {
        let message = format!("`{version}` is not a version of profiles that is read here");
        out.error_with(node, message, "say `version: 1`");
    }
}

fn sections<'t>(top: &Fields<'t>, names: &Names, out: &mut Findings) -> Sections<'t> {
    let hint = "name at least two: `uplinks: { fiber: { interface: wan0 }, … }`";
    let uplinks = top.required("uplinks", hint, out);
    let uplinks = uplinks.map(|node| uplinks::read(node, names, out));
    let uplinks = uplinks.unwrap_or_default();
    let in_order: Vec<Name> = uplinks.uplinks.iter().map(|u| u.name.clone()).collect();
    let lans = top.get("lans", out).map(|node| lans::read(node, out));
    let policies = top.get("policies", out);
    let policies = policies.map(|node| policies::read(node, names, &in_order, out));
    let groups = top.get("groups", out).map(|node| groups::read(node, out));
    let services = top.get("services", out).map(|node| services::read(node, names, out));
    let marks = top.get("marks", out).and_then(|node| settings::marks(node, out));
    Sections {
        section: top.raw("uplinks"),
        uplinks,
        lans: lans.unwrap_or_default(),
        policies: policies.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
        services: services.unwrap_or_default(),
        marks,
    }
}

fn assemble(top: &Fields<'_>, names: &Names, all: Sections<'_>, out: &mut Findings) -> Site {
    let name = top.get("site", out).and_then(|node| site_name(node, out));
    let probes = top.get("probes", out).map(|node| probes::read(node, out));
    let firewall = top.get("firewall", out).and_then(|n| settings::firewall(n, names, out));
    let routing = top.get("routing", out).and_then(|node| settings::routing(node, out));
    let fast_path = top.get("fast-path", out).and_then(|n| settings::fast_path(n, out));
    let helpers = top.get("helpers", out).map(|node| settings::helpers(node, out));
    let api = top.get("api", out).and_then(|node| settings::api(node, out));
    let notify = top.get("notify", out).map(|node| notify::read(node, out));
    let fast_path = fast_path.unwrap_or_default();
    let inline = all.uplinks.probes.into_iter();
    let mut probes = probes.unwrap_or_default();
    probes.extend(inline.map(|probe| (probe.name.clone(), probe)));
    let groups = all.groups.into_iter();
    Site {
        name: name.unwrap_or_else(|| "homing".to_owned()),
        uplinks: all.uplinks.uplinks,
        lans: firsts(all.lans),
        policies: firsts(all.policies),
        probes,
        groups: groups.map(|(name, (group, _))| (name, group)).collect(),
        services: firsts(all.services),
        helpers: helpers.unwrap_or_default(),
        firewall: firewall.unwrap_or_default(),
        marks: all.marks.map(|(layout, _)| layout).unwrap_or_default(),
        routing: routing.unwrap_or_default(),
        fast_path,
        api: api.unwrap_or_default(),
        notify: notify.unwrap_or_default(),
    }
}

/// What was read, without its places.
fn firsts<T, P>(list: Vec<(T, P)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

fn site_name(node: Node<'_>, out: &mut Findings) -> Option<String> {
    let text = scalar::text(node, "the site's name", out)?;
    if text.chars().count() <= 64 && !text.chars().any(char::is_control) {
        return Some(text.to_owned());
    }
    out.error_with(node, "not a site's name", "up to 64 characters on one line");
    None
}
