//! What on this host comes in homing's way, and what to do about it. Pure.
//!
//! Everything is judged from one look at the kernel and at other software. A finding that is not
//! certain to hurt is a warning or a note: a doctor who cries at every patient is not called again.

mod fast;
mod networks;
mod rules;
mod services;
mod software;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_site;
mod uplinks;

use serde_json::{Value, json};

use crate::kstate::{Host, Missing, Snapshot};
use crate::model::{MarkLayout, Routing, Site};
use crate::profile::Severity;

pub use uplinks::interesting_sysctls;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The same in every release.
    pub code: &'static str,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The profile; without it, the default numbers are judged, and no networks.
    pub site: Option<&'a Site>,
    /// What the host lacks.
    pub missing: &'a [Missing],
    /// The kernel, with the settings that [`interesting_sysctls`] names.
    pub seen: &'a Snapshot,
    /// Other software.
    pub host: &'a Host,
}

impl Case<'_> {
    fn routing(&self) -> Routing {
        self.site.map(|site| site.routing).unwrap_or_default()
    }

    fn marks(&self) -> MarkLayout {
        self.site.map(|site| site.marks).unwrap_or_default()
    }
}

/// Every finding, the worst first.
pub fn examine(case: Case<'_>) -> Vec<Finding> {
    let missing = case.missing.iter();
    let mut findings: Vec<Finding> =
        missing.map(|missing| error("missing", &missing.what, &missing.remedy)).collect();
    rules::examine(case, &mut findings);
    software::examine(case, &mut findings);
    if let Some(site) = case.site {
        networks::examine(case, site, &mut findings);
        uplinks::examine(case, site, &mut findings);
        fast::examine(case, site, &mut findings);
        services::examine(case, site, &mut findings);
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// As `homing doctor --json` gives them.
pub fn to_json(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "severity": finding.severity.as_str(),
            "code": finding.code,
            "message": finding.message,
            "remedy": finding.remedy,
        })
    };
    json!({ "version": 1, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

fn error(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    finding(Severity::Error, code, message, remedy)
}

fn warning(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    finding(Severity::Warning, code, message, remedy)
}

fn note(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    finding(Severity::Note, code, message, remedy)
}

fn finding(
    severity: Severity,
    code: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding { severity, code, message: message.into(), remedy: remedy.into() }
}
