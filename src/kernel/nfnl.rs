//! nfnetlink: what nftables and conntrack share, and the numbers of `linux/netfilter/`.

use super::wire::Message;

/// `struct nfgenmsg`
pub(super) const HEADER_LEN: usize = 4;
/// `NFPROTO_INET`
pub(super) const FAMILY_INET: u8 = 1;

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`
const BATCH_BEGIN: u16 = 16;
/// `NFNL_MSG_BATCH_END`
const BATCH_END: u16 = 17;

/// `enum nf_tables_msg_types`
pub(super) mod kind {
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DELETE_ELEMENTS: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
    pub(crate) const GET_GENERATION: u16 = 16;
    pub(crate) const GET_OBJECT: u16 = 19;
    pub(crate) const GET_FLOWTABLE: u16 = 23;
}

/// `enum nft_*_attributes`
pub(super) mod attr {
    pub(crate) const TABLE_NAME: u16 = 1;
    pub(crate) const CHAIN_TABLE: u16 = 1;
    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_FLAGS: u16 = 10;
    pub(crate) const CHAIN_USERDATA: u16 = 12;
    pub(crate) const RULE_TABLE: u16 = 1;
    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_USERDATA: u16 = 7;
    pub(crate) const SET_TABLE: u16 = 1;
    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_FLAGS: u16 = 3;
    pub(crate) const SET_USERDATA: u16 = 13;
    pub(crate) const SET_COUNT: u16 = 20;
    pub(crate) const OBJECT_TABLE: u16 = 1;
    pub(crate) const OBJECT_NAME: u16 = 2;
    pub(crate) const FLOWTABLE_TABLE: u16 = 1;
    pub(crate) const FLOWTABLE_NAME: u16 = 2;
    pub(crate) const FLOWTABLE_HOOK: u16 = 3;
    pub(crate) const FLOWTABLE_FLAGS: u16 = 7;
    pub(crate) const HOOK_DEVICES: u16 = 3;
    pub(crate) const DEVICE_NAME: u16 = 1;
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;
    pub(crate) const LIST_ITEM: u16 = 1;
    pub(crate) const ELEMENT_KEY: u16 = 1;
    pub(crate) const ELEMENT_DATA: u16 = 2;
    pub(crate) const ELEMENT_FLAGS: u16 = 3;
    pub(crate) const ELEMENT_TIMEOUT: u16 = 4;
    pub(crate) const ELEMENT_EXPIRATION: u16 = 5;
    pub(crate) const ELEMENT_EXPRESSION: u16 = 7;
    pub(crate) const ELEMENT_EXPRESSIONS: u16 = 11;
    pub(crate) const DATA_VALUE: u16 = 1;
    pub(crate) const DATA_VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
    pub(crate) const EXPRESSION_NAME: u16 = 1;
    pub(crate) const EXPRESSION_DATA: u16 = 2;
    pub(crate) const COUNTER_PACKETS: u16 = 2;
    pub(crate) const GENERATION_ID: u16 = 1;
    pub(crate) const GENERATION_PID: u16 = 2;
    pub(crate) const GENERATION_NAME: u16 = 3;
}

/// The body of a message to an nfnetlink subsystem.
pub(super) fn header(family: u8, resource: u16) -> [u8; HEADER_LEN] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// A message to nftables.
pub(super) fn nft_message(kind: u16, family: u8) -> Message {
    let mut message = Message::new(NFTABLES << 8 | kind, 0);
    message.raw(&header(family, 0));
    message
}

/// The kind of an nftables message, or `None` if it is another subsystem's.
pub(super) fn nft_kind(message_type: u16) -> Option<u16> {
    (message_type >> 8 == NFTABLES).then_some(message_type & 0xff)
}

/// A transaction. Only its last message asks for an acknowledgement; refusals come for all.
pub(super) struct Batch {
    message: Message,
}

impl Batch {
    /// An empty one.
    pub(super) fn new() -> Batch {
        let mut message = Message::new(BATCH_BEGIN, super::wire::REQUEST);
        message.raw(&header(0, NFTABLES));
        Batch { message }
    }

    /// Begins a message to nftables, in the family `inet`.
    pub(super) fn begin(&mut self, kind: u16, flags: u16) -> &mut Message {
        self.message.begin(NFTABLES << 8 | kind, super::wire::REQUEST | flags);
        self.message.raw(&header(FAMILY_INET, 0));
        &mut self.message
    }

    /// The whole of it.
    pub(super) fn finish(mut self) -> Message {
        self.message.add_flags(super::wire::ACK);
        self.message.begin(BATCH_END, super::wire::REQUEST);
        self.message.raw(&header(0, NFTABLES));
        self.message
    }
}
