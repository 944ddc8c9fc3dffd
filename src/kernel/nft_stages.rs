//! A large table that is new: its structure by `nft`, its large sets after that.
//!
//! For elements `nft` takes three times as long as we do. Before, nothing of all this was in force, so it need
//! not be one transaction; what is in force is never changed like this. At last come the maps that
//! lead to services.

use super::KernelError;
use super::nft_write::{Change, Writer, apply_elements, script};
use crate::kstate::{ElementData, NftOp};

/// Sets with so many elements are filled on their own, if together they have so many more.
const LARGE: (usize, usize) = (100, 10_000);
/// Elements of one transaction then, or a few more: what is sent at once has to fit into a socket's buffer.
const PORTION: usize = 20_000;

/// How a large table is made.
pub(super) struct Stages<'a> {
    structure: Vec<&'a NftOp>,
    /// Large sets; those that lead to chains at the end.
    large: Vec<Change<'a>>,
}

impl<'a> Stages<'a> {
    /// Nothing where it has to be one transaction.
    pub(super) fn of(ops: &'a [NftOp]) -> Option<Stages<'a>> {
        let is_large = |op: &&NftOp| match op {
            NftOp::AddElements { elements, .. } => elements.len() >= LARGE.0,
            _ => false,
        };
        let (large, structure): (Vec<_>, Vec<_>) = ops.iter().partition(is_large);
        let mut large: Vec<Change<'_>> = large.into_iter().filter_map(Change::of).collect();
        let leads = |(_, data): &(_, &ElementData)| matches!(data, ElementData::Verdict(_));
        large.sort_by_key(|change| change.elements.iter().any(leads));
        let new = ops.contains(&NftOp::AddTable) && !ops.contains(&NftOp::DeleteTable);
        let elements: usize = large.iter().map(|change| change.elements.len()).sum();
        (new && elements >= LARGE.1).then_some(Stages { structure, large })
    }

    pub(super) fn apply(&self, writer: &mut Writer) -> Result<(), KernelError> {
        writer.script(&script(&self.structure))?;
        apply_portions(writer, &self.large)
    }
}

fn apply_portions(writer: &mut Writer, changes: &[Change<'_>]) -> Result<(), KernelError> {
    let mut rest = changes;
    while !rest.is_empty() {
        let mut elements = 0;
        let fits = |change: &&Change<'_>| {
            elements += change.elements.len();
            elements <= PORTION
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (portion, later) = rest.split_at(count);
        apply_elements(writer, portion)?;
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LARGE, Stages};
    use crate::kstate::{Bytes, ElementData, NftOp, SetShape, Verdict};

    fn fill(set: &str, count: usize, data: &ElementData) -> NftOp {
        let element = |n: usize| (Bytes::from_slice(&n.to_be_bytes()), data.clone());
        let (set, shape) = (set.to_owned(), SetShape::default());
        NftOp::AddElements { set, shape, elements: (0..count).map(element).collect() }
    }

    #[test]
    fn a_large_table_is_made_in_stages() {
        let (plain, leads) = (ElementData::Nothing, ElementData::Verdict(Verdict::Accept));
        let chain = NftOp::FlushChain("x".into());
        let (small, last) = (fill("small", LARGE.0 - 1, &plain), fill("last", LARGE.0, &leads));
        let ops = [NftOp::AddTable, chain, last, small, fill("first", LARGE.1, &plain)];
        let Some(stages) = Stages::of(&ops) else { panic!("it is large") };
        assert_eq!(stages.structure, [&ops[0], &ops[1], &ops[3]]);
        let sets = stages.large.iter().map(|change| change.set);
        assert_eq!(sets.collect::<Vec<_>>(), ["first", "last"]);
    }

    #[test]
    fn what_is_in_force_changes_at_once_and_so_does_what_is_small() {
        let fill = |count| fill("a", count, &ElementData::Nothing);
        assert!(Stages::of(&[fill(LARGE.1), NftOp::FlushChain("x".into())]).is_none());
        assert!(Stages::of(&[NftOp::DeleteTable, NftOp::AddTable, fill(LARGE.1)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE.1 - 1)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE.1)]).is_some());
    }
}
