//! What the table keeps of uplinks' addresses, for whoever builds the next one.

use super::build::{Builder, address_type, map_of, names};
use crate::kstate::{Elements, FieldType, Role, SetShape};
use crate::model::Family;
use crate::plan::view::{Layout, View};

/// Device and address → the uplink, and whether it is its own, or a further one.
pub(in crate::plan) fn places_shape(family: Family) -> SetShape {
    map_of(&[FieldType::IfName, address_type(family)], FieldType::Mark)
}

pub(super) fn add_sets(table: &mut Builder, layout: &Layout, view: &View) {
    for family in Family::BOTH.into_iter().filter(|_| !layout.site.services.is_empty()) {
        let mut elements = Elements::new();
        for (uplink, id) in layout.uplinks() {
            let places = view.uplinks.get(&uplink.name).and_then(|facts| facts.places.get(&family));
            places.into_iter().for_each(|one| one.write(&uplink.interface, id, &mut elements));
        }
        table.set(names::places(family), Role::Fixed, places_shape(family), "", elements);
    }
}
