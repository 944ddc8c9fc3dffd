//! Which sessions leave a dead uplink: those that policies put there and no longer want there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::view::Layout;
use crate::model::{Family, Mark, MarkLayout, Name};

/// Sessions of one uplink and family, by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evacuation {
    /// The uplink,
    pub uplink: Name,
    /// and its mark.
    pub mark: Mark,
    /// Where marks are.
    pub marks: MarkLayout,
    /// Sessions of this family alone.
    pub family: Family,
    /// The policies whose sessions leave, by their marks.
    pub policies: BTreeMap<Mark, Name>,
    /// Marks of policies, or none: their TCP connections that nobody answered yet begin anew, as
    /// their first segment is sent again anyway.
    pub unanswered: BTreeSet<Mark>,
}

/// What a session is, as far as that decides how it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaver {
    /// Of its original direction.
    pub family: Family,
    /// The IANA number of its protocol.
    pub protocol: u8,
    /// All bits of its mark.
    pub mark: Mark,
    /// Packets went both ways.
    pub answered: bool,
    /// `TCP_CONNTRACK_*`
    pub tcp_state: Option<u8>,
}

/// How a session leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is forgotten: its next packet begins anew, over another uplink.
    Release,
    /// Its client is told by a reset.
    Reset,
}

/// The IANA number of TCP.
const TCP: u8 = 6;
/// `TCP_CONNTRACK_SYN_SENT`
const SYN_SENT: u8 = 1;
/// `TCP_CONNTRACK_ESTABLISHED` to `TCP_CONNTRACK_LAST_ACK`: one end at least is still there.
const OPEN: std::ops::RangeInclusive<u8> = 3..=6;

impl Leaver {
    /// How it leaves. A TCP connection that nobody answered yet sends its first segment again.
    pub fn exit(&self) -> Exit {
        let open = self.tcp_state.is_some_and(|state| OPEN.contains(&state));
        match self.protocol == TCP && self.answered && open {
            true => Exit::Reset,
            false => Exit::Release,
        }
    }
}

impl Evacuation {
    /// Of these policies' sessions over an uplink, and of the unanswered ones of these and of no
    /// policy (`None`); `None` when the site does not have that uplink.
    pub fn new(
        layout: &Layout,
        uplink: &Name,
        family: Family,
        policies: &[&Name],
        unanswered: &[Option<&Name>],
    ) -> Option<Evacuation> {
        let id = layout.ids.uplinks.get(uplink)?;
        let mark = |name: &Name| Some(layout.policy_mark(*layout.ids.policies.get(name)?));
        let policies = policies.iter().filter_map(|name| Some((mark(name)?, (*name).clone())));
        let unanswered = unanswered.iter().filter_map(|one| one.map_or(Some(Mark(0)), mark));
        Some(Evacuation {
            uplink: uplink.clone(),
            mark: layout.mark(*id),
            marks: layout.site.marks,
            family,
            policies: policies.collect(),
            unanswered: unanswered.collect(),
        })
    }

    /// Whether and how a session leaves, and because of which policy: of none when nobody has
    /// answered it yet.
    pub fn judge(&self, session: &Leaver) -> Option<(Option<&Name>, Exit)> {
        let bits = |mask: crate::model::MarkMask| Mark(session.mark.0 & mask.0);
        if session.family != self.family || bits(self.marks.uplink) != self.mark {
            return None;
        }
        let policy = bits(self.marks.policy);
        match self.policies.get(&policy) {
            Some(name) => Some((Some(name), session.exit())),
            None => {
                let begins = session.tcp_state == Some(SYN_SENT) && !session.answered;
                (begins && self.unanswered.contains(&policy)).then_some((None, Exit::Release))
            }
        }
    }
}

/// The mark of a session whose client is to be reset: it has no uplink, and a policy all the same.
/// No other session is like that.
pub fn dismissed(mark: Mark, marks: MarkLayout) -> Mark {
    let policy = match mark.0 & marks.policy.0 {
        0 => marks.policy.0,
        policy => policy,
    };
    Mark(policy)
}

