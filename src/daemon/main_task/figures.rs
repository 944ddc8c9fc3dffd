//! Figures for those who ask: read elsewhere, put together here.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::super::failovers::Place;
use super::super::reader::Asked;
use super::super::requests::Census;
use super::super::status::{Background, Reading, Sample, Status, build_status};
use super::{Done, For, MainTask, PATIENCE};
use crate::clock;
use crate::kernel::read_device_bytes;

impl MainTask {
    /// Has figures read.
    pub(super) fn measure(&mut self, whom: For) {
        let (ask, answer) = oneshot::channel();
        self.workers.reader.ask(Asked::Measures(self.engine.sight(), ask));
        self.pending.spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            let measures = answer.ok().and_then(Result::ok).unwrap_or_default();
            Done::Measured(Box::new(Sample { at: clock::now(), measures }), whom)
        });
    }

    /// From here on rates are measured; and how many sessions there are is known before somebody asks.
    pub(super) fn sample(&mut self) {
        match read_device_bytes() {
            Ok(bytes) => self.reading = Some(Reading { at: clock::now(), bytes }),
            Err(error) => tracing::debug!("rates are not known: {error}"),
        }
        self.workers.reader.ask(Asked::Count(self.engine.sight()));
    }

    pub(super) fn status(&self, now: &Sample) -> Status {
        let background = Background {
            ready: self.engine.ready,
            generation: self.engine.generation,
            since: self.since,
            applying: self.engine.is_applying(),
            last_apply_ms: self.engine.last_apply_ms,
            last_steer_ms: self.last_steer.map(|took| took.as_secs_f64() * 1000.0),
            drift_repairs: self.engine.drift_repairs,
            sessions_adopted: self.engine.sessions_adopted,
            sessions_ended: self.engine.sessions_ended,
            uplinks_since: self.engine.uplinks_since.clone(),
            evacuated: self.engine.evacuated.clone(),
            evacuated_servers: self.engine.evacuated_servers.clone(),
            checks: &self.engine.checks,
            troubles: &self.troubles,
        };
        let report = self.engine.report.as_ref();
        let view = self.engine.view();
        let judge = &self.engine.judge;
        let earlier = self.reading.as_ref();
        build_status(&self.engine.layout, report, view.as_ref(), judge, &background, earlier, now)
    }

    pub(super) fn census(&self, sample: Sample) -> Census {
        let engine = &self.engine;
        let uplinks = engine.layout.site.uplinks.iter();
        let bytes = uplinks.map(|uplink| {
            let carried = sample.measures.bytes.get(&uplink.interface).copied();
            (uplink.name.to_string(), carried.unwrap_or_default())
        });
        let marked = sample.measures.sessions.iter().filter(|(mark, _)| **mark != 0);
        Census {
            bytes: bytes.collect(),
            sessions: marked.map(|(_, count)| count).sum(),
            failovers: by_name(&engine.failovers.failovers),
            failbacks: by_name(&engine.failovers.failbacks),
            applies: engine.applies.clone(),
            events: self.log.totals(),
            notices: self.notifier.counts(),
            conntrack: sample.measures.conntrack,
            status: self.status(&sample),
            maps: sample.measures.maps,
        }
    }
}

/// With the names that people know.
fn by_name(counts: &BTreeMap<Place, u64>) -> BTreeMap<(String, &'static str), u64> {
    let named =
        |((uplink, family), count): (&Place, &u64)| ((uplink.to_string(), family.as_str()), *count);
    counts.iter().map(named).collect()
}
