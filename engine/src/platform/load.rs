//! A view's state from its source's past into the online store, by a process that streams nothing.

use std::sync::Arc;

use super::past::stream_past;
use super::{Folder, PlatformError};
use crate::online::{EmbeddedStore, OnlineStore, RedisConfig, RedisStore};
use crate::plan::FeatureView;
use crate::source::files::Reading;
use crate::stream::{FillConfig, Load};

/// Bytes that an event takes while it is folded into one view, about.
const EVENT: usize = 640;
/// Events that are folded at once, and bytes of those that wait to be, where memory isn't limited.
const MOST: (usize, usize) = (1 << 20, 1 << 30);

/// The store of a folder, or what stands in for it.
pub(super) async fn open_store(
    folder: &Folder,
    redis: Option<&RedisConfig>,
) -> Result<Arc<dyn OnlineStore>, PlatformError> {
    Ok(match redis {
        Some(config) => Arc::new(RedisStore::open(config).await?),
        None => Arc::new(EmbeddedStore::open(folder.online())?),
    })
}

/// Opens the store and the past of a view's source. `memory`: bytes for events on their way.
pub async fn load(
    view: Arc<FeatureView>,
    folder: &Folder,
    redis: Option<&RedisConfig>,
    memory: Option<usize>,
) -> Result<Load, PlatformError> {
    if view.fingerprint.is_empty() {
        return Err(PlatformError::NotLoaded(view.name.clone()));
    }
    folder.make()?;
    let store = open_store(folder, redis).await?;
    // Files that no stream has read are numbered by who reads them first.
    let past = stream_past(folder, &view.source, Reading::Draining)?;
    let within = |bytes: usize| ((bytes / 2 / EVENT).clamp(1024, MOST.0), bytes / 2);
    let (records, memory) = memory.map_or(MOST, within);
    let config = FillConfig { records, memory, ..FillConfig::default() };
    Ok(Load { view, store, past, config, reached: Default::default() })
}
