//! What the process itself costs, by the names that everybody uses for it.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

use super::one;
use super::text::Document;
use super::text::Kind::{Counter, Gauge};

/// Writes it down; what cannot be read is left out.
pub(super) fn write(out: &mut Document) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
        let help = "Time on processors, in user space and in the kernel.";
        one(out, "process_cpu_seconds_total", Counter, help, seconds[0] + seconds[1]);
    }
    if let Some(bytes) = resident() {
        one(out, "process_resident_memory_bytes", Gauge, "Memory that it occupies.", bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        one(out, "process_open_fds", Gauge, "Open files and sockets.", files.count() as f64);
    }
}

/// `VmRSS` (`proc_pid_status(5)`), in bytes.
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}
