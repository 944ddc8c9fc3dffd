//! The elements of a set or map: one after the other, in the order of their keys.
//!
//! There may be hundreds of thousands. They are made at once and then looked into, so a sorted list
//! serves better than a tree: half the memory, and built in less time. A clone is the same list until
//! one of both changes.

use std::sync::Arc;

use super::nft::{Bytes, ElementData};

/// Key → data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elements(Arc<Vec<(Bytes, ElementData)>>);

impl Elements {
    /// None.
    pub fn new() -> Elements {
        Elements::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_slice().cmp(key))
    }

    /// What a key leads to.
    pub fn get(&self, key: &[u8]) -> Option<&ElementData> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &[u8]) -> bool {
        self.place(key).is_ok()
    }

    /// Adds one, in the place of what that key led to. Many are better collected.
    pub fn insert(&mut self, key: Bytes, data: ElementData) {
        let place = self.place(&key);
        let all = Arc::make_mut(&mut self.0);
        match place {
            Ok(place) => all[place].1 = data,
            Err(place) => all.insert(place, (key, data)),
        }
    }

    /// Takes one away; what it led to.
    pub fn remove(&mut self, key: &[u8]) -> Option<ElementData> {
        self.place(key).ok().map(|place| Arc::make_mut(&mut self.0).remove(place).1)
    }

    /// Keeps those that are to stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&Bytes, &ElementData) -> bool) {
        Arc::make_mut(&mut self.0).retain(|(key, data)| stays(key, data));
    }

    /// In the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &ElementData)> {
        self.into_iter()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Of two lists that are the same one is let go of.
    pub fn share(&mut self, other: &Elements) {
        if self == other {
            self.clone_from(other);
        }
    }

    /// Those that are not so in `other`.
    #[must_use]
    pub fn missing_in(&self, other: &Elements) -> Elements {
        let mut there = other.0.iter().peekable();
        let differs = |(key, data): &&(Bytes, ElementData)| {
            while there.next_if(|(known, _)| known < key).is_some() {}
            there.peek().is_none_or(|(known, value)| known != key || value != data)
        };
        Elements(Arc::new(self.0.iter().filter(differs).cloned().collect()))
    }
}

/// Elements in the order of their keys.
pub(super) type Iter<'a> = std::iter::Map<
    std::slice::Iter<'a, (Bytes, ElementData)>,
    fn(&'a (Bytes, ElementData)) -> (&'a Bytes, &'a ElementData),
>;

/// Of several with one key the last counts.
impl FromIterator<(Bytes, ElementData)> for Elements {
    fn from_iter<T: IntoIterator<Item = (Bytes, ElementData)>>(elements: T) -> Elements {
        let mut all: Vec<_> = elements.into_iter().collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        all.shrink_to_fit();
        Elements(Arc::new(all))
    }
}

impl Extend<(Bytes, ElementData)> for Elements {
    fn extend<T: IntoIterator<Item = (Bytes, ElementData)>>(&mut self, elements: T) {
        *self = std::mem::take(self).into_iter().chain(elements).collect();
    }
}

impl<const COUNT: usize> From<[(Bytes, ElementData); COUNT]> for Elements {
    fn from(elements: [(Bytes, ElementData); COUNT]) -> Elements {
        elements.into_iter().collect()
    }
}

impl IntoIterator for Elements {
    type Item = (Bytes, ElementData);
    type IntoIter = std::vec::IntoIter<(Bytes, ElementData)>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = (&'a Bytes, &'a ElementData);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.0.iter().map(|(key, data)| (key, data))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Bytes, ElementData, Elements};

    fn element(key: u8, value: u8) -> (Bytes, ElementData) {
        (Bytes::from_slice(&[key]), ElementData::Value(Bytes::from_slice(&[value])))
    }

    fn some() -> impl Strategy<Value = Vec<(u8, u8)>> {
        proptest::collection::vec((0..12_u8, 0..3_u8), 0..20)
    }

    proptest! {
        /// The same as a tree would do.
        #[test]
        fn elements_are_as_in_a_tree(first in some(), second in some(), gone in 0..12_u8) {
            let all = |list: &[(u8, u8)]| list.iter().map(|(k, v)| element(*k, *v)).collect::<Vec<_>>();
            let mut tree: BTreeMap<_, _> = all(&first).into_iter().collect();
            let mut elements: Elements = all(&first).into_iter().collect();
            prop_assert!(elements.iter().eq(&tree));

            let other: Elements = all(&second).into_iter().collect();
            let missing = tree.iter().filter(|(key, data)| other.get(key) != Some(*data));
            prop_assert!(elements.missing_in(&other).iter().eq(missing));

            let mut one_by_one = elements.clone();
            all(&second).into_iter().for_each(|(key, data)| one_by_one.insert(key, data));
            elements.extend(all(&second));
            tree.extend(all(&second));
            prop_assert!(elements.iter().eq(&tree));
            prop_assert_eq!(&one_by_one, &elements);

            let key = [gone];
            prop_assert_eq!(elements.remove(&key), tree.remove(&Bytes::from_slice(&key)));
            prop_assert!(elements.iter().eq(&tree));
            prop_assert!(!elements.contains_key(&key));
        }
    }
}
