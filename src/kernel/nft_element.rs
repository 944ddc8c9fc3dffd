//! Elements of sets and maps: from and to the kernel's bytes.

use super::nfnl::attr;
use super::wire::{Message, attribute, attributes, text, u32_be, u64_be};
use crate::kstate::{Bytes, ElementData, Verdict};

/// `NFT_SET_ELEM_INTERVAL_END | NFT_SET_ELEM_CATCHALL`: no element that has a key of its own.
const NO_KEY: u32 = 1 | 2;

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

/// One element as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedElement {
    /// The key.
    pub key: Bytes,
    /// What it leads to.
    pub data: ElementData,
    /// The timeout given to it, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What is left of it, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Packets that matched it, if it has a counter.
    pub packets: Option<u64>,
}

/// The elements in the body of one message (behind `struct nfgenmsg`).
pub(super) fn decode_list(body: &[u8]) -> Vec<DumpedElement> {
    attribute(body, attr::LIST_ELEMENTS)
        .map(|list| attributes(list).filter_map(|(_, e)| decode(e)).collect())
        .unwrap_or_default()
}

fn decode(element: &[u8]) -> Option<DumpedElement> {
    let mut key = None;
    let mut found = DumpedElement {
        key: Bytes::new(),
        data: ElementData::Nothing,
        timeout_ms: None,
        expires_ms: None,
        packets: None,
    };
    for (kind, value) in attributes(element) {
        match kind {
            attr::ELEMENT_KEY => key = attribute(value, attr::DATA_VALUE),
            attr::ELEMENT_DATA => found.data = data(value),
            attr::ELEMENT_FLAGS if u32_be(value).unwrap_or(0) & NO_KEY != 0 => return None,
            attr::ELEMENT_TIMEOUT => found.timeout_ms = u64_be(value),
            attr::ELEMENT_EXPIRATION => found.expires_ms = u64_be(value),
            attr::ELEMENT_EXPRESSION => found.packets = found.packets.or(packets(value)),
            attr::ELEMENT_EXPRESSIONS => {
                found.packets = attributes(value).find_map(|(_, e)| packets(e));
            }
            _ => {}
        }
    }
    found.key = Bytes::from_slice(key?);
    Some(found)
}

fn data(value: &[u8]) -> ElementData {
    if let Some(bytes) = attribute(value, attr::DATA_VALUE) {
        return ElementData::Value(Bytes::from_slice(bytes));
    }
    let Some(verdict) = attribute(value, attr::DATA_VERDICT) else {
        return ElementData::Nothing;
    };
    let code = attribute(verdict, attr::VERDICT_CODE).and_then(u32_be).map_or(0, u32::cast_signed);
    let chain = attribute(verdict, attr::VERDICT_CHAIN).map(text);
    ElementData::Verdict(match (code, chain) {
        (ACCEPT, _) => Verdict::Accept,
        (DROP, _) => Verdict::Drop,
        (GOTO, Some(chain)) => Verdict::Goto(chain),
        (JUMP, Some(chain)) => Verdict::Jump(chain),
        (other, _) => Verdict::Other(other),
    })
}

fn packets(expression: &[u8]) -> Option<u64> {
    let name = attribute(expression, attr::EXPRESSION_NAME).map(text)?;
    let data = attribute(expression, attr::EXPRESSION_DATA).filter(|_| name == "counter")?;
    attribute(data, attr::COUNTER_PACKETS).and_then(u64_be)
}

/// Writes one element of a list; `None` leaves the data out, as a deletion needs.
pub(super) fn encode(message: &mut Message, key: &[u8], data: Option<&ElementData>) {
    message.nest(attr::LIST_ITEM, |m| encode_parts(m, key, data));
}

/// Writes one element with its time.
pub(super) fn encode_timed(message: &mut Message, element: &DumpedElement) {
    message.nest(attr::LIST_ITEM, |m| {
        encode_parts(m, &element.key, Some(&element.data));
        if let Some(timeout) = element.timeout_ms {
            m.attribute_be64(attr::ELEMENT_TIMEOUT, timeout);
        }
        if let Some(left) = element.expires_ms {
            m.attribute_be64(attr::ELEMENT_EXPIRATION, left);
        }
    });
}

fn encode_parts(message: &mut Message, key: &[u8], data: Option<&ElementData>) {
    message.nest(attr::ELEMENT_KEY, |m| m.attribute(attr::DATA_VALUE, key));
    match data {
        None | Some(ElementData::Nothing) => {}
        Some(ElementData::Value(bytes)) => {
            message.nest(attr::ELEMENT_DATA, |m| m.attribute(attr::DATA_VALUE, bytes));
        }
        Some(ElementData::Verdict(verdict)) => {
            message.nest(attr::ELEMENT_DATA, |m| encode_verdict(m, verdict));
        }
    }
}

fn encode_verdict(message: &mut Message, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Other(code) => (*code, None),
    };
    message.nest(attr::DATA_VERDICT, |m| {
        m.attribute_be32(attr::VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            m.attribute_text(attr::VERDICT_CHAIN, chain);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::nfnl::HEADER_LEN;
    use super::super::wire::messages;
    use super::{Message, decode_list, encode};
    use crate::kernel::nfnl::attr;
    use crate::kernel::stage::captured;
    use crate::kstate::{ElementData, Verdict};

    #[test]
    fn an_element_with_verdict_and_counter_is_read_whole() {
        // Linux 6.18: map m { type mark : verdict; counter; elements = { 0x100 : goto u_1 } }
        let body = captured(
            "010000090b000100686f6d696e670000060002006d00000058000300540001000c00010008000100
             00010000180002001400020008000100fffffffc08000200755f31002c0007000c000100636f756e
             746572001c0002000c00010000000000000000000c0002000000000000000000",
        );
        let elements = decode_list(&body[HEADER_LEN..]);
        assert_eq!(elements.len(), 1);
        assert_eq!(elements[0].key.as_slice(), 0x100_u32.to_le_bytes());
        assert_eq!(elements[0].data, ElementData::Verdict(Verdict::Goto("u_1".into())));
        assert_eq!((elements[0].packets, elements[0].timeout_ms), (Some(0), None));
        for end in HEADER_LEN..body.len() {
            let _ = decode_list(&body[HEADER_LEN..end]);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for data in [
            ElementData::Nothing,
            ElementData::Value([1, 2].as_slice().into()),
            ElementData::Verdict(Verdict::Jump("u_1".into())),
            ElementData::Verdict(Verdict::Drop),
            ElementData::Verdict(Verdict::Other(-5)),
        ] {
            let mut message = Message::new(0, 0);
            message.nest(attr::LIST_ELEMENTS, |m| encode(m, b"key", Some(&data)));
            let bytes = message.finish(1);
            let read: Vec<_> = messages(&bytes).flat_map(|m| decode_list(m.body)).collect();
            assert_eq!(read.len(), 1);
            assert_eq!((read[0].key.as_slice(), &read[0].data), (&b"key"[..], &data));
        }
    }
}
