//! `RTM_NEWRULE`, there and back.

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{
    RuleAction as WireAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage,
};

use super::address_family;
use crate::kstate::{Rule, RuleAction};
use crate::model::{Family, IfName, Mark, MarkMask, RulePriority, TableId};

/// `suppress_prefixlength` is always dumped; this says that there is none.
const NO_SUPPRESSION: u32 = u32::MAX;

/// One rule; `None` when it is of another family (multicast routing has rules, too).
pub(super) fn decode(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let mut rule = without_selectors(header)?;
    let (mut mark, mut mask, mut table) = (None, None, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => rule.priority = RulePriority(*value),
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::Protocol(value) => rule.protocol = (*value).into(),
            RuleAttribute::Source(ip) => rule.source = IpNet::new(*ip, header.src_len).ok(),
            RuleAttribute::Iifname(name) => rule.input = device(name, &mut rule.has_more),
            RuleAttribute::Oifname(name) => rule.output = device(name, &mut rule.has_more),
            RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => {}
            RuleAttribute::SuppressPrefixLen(length) => rule.suppress_prefix_length = Some(*length),
            other => rule.has_more |= restricts(other),
        }
    }
    // A mark of 0 is not dumped, its mask is.
    rule.mark = (mark.is_some() || mask.is_some())
        .then(|| (Mark(mark.unwrap_or(0)), MarkMask(mask.unwrap_or(u32::MAX))));
    if header.action == WireAction::ToTable {
        rule.action = RuleAction::Lookup(TableId(table));
    }
    Some(rule)
}

fn without_selectors(header: &RuleHeader) -> Option<Rule> {
    Some(Rule {
        priority: RulePriority(0),
        family: match header.family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return None,
        },
        invert: header.flags.contains(RuleFlags::Invert),
        mark: None,
        source: None,
        input: None,
        output: None,
        action: match header.action {
            WireAction::Unreachable => RuleAction::Unreachable,
            other => RuleAction::Other(other.into()),
        },
        suppress_prefix_length: None,
        protocol: 0,
        has_more: header.tos != 0,
    })
}

/// A device name that we do not accept is a selector that we cannot hold.
fn device(name: &str, has_more: &mut bool) -> Option<IfName> {
    let device = IfName::new(name).ok();
    *has_more |= device.is_none();
    device
}

/// Whether an attribute that our type does not hold changes what the rule does.
fn restricts(attribute: &RuleAttribute) -> bool {
    match attribute {
        RuleAttribute::L3MDev(on) => *on,
        RuleAttribute::SuppressIfGroup(group) => *group != NO_SUPPRESSION,
        RuleAttribute::TunId(id) => *id != 0,
        // `FRA_PAD`, and newer ones that are always dumped, hold nothing but zeros when unused.
        RuleAttribute::Other(unknown) => {
            let mut value = vec![0; netlink_packet_core::Nla::value_len(unknown)];
            netlink_packet_core::Nla::emit_value(unknown, &mut value);
            value.iter().any(|byte| *byte != 0)
        }
        _ => true,
    }
}

/// The message that adds or deletes a rule.
pub(super) fn encode(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = header(rule);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority.0));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    if let Some((mark, mask)) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark.0));
        attributes.push(RuleAttribute::FwMask(mask.0));
    }
    if let Some(source) = &rule.source {
        attributes.push(RuleAttribute::Source(source.network()));
    }
    if let Some(device) = &rule.input {
        attributes.push(RuleAttribute::Iifname(device.to_string()));
    }
    if let Some(device) = &rule.output {
        attributes.push(RuleAttribute::Oifname(device.to_string()));
    }
    if let RuleAction::Lookup(table) = rule.action {
        attributes.push(RuleAttribute::Table(table.0));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    message
}

fn header(rule: &Rule) -> RuleHeader {
    RuleHeader {
        family: address_family(rule.family),
        src_len: rule.source.map_or(0, |net| net.prefix_len()),
        action: match rule.action {
            RuleAction::Lookup(_) => WireAction::ToTable,
            RuleAction::Unreachable => WireAction::Unreachable,
            RuleAction::Other(number) => WireAction::from(number),
        },
        flags: match rule.invert {
            true => RuleFlags::Invert,
            false => RuleFlags::empty(),
        },
        ..RuleHeader::default()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Parseable;
    use netlink_packet_route::rule::RuleMessage;

    use crate::kernel::stage::captured;

    #[test]
    fn a_mark_of_zero_is_told_by_its_mask_alone() {
        // Linux 6.18: ip rule add pref 10300 not fwmark 0/0x3f00 lookup main
        //             suppress_prefixlength 0 protocol 201
        let body = captured(
            "02000000fe0000010200000008000f00fe00000008000e000000000005001500c9000000
             080006003c28000008001000003f0000",
        );
        let rule = RuleMessage::parse(body.as_slice()).ok().and_then(|m| super::decode(&m));
        assert_eq!(
            rule.as_ref().map(ToString::to_string).as_deref(),
            Some(
                "pref 10300 not fwmark 0x0/0x3f00 lookup main suppress_prefixlength 0 protocol 201"
            )
        );
        assert!(rule.is_some_and(|rule| !rule.has_more));
    }
}
