//! Whom an order is for.

use super::super::checks::Seat;
use super::super::requests::Refusal;
use crate::model::Group;
use crate::plan::Layout;

/// The server of that name, which may be in one group alone if none is given.
pub(super) fn find_server(
    layout: &Layout,
    group: Option<&str>,
    server: &str,
) -> Result<Seat, Refusal> {
    let groups = layout.site.groups.values();
    let groups = groups.filter(|one| group.is_none_or(|name| one.name.as_str() == name));
    let seat = |group: &Group| {
        let server = group.servers.iter().find(|one| one.name.as_str() == server)?;
        Some((group.name.clone(), server.name.clone()))
    };
    let found: Vec<Seat> = groups.filter_map(seat).collect();
    let shown = |seats: &[Seat]| {
        let all = seats.iter().take(20).map(|(group, server)| format!("{group}/{server}"));
        all.collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [seat] => Ok(seat.clone()),
        [] => {
            let name = group.map_or_else(|| server.to_owned(), |group| format!("{group}/{server}"));
            let all = layout.site.groups.values().flat_map(|group| {
                group.servers.iter().map(|server| (group.name.clone(), server.name.clone()))
            });
            let all: Vec<Seat> = all.collect();
            Err(Refusal(format!("there is no server `{name}`: there are {}", shown(&all))))
        }
        several => Err(Refusal(format!("`{server}` is the name of several: {}", shown(several)))),
    }
}

pub(super) fn unknown(uplink: &str, layout: &Layout) -> Refusal {
    let names: Vec<&str> = layout.site.uplinks.iter().map(|one| one.name.as_str()).collect();
    Refusal(format!("there is no uplink `{uplink}`: there are {}", names.join(", ")))
}
