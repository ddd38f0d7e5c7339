//! Views over a source whose oldest events are gone.
//!
//! Guarantee: an instant that a view can be answered for needs no event before the horizon, by the kernel's own frames.

use super::FeatureView;
use super::problem::Problem;
use crate::kernel::{Aggregate, Frame};
use crate::source::instant;

impl FeatureView {
    /// Whether a frame reaches back before a horizon at an instant.
    pub fn needs_before(&self, horizon: i64, at: i64) -> bool {
        self.kernel.since(at) < horizon
    }

    /// What is wrong with it beside its source's retention: a frame that needs all events, so that `compact` will remove none.
    pub(super) fn against_retention(&self) -> Option<Problem> {
        self.source.options.retention.as_ref()?;
        let spec = self.kernel.spec();
        let needs_all = |aggregate: &&Aggregate| match spec.frames.get(aggregate.frame)? {
            Frame::Range { start: Some(_), .. } => None,
            Frame::Range { .. } => Some("unbounded"),
            Frame::Rows { .. } => Some("rows"),
        };
        let (aggregate, word) =
            spec.aggregates.iter().find_map(|aggregate| Some((aggregate, needs_all(&aggregate)?)))?;
        let source = &self.source.name;
        let problem = Problem::new(format!(
            "view `{}` needs all events there ever were: `tidemark compact` refuses to apply the retention of source `{source}`",
            self.name
        ));
        let hint = format!("bound the frame, or leave `retention` out of source `{source}`");
        let problem = problem.expected("INTERVAL '…' PRECEDING, not UNBOUNDED or ROWS").hint(hint);
        Some(problem.in_window(aggregate.function.name(), word))
    }

    /// Whether it needs all events there ever were, at every instant.
    pub fn needs_all(&self) -> bool {
        self.kernel.reach().is_none()
    }

    /// What is said where it needs events before a horizon.
    pub fn beyond(&self, horizon: i64) -> String {
        let source = &self.source.name;
        if horizon == i64::MAX {
            return format!(
                "retention removed events of source {source} by the time in another column than `{}`, so that what is left \
                 can't be told; expected the timestamp that the source had then",
                self.source.timestamp
            );
        }
        let gone =
            format!("events of source {source} before {} were removed from its archive by retention", instant(horizon));
        match self.kernel.reaches_no_further_than(horizon) {
            Some(from) => {
                format!("its frames reach further back than the archive: {gone}; expected {} or later", instant(from))
            }
            None => format!(
                "it needs all events there ever were: {gone}; expected frames that begin an interval PRECEDING, not UNBOUNDED or ROWS"
            ),
        }
    }
}
