//! Which version of a view or service answers: the project's own, or, for as long as that lacks its history, the one that was live before.
//!
//! Guarantee: a service's answer comes from one version, its own views and joins and no other's. It changes from the old one to the new one between two
//! reads, once, when the store has all that the new one's views need.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Platform, PlatformError};
use crate::catalog::Source;
use crate::offline::Storage;
use crate::plan::{FeatureService, FeatureView, Project};

/// How often to look whether every view can be read.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait after an object store failed.
const PUBLISH_AGAIN: Duration = Duration::from_secs(5);

impl Platform {
    /// Goes on serving what was live before, while what is new or was changed since fills. Before the workers start.
    pub async fn resume(&mut self) -> Result<(), PlatformError> {
        let storage = Storage::open(self.folder.offline())?;
        let scratch = self.folder.path().join(format!(".previous-{}", std::process::id()));
        if let Some(release) = &self.release {
            // Of a process that had the same number, and was killed.
            let _ = std::fs::remove_dir_all(&scratch);
            let previous = release.previous(&storage, &scratch).await;
            // All that is needed of it is in memory.
            let _ = std::fs::remove_dir_all(&scratch);
            self.previous = previous.unwrap_or_else(|error| {
                tracing::warn!(%error, "what was live before can't be read: it is not served");
                None
            });
        }
        Ok(())
    }

    /// Waits until every view can be read, and keeps the project as what is live.
    pub async fn settle(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, stop.wait_for(|stop| *stop)).await;
            if *stop.borrow() {
                return;
            }
            if self.filled() {
                if self.publish().await {
                    self.progress.settle();
                    return;
                }
                let _ = tokio::time::timeout(PUBLISH_AGAIN, stop.wait_for(|stop| *stop)).await;
            }
        }
    }

    /// Whether every view that can run has its history.
    pub(super) fn filled(&self) -> bool {
        let mut views = self.project.views.values().filter(|view| !view.fingerprint.is_empty());
        views.all(|view| self.answers(view))
    }

    /// A service in the version that can answer; if none can, the project's own.
    pub fn service(&self, name: &str) -> Option<&Arc<FeatureService>> {
        let own = self.project.services.get(name)?;
        let answers = |service: &&Arc<FeatureService>| service.views().iter().all(|(view, _)| self.answers(view));
        if answers(&own) {
            return Some(own);
        }
        Some(self.previous.as_ref().and_then(|previous| previous.services.get(name)).filter(answers).unwrap_or(own))
    }

    /// A view in the version that can answer; if none can, the project's own.
    pub fn view(&self, name: &str) -> Option<&Arc<FeatureView>> {
        let own = self.project.views.get(name)?;
        let former = || self.previous.as_ref()?.views.get(name).filter(|view| self.answers(view));
        Some(if self.answers(own) { own } else { former().unwrap_or(own) })
    }

    fn answers(&self, view: &FeatureView) -> bool {
        self.progress.filled(&view.id())
    }

    /// Earlier versions of a source's views that are to be kept fresh: those that were live, and whose state is there.
    pub(super) async fn retained(&self, source: &Source) -> Result<Vec<Arc<FeatureView>>, PlatformError> {
        let former = |project: &Arc<Project>| project.views_of(&source.name);
        let mut retained = vec![];
        for view in self.previous.as_ref().map(former).unwrap_or_default() {
            let own = self.project.views.get(&view.name);
            let changed = own.is_none_or(|own| own.fingerprint != view.fingerprint);
            if !changed || view.fingerprint.is_empty() || !same_events(&view.source, source) {
                continue;
            }
            if !self.store.progress(&view.id()).await?.is_empty() {
                tracing::info!(view = view.name, "its version before is served until this one is filled");
                retained.push(view);
            }
        }
        Ok(retained)
    }

    /// Keeps the project as what is live. What keeps it from that is logged: nothing depends on it but the next version. False if it
    /// may help to try again.
    pub(super) async fn publish(&self) -> bool {
        let Some(release) = &self.release else { return true };
        let published = async { release.publish(&Storage::open(self.folder.offline())?).await };
        published
            .await
            .inspect_err(|error| tracing::warn!(%error, "the definitions that are live can't be kept"))
            .is_ok()
    }
}

/// Whether a view that was compiled over one version of a source can read the events of another.
fn same_events(old: &Source, new: &Source) -> bool {
    let known = |field: &Arc<arrow::datatypes::Field>| {
        new.schema.field_with_name(field.name()).is_ok_and(|now| now.data_type() == field.data_type())
    };
    old.of == new.of && old.topic() == new.topic() && old.schema.fields().iter().all(known)
}
