//! Views over a source whose oldest events are gone.
//!
//! Guarantee: an instant that a view can be answered for needs no event before the horizon, by the kernel's own frames.

use super::FeatureView;
use crate::source::instant;

impl FeatureView {
    /// Whether a frame reaches back before a horizon at an instant.
    pub fn needs_before(&self, horizon: i64, at: i64) -> bool {
        self.kernel.since(at) < horizon
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
