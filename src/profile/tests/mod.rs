//! What `load` says about profiles, good and bad.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accepted;
mod hidden;
mod inbound;
mod limits;
mod policies;
mod robust;
mod site;
mod syntax;
mod values;

use super::{Finding, load};

/// A profile, and everything that is to be said about it.
struct Case {
    name: &'static str,
    text: &'static str,
    /// `LINE:COLUMN: SEVERITY: PATH: MESSAGE (HINT)`, in the order of the file.
    findings: &'static [&'static str],
}

fn check(cases: &[Case]) {
    for case in cases {
        let loaded = load(case.text);
        let found: Vec<String> = loaded.findings.iter().map(line).collect();
        assert_eq!(found, case.findings, "{}:\n{}", case.name, case.text);
        let errors = found.iter().any(|line| line.contains(": error: "));
        assert_eq!(loaded.site.is_none(), errors, "{}", case.name);
    }
}

fn line(finding: &Finding) -> String {
    format!(
        "{}:{}: {}: {}: {} ({})",
        finding.line,
        finding.column,
        finding.severity.as_str(),
        finding.path,
        finding.message,
        finding.hint.as_deref().unwrap_or_default()
    )
}
