//! A view from its source's past into the online store, without a stream.
//!
//! Guarantee: the stream, wherever it runs, goes on from the offset after the last one absorbed: the view has its history then, and a
//! worker that takes it up begins where the store says. It may be loaded while streams run, also by another process of it:
//! see [`super::fill`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::StreamError;
use super::fill::{Fill, FillConfig, Gap, Reached};
use super::fold::Folded;
use super::known::known;
use super::past::Past;
use super::share::Writing;
use crate::online::OnlineStore;
use crate::plan::FeatureView;

/// How often to begin again when another writer got ahead, or the store was restarted.
const ATTEMPTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(500);

/// A view that is loaded.
#[derive(Debug)]
pub struct Load {
    pub view: Arc<FeatureView>,
    pub store: Arc<dyn OnlineStore>,
    pub past: Past,
    pub config: FillConfig,
    /// How far it is.
    pub reached: Reached,
}

impl Load {
    /// Loads what the view lacks, up to where the past ends now: by partition, from where to where. `heard` is told what became of each stretch's events.
    pub async fn run(
        &self,
        heard: &(dyn Fn(&FeatureView, &Folded) + Send + Sync),
    ) -> Result<BTreeMap<i32, (i64, i64)>, StreamError> {
        let mut loaded = BTreeMap::new();
        let mut attempts = 1;
        loop {
            match self.attempt(&mut loaded, heard).await {
                Err(error) if error.stale() && attempts < ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done.map(|()| loaded),
            }
        }
    }

    async fn attempt(
        &self,
        loaded: &mut BTreeMap<i32, (i64, i64)>,
        heard: &(dyn Fn(&FeatureView, &Folded) + Send + Sync),
    ) -> Result<(), StreamError> {
        let to = Writing { store: Arc::clone(&self.store), session: self.store.session().await? };
        let mut past = self.past.open(&self.view.source.name).await?;
        let ends = past.ends().await?;
        let starts = ends.keys().map(|partition| (*partition, 0)).collect();
        let mut known = known(&to, std::slice::from_ref(&self.view), &starts, &ends).await?;
        let known = known.pop().unwrap_or_default();
        let (mut gaps, mut left) = (vec![], 0);
        for (partition, end) in &ends {
            let from = known.stored.get(partition).copied().unwrap_or(0);
            left += past.between(*partition, from, *end).await?;
            loaded.entry(*partition).or_insert((from, *end)).1 = from.max(*end);
            gaps.push(Gap { view: Arc::clone(&self.view), partition: *partition, from });
        }
        self.reached.begins(left);
        Fill::new(to, past, ends, self.config.clone(), self.reached.clone()).run(gaps, heard).await
    }
}