/// Whether a mark is of that kind.
pub fn is_dismissed(mark: Mark, marks: MarkLayout) -> bool {
    mark.0 & marks.uplink.0 == 0 && mark.0 & marks.policy.0 != 0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Evacuation, Exit, Leaver, dismissed, is_dismissed};
    use crate::model::{Family, Mark, MarkLayout, Name};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap_or_else(|_| panic!("{text}"))
    }

    fn evacuation() -> Evacuation {
        Evacuation {
            uplink: name("fiber"),
            mark: Mark(0x500),
            marks: MarkLayout::default(),
            family: Family::V4,
            policies: BTreeMap::from([(Mark(0x0700_0000), name("voice"))]),
            unanswered: BTreeSet::from([Mark(0x0800_0000)]),
        }
    }

    fn session(protocol: u8, mark: u32, answered: bool, tcp_state: Option<u8>) -> Leaver {
        Leaver { family: Family::V4, protocol, mark: Mark(mark), answered, tcp_state }
    }

    #[test]
    fn only_this_uplink_s_and_these_policies_sessions_leave() {
        let voice = name("voice");
        let leaves = Some((Some(&voice), Exit::Release));
        let evacuation = evacuation();
        let judge = |mark| evacuation.judge(&session(17, mark, true, None));
        assert_eq!(judge(0x0700_0500), leaves);
        assert_eq!(judge(0x0700_05ff), leaves, "other owners' bits do not matter");
        assert_eq!(judge(0x0700_0600), None, "another uplink");
        assert_eq!(judge(0x0800_0500), None, "another policy");
        assert_eq!(judge(0x0000_0500), None, "no policy put it there");
        let six = Leaver { family: Family::V6, ..session(17, 0x0700_0500, true, None) };
        assert_eq!(evacuation.judge(&six), None, "the other family");
    }

    #[test]
    fn a_connection_that_nobody_answered_begins_anew_without_any_order() {
        let evacuation = evacuation();
        let judge = |mark, answered, state| evacuation.judge(&session(6, mark, answered, state));
        let again = Some((None, Exit::Release));
        assert_eq!(judge(0x0800_0500, false, Some(1)), again);
        assert_eq!(judge(0x0800_0500, true, Some(3)), None, "it stays pinned");
        assert_eq!(judge(0x0800_0500, true, Some(2)), None, "answered");
        assert_eq!(judge(0x0900_0500, false, Some(1)), None, "nowhere else to go");
        assert_eq!(evacuation.judge(&session(17, 0x0800_0500, false, None)), None, "one-way UDP");
    }

    #[test]
    fn who_can_be_reset_is_reset() {
        let exit = |protocol, answered, state| session(protocol, 0, answered, state).exit();
        assert_eq!(exit(6, true, Some(3)), Exit::Reset, "established");
        assert_eq!(exit(6, true, Some(6)), Exit::Reset, "last acknowledgement");
        assert_eq!(exit(6, false, Some(1)), Exit::Release, "nobody answered yet");
        assert_eq!(exit(6, true, Some(7)), Exit::Release, "over");
        assert_eq!(exit(17, true, None), Exit::Release);
        assert_eq!(exit(1, true, None), Exit::Release);
    }

    #[test]
    fn a_dismissed_session_is_known_by_its_mark() {
        let marks = MarkLayout::default();
        let with = dismissed(Mark(0x0700_0512), marks);
        assert_eq!(with, Mark(0x0700_0000));
        let without = dismissed(Mark(0x0000_0512), marks);
        assert!([with, without].iter().all(|mark| is_dismissed(*mark, marks)));
        assert!(!is_dismissed(Mark(0x0700_0500), marks) && !is_dismissed(Mark(0x12), marks));
    }
}
