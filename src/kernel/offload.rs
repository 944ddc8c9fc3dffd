//! Flowtables: which devices the kernel takes, and how sessions leave them.
//!
//! What a kernel can do is tried, not guessed from its version: `nft --check` hands a table to the
//! kernel, which looks at all of it and drops it.

use std::collections::BTreeMap;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::nft_write::{self, Writer, check_script};
use super::socket::Channel;
use super::{KernelError, nft_read};
use crate::kstate::{
    FLOWTABLE, Flowtable, Link, NftOp, OFFLOAD_CHAIN, OFFLOAD_GATE, OFFLOAD_RULE, Offload,
    Offloading, offload_rule,
};
use crate::model::IfName;

/// The table that is tried, and never made.
const TRIAL: &str = "inet homing-trial";

/// A device takes part in a flowtable with at most so many others (`NFT_NETDEVICE_MAX`).
const MOST_DEVICES: usize = 256;

/// How long `nft` may take for it: everything else waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often sessions are released while somebody else changes the flowtable.
const ATTEMPTS: usize = 3;

/// What was tried, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Trial {
    wanted: Option<Offloading>,
    done: Option<(BTreeMap<IfName, u32>, Offload)>,
}

impl Trial {
    /// These devices are of interest; true when others than before.
    pub(super) fn want(&mut self, wanted: Option<Offloading>) -> bool {
        let others = self.wanted != wanted;
        let hardware = |wanted: &Option<Offloading>| wanted.as_ref().map(|one| one.hardware);
        if hardware(&self.wanted) != hardware(&wanted) {
            self.done = None;
        }
        self.wanted = wanted;
        others
    }

    /// Tries those of them that are there, if some are new; a kernel without flowtables does not get
    /// them later. Trying takes some milliseconds, which no round is to wait for in vain.
    pub(super) fn look(&mut self, links: &BTreeMap<IfName, Link>) -> Option<Offload> {
        let wanted = self.wanted.as_ref()?;
        let index = |device: &IfName| Some((device.clone(), links.get(device)?.index));
        let there: BTreeMap<IfName, u32> = wanted.devices.iter().filter_map(index).collect();
        let known = |(tried, outcome): &(BTreeMap<IfName, u32>, Offload)| {
            let same = |(device, index): (&IfName, &u32)| tried.get(device) == Some(index);
            outcome.missing.is_some() || there.iter().all(same)
        };
        if !self.done.as_ref().is_some_and(known) {
            let devices: Vec<IfName> = there.keys().cloned().collect();
            match examine(&devices, wanted.hardware) {
                Ok(outcome) => self.done = Some((there.clone(), outcome)),
                // What was known stays so; it is tried again with the next look.
                Err(reason) if self.done.is_none() => {
                    let missing = Some(format!("it could not be tried: {reason}"));
                    return Some(Offload { missing, ..Offload::default() });
                }
                Err(_) => {}
            }
        }
        let mut outcome = self.done.as_ref().map(|(_, outcome)| outcome.clone())?;
        outcome.accepted.retain(|device| there.contains_key(device));
        outcome.refused.retain(|device, _| there.contains_key(device));
        Some(outcome)
    }
}

/// Tries them all together, and one by one if that does not do.
///
/// # Errors
/// When `nft` itself fails, so that nothing is known of the kernel.
fn examine(devices: &[IfName], hardware: bool) -> Result<Offload, String> {
    let mut outcome = Offload::default();
    let (fit, rest) = devices.split_at(devices.len().min(MOST_DEVICES));
    let too_many = || format!("a flowtable holds {MOST_DEVICES} devices");
    outcome.refused.extend(rest.iter().map(|device| (device.clone(), too_many())));
    if refusal(fit, false)?.is_none() {
        outcome.accepted.extend(fit.iter().cloned());
    } else if let Some(reason) = IfName::new("lo").map_or(Ok(None), |lo| refusal(&[lo], false))? {
        outcome.missing = Some(format!("this kernel has no flowtables ({reason})"));
        return Ok(outcome);
    } else {
        for device in fit {
            match refusal(std::slice::from_ref(device), false)? {
                None => drop(outcome.accepted.insert(device.clone())),
                Some(reason) => drop(outcome.refused.insert(device.clone(), reason)),
            }
        }
    }
    let accepted: Vec<IfName> = outcome.accepted.iter().cloned().collect();
    if hardware
        && !accepted.is_empty()
        && let Some(reason) = refusal(&accepted, true)?
    {
        let mut unable = Vec::new();
        for device in &accepted {
            if refusal(std::slice::from_ref(device), true)?.is_some() {
                unable.push(device.as_str());
            }
        }
        let drivers = unable.join(", ");
        outcome.software = Some(format!("the drivers of {drivers} do not offer it ({reason})"));
    }
    Ok(outcome)
}

/// Why the kernel does not take a flowtable with these devices, and a rule that uses it.
fn refusal(devices: &[IfName], hardware: bool) -> Result<Option<String>, String> {
    let devices = devices.iter().cloned().collect();
    let flowtable = Flowtable { devices, hardware, counts: true };
    let script = [
        format!("add table {TRIAL}"),
        format!("add flowtable {TRIAL} {FLOWTABLE} {{ {flowtable} }}"),
        format!("add chain {TRIAL} trial {{ type filter hook forward priority filter; }}"),
        format!("add rule {TRIAL} trial {OFFLOAD_GATE} {OFFLOAD_RULE}"),
    ];
    match check_script(&script, PATIENCE) {
        Ok(()) => Ok(None),
        Err(KernelError::NftScript { message, .. }) => {
            let message = message.trim_start_matches("Error: ");
            Ok(Some(message.trim_start_matches("Could not process rule: ").to_owned()))
        }
        Err(other) => Err(other.to_string()),
    }
}

/// Sessions that our flowtable carries go by the rules again, until one of their packets has passed
/// those; nothing of them is lost. The flowtable is made anew in one transaction, in the network
/// namespace of this thread. False when there is none.
///
/// # Errors
/// When the kernel refuses.
pub fn release() -> Result<bool, KernelError> {
    let open = |source| KernelError::Open { protocol: "nfnetlink", source };
    let channel = Channel::open(NETLINK_NETFILTER).map_err(open)?;
    let mut writer = Writer { channel, hush: None };
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let Some(there) = nft_read::flowtables(&mut writer.channel)?.remove(FLOWTABLE) else {
            return Ok(false);
        };
        outcome = nft_write::apply(&mut writer, &renewal(there));
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map(|()| true)
}

fn renewal(flowtable: Flowtable) -> Vec<NftOp> {
    let (name, chain) = (FLOWTABLE.to_owned(), OFFLOAD_CHAIN.to_owned());
    vec![
        NftOp::FlushChain(chain.clone()),
        NftOp::DeleteFlowtable(name.clone()),
        NftOp::AddFlowtable(name, flowtable),
        NftOp::AddRule { chain, rule: offload_rule() },
    ]
}
