//! A large table that is new: its structure by `nft`, the sets of its services after that.
//!
//! For elements `nft` takes three times as long as we do. Before, no service was served, so all this need
//! not be one transaction; what is in force is never changed like this, and what steers sessions to the
//! internet is always whole. At last come the maps that lead to services: until then nobody finds one.

use super::KernelError;
use super::nft_write::{Change, Writer, apply_elements, script};
use crate::kstate::NftOp;

/// So many elements of services make a table a large one.
const LARGE: usize = 10_000;
/// Elements of one transaction then, or a few more: what is sent at once has to fit into a socket's buffer.
const PORTION: usize = 20_000;

/// How a large table is made.
pub(super) struct Stages<'a> {
    structure: Vec<&'a NftOp>,
    /// Sets of services, in this order.
    sets: Vec<Change<'a>>,
}

/// When a set of services is filled; `None` for all others. A set's name says what it is for.
fn turn(set: &str) -> Option<u8> {
    let stem = set.split('-').next().unwrap_or_default().trim_end_matches(['4', '6']);
    match stem {
        "services" | "protocols" | "virtuals" => Some(1),
        "hosts" | "targets" | "admit" => Some(0),
        "slots" | "keepable" | "choosable" if set.contains("-servers") => Some(0),
        _ => None,
    }
}

impl<'a> Stages<'a> {
    /// Nothing where it has to be one transaction.
    pub(super) fn of(ops: &'a [NftOp]) -> Option<Stages<'a>> {
        let turn_of = |op: &NftOp| match op {
            NftOp::AddElements { set, .. } => turn(set),
            _ => None,
        };
        let (sets, structure): (Vec<_>, Vec<_>) = ops.iter().partition(|op| turn_of(op).is_some());
        let mut sets: Vec<Change<'_>> = sets.into_iter().filter_map(Change::of).collect();
        sets.sort_by_key(|change| turn(change.set));
        let new = ops.contains(&NftOp::AddTable) && !ops.contains(&NftOp::DeleteTable);
        let elements: usize = sets.iter().map(|change| change.elements.len()).sum();
        (new && elements >= LARGE).then_some(Stages { structure, sets })
    }

    /// What is refused does not keep the rest from being done; the first reason comes back.
    pub(super) fn apply(&self, writer: &mut Writer) -> Result<(), KernelError> {
        writer.script(&script(&self.structure))?;
        let done = portions(&self.sets).map(|portion| apply_elements(writer, portion));
        done.fold(Ok(()), Result::and)
    }
}

/// As many as fit into one transaction, at least one.
fn portions<'a>(changes: &'a [Change<'a>]) -> impl Iterator<Item = &'a [Change<'a>]> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        let mut elements = 0;
        let fits = |change: &&Change<'_>| {
            elements += change.elements.len();
            elements <= PORTION
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (portion, later) = rest.split_at(count);
        rest = later;
        (!portion.is_empty()).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::{LARGE, PORTION, Stages, portions};
    use crate::kstate::{Bytes, ElementData, NftOp, SetShape};

    fn fill(set: &str, count: usize) -> NftOp {
        let element = |n: usize| (Bytes::from_slice(&n.to_be_bytes()), ElementData::Nothing);
        let (set, shape) = (set.to_owned(), SetShape::default());
        NftOp::AddElements { set, shape, elements: (0..count).map(element).collect() }
    }

    #[test]
    fn a_large_table_is_made_in_stages() {
        let chain = NftOp::FlushChain("x".into());
        let ops = [
            NftOp::AddTable,
            chain,
            fill("services4", 7),
            fill("slots4-7f2a93c1", 256),
            fill("own4", LARGE),
            fill("slots4-servers-3", LARGE),
            fill("hosts6-0", PORTION),
        ];
        let Some(stages) = Stages::of(&ops) else { panic!("it is large") };
        assert_eq!(stages.structure, [&ops[0], &ops[1], &ops[3], &ops[4]]);
        let names: Vec<Vec<_>> = portions(&stages.sets)
            .map(|portion| portion.iter().map(|change| change.set).collect())
            .collect();
        assert_eq!(names, [vec!["slots4-servers-3"], vec!["hosts6-0"], vec!["services4"]]);
    }

    #[test]
    fn what_is_in_force_changes_at_once_and_so_does_what_is_small() {
        let fill = |count| fill("hosts4-1", count);
        assert!(Stages::of(&[fill(LARGE), NftOp::FlushChain("x".into())]).is_none());
        assert!(Stages::of(&[NftOp::DeleteTable, NftOp::AddTable, fill(LARGE)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE - 1)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE)]).is_some());
    }
}
