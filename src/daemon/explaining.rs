//! Answers `explain`: asks the kernel what only it knows, and hands that to the pure part.

use std::sync::Arc;
use std::time::Duration;

use super::reconcile::{describe, observe_for};
use super::requests::Refusal;
use crate::kernel::{KernelError, Linux};
use crate::kstate::ElementData;
use crate::model::Mark;
use crate::plan::explain::{
    self, Explanation, Found, Origin, Question, Scene, asks, binding_of, origin, origin_query,
};
use crate::plan::{self, Layout, Standings};

/// Explains one session over the kernel as it is now.
pub(super) fn explain(
    kernel: &mut Linux,
    layout: &Layout,
    standings: &Arc<Standings>,
    question: &Question,
) -> Result<Explanation, Refusal> {
    let refuse = |error: KernelError| Refusal(describe(&error));
    let seen = observe_for(kernel, layout).map_err(refuse)?;
    let view = plan::assess(layout, &seen, standings);
    let scene = Scene { layout, view: &view, seen: &seen };
    let back = kernel.lookup(&origin_query(layout, question)).map_err(refuse)?;
    let origin = origin(scene, question, &back).map_err(Refusal)?;
    let found = gather(kernel, scene, question, &origin).map_err(refuse)?;
    Ok(explain::explain(scene, question, &origin, &found))
}

fn gather(
    kernel: &mut Linux,
    scene: Scene<'_>,
    question: &Question,
    origin: &Origin,
) -> Result<Found, KernelError> {
    let mut found = Found::default();
    for (ask, query) in asks(scene.layout, question, origin) {
        found.routes.insert(ask, kernel.lookup(&query)?);
    }
    let map = binding_of(scene, question, origin);
    // A table that somebody has just deleted has no bindings.
    let there = |name: &str| scene.seen.ours.nft.iter().any(|t| t.sets.contains_key(name));
    if let Some((map, key)) = map.filter(|(map, _)| there(map)) {
        found.binding = kernel.get_element(&map, &key)?.and_then(|element| {
            let ElementData::Value(mark) = element.data else { return None };
            let mark = Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?));
            Some((mark, Duration::from_millis(element.expires_ms.unwrap_or(0))))
        });
    }
    Ok(found)
}
