//! `homing doctor`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::check::print;
use super::show::wrap;
use super::{FAILED, complain};
use crate::daemon;
use crate::doctor::{self, Case, Finding};
use crate::kernel::{self, Kernel as _, Linux, Ranges};
use crate::kstate::Snapshot;
use crate::model::Site;
use crate::plan;
use crate::profile::Severity;

pub(super) fn run(profile: Option<&Path>, json: bool) -> ExitCode {
    let findings = match examine(profile) {
        Ok(findings) => findings,
        Err(error) => return complain(&error),
    };
    if json {
        print(&format!("{:#}", doctor::to_json(&findings)));
    } else {
        print(show(&findings).trim_end());
    }
    match findings.iter().any(|finding| finding.severity == Severity::Error) {
        true => ExitCode::from(FAILED),
        false => ExitCode::SUCCESS,
    }
}

fn examine(profile: Option<&Path>) -> anyhow::Result<Vec<Finding>> {
    let site = profile.map(daemon::load_profile).transpose()?;
    if let Some((_, warnings)) = &site {
        eprint!("{warnings}");
    }
    let site = site.map(|(site, _)| site);
    let missing = kernel::probe_features().err().unwrap_or_default();
    let seen = match look(site.as_ref()) {
        Ok(seen) => seen,
        // Then something is missing, and that is told.
        Err(_) if !missing.is_empty() => Snapshot::default(),
        Err(error) => return Err(error).context("cannot read the kernel's state"),
    };
    let host = kernel::read_host();
    Ok(doctor::examine(Case { site: site.as_ref(), missing: &missing, seen: &seen, host: &host }))
}

fn look(site: Option<&Site>) -> anyhow::Result<Snapshot> {
    let routing = site.map(|site| site.routing).unwrap_or_default();
    let ranges =
        Ranges { first_priority: routing.first_priority, first_table: routing.first_table };
    let mut kernel = Linux::open(ranges)?;
    kernel.set_sysctl_interest(site.map(doctor::interesting_sysctls).unwrap_or_default());
    let seen = kernel.observe()?;
    let devices = site.and_then(|site| plan::offload::offloading(site, &seen.facts));
    match kernel.set_offload_interest(devices) {
        true => Ok(kernel.observe()?),
        false => Ok(seen),
    }
}

fn show(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing to complain of".to_owned();
    }
    let mut shown = String::new();
    for Finding { severity, code, message, remedy } in findings {
        shown += &wrap(&format!("{} [{code}]: {message}", severity.as_str()));
        if !remedy.is_empty() {
            shown += &wrap(&format!("  remedy: {remedy}"));
        }
    }
    shown
}
