//! A location for files that must not be lost.

use std::fs::File;
use std::io::Write;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{OfflineError, failed, remote, unreadable};

/// A file that nobody finished for so long never will be.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What is read of a file's end at first; most footers fit.
const FOOTER_BYTES: u64 = 64 * 1024;

/// A folder, or a prefix in an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder, if it is one: object_store's own writes to disk are not synced.
    local: Option<Arc<LocalFolder>>,
    url: String,
}

#[derive(Debug)]
struct LocalFolder {
    root: PathBuf,
    files: Arc<LocalFileSystem>,
}

impl Storage {
    /// Opens a location: a folder (made if it is not there), or a URL of an object store, which isn't asked yet. What the store
    /// wants to know is in the environment.
    pub fn open(location: &str) -> Result<Storage, OfflineError> {
        Storage::open_with(location, remote::environment())
    }

    /// As [`Storage::open`], with an object store's options by the names of its environment variables.
    pub fn open_with(
        location: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Storage, OfflineError> {
        let refused = |cause: String| OfflineError::Location { location: location.into(), cause };
        let folder = match location.strip_prefix("file://") {
            Some(path) => Some(PathBuf::from(path)),
            None if location.contains("://") => None,
            None => Some(PathBuf::from(location)),
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(&folder).map_err(|e| refused(e.to_string()))?;
            let root = folder.canonicalize().map_err(|e| refused(e.to_string()))?;
            let files = Arc::new(LocalFileSystem::new_with_prefix(&root).map_err(|e| refused(e.to_string()))?);
            let url = format!("{}/", root.display());
            let local = Some(Arc::new(LocalFolder { root, files: Arc::clone(&files) }));
            return Ok(Storage { store: files, prefix: Path::default(), local, url });
        }
        let url = ListingTableUrl::parse(format!("{}/", location.trim_end_matches('/')))
            .map_err(|e| refused(e.to_string()))?;
        let (store, prefix) = remote::connect(url.get_url(), options).map_err(|e| refused(e.to_string()))?;
        Ok(Storage { store, prefix, local: None, url: url.as_str().into() })
    }

    /// Where a file is, as DataFusion names it.
    pub fn url_of(&self, path: &Path) -> Result<ListingTableUrl, OfflineError> {
        let relative = path.prefix_match(&self.prefix).map(|parts| parts.collect::<Path>()).unwrap_or_default();
        ListingTableUrl::parse(format!("{}{relative}", self.url)).map_err(failed(path, "no URL"))
    }

    /// Makes the location known to a session of DataFusion, which knows folders by itself.
    pub fn register(&self, runtime: &RuntimeEnv) -> datafusion::common::Result<()> {
        if self.local.is_none() {
            let url = ListingTableUrl::parse(&self.url)?.object_store();
            runtime.register_object_store(url.as_ref(), Arc::clone(&self.store));
        }
        Ok(())
    }

    /// The path of `parts` under this location.
    pub fn path(&self, parts: &[&str]) -> Path {
        self.prefix.parts().chain(parts.iter().map(|part| (*part).into())).collect()
    }

    /// Writes a file, in place of the one of that name. It is whole and durable when this returns.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), OfflineError> {
        self.write(path, bytes, PutMode::Overwrite).await
    }

    /// Writes a file that must not be there yet; [`OfflineError::Conflict`] if it is. Of several who try, one succeeds.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<(), OfflineError> {
        self.write(path, bytes, PutMode::Create).await
    }

    async fn write(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<(), OfflineError> {
        let Some(folder) = &self.local else {
            return match self.store.put_opts(path, bytes.into(), mode.into()).await {
                Err(object_store::Error::AlreadyExists { .. }) => {
                    Err(OfflineError::Conflict { path: path.to_string() })
                }
                written => written.map(|_| ()).map_err(failed(path, "can't write")),
            };
        };
        let file = folder.files.path_to_filesystem(path).map_err(failed(path, "can't write"))?;
        let folder = Arc::clone(folder);
        let replace = matches!(mode, PutMode::Overwrite);
        let written = tokio::task::spawn_blocking(move || write_durably(&folder.root, &file, &bytes, replace)).await;
        match written.map_err(failed(path, "can't write"))? {
            Err(e) if !replace && e.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(OfflineError::Conflict { path: path.to_string() })
            }
            written => written.map_err(failed(path, "can't write")),
        }
    }

    /// The whole files under a path with an extension (no dot), in no order.
    pub async fn list(&self, path: &Path, extension: &str) -> Result<Vec<ObjectMeta>, OfflineError> {
        let files: Vec<ObjectMeta> =
            self.store.list(Some(path)).try_collect().await.map_err(failed(path, "can't list"))?;
        Ok(files.into_iter().filter(|file| file.location.extension() == Some(extension)).collect())
    }

    /// Removes what crashed writers left under a path: files that were never whole, and that nobody can still be writing.
    pub async fn sweep(&self, path: &Path) -> Result<(), OfflineError> {
        let Some(folder) = &self.local else { return Ok(()) };
        let root = folder.files.path_to_filesystem(path).map_err(failed(path, "can't sweep"))?;
        let swept = tokio::task::spawn_blocking(move || sweep(&root)).await;
        swept.map_err(failed(path, "can't sweep"))?.map_err(failed(path, "can't sweep"))
    }

    /// What the footer of a Parquet file says.
    pub async fn footer(&self, file: &ObjectMeta) -> Result<ParquetMetaData, OfflineError> {
        let mut reader = ParquetMetaDataReader::new();
        let mut tail = FOOTER_BYTES.min(file.size);
        loop {
            let range = file.size - tail..file.size;
            let bytes = self.store.get_range(&file.location, range).await;
            let bytes = bytes.map_err(unreadable(&file.location, "can't read its footer"))?;
            match reader.try_parse_sized(&bytes, file.size) {
                Ok(()) => break,
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > tail => tail = needed as u64,
                Err(e) => return Err(failed(&file.location, "can't read its footer")(e)),
            }
        }
        reader.finish().map_err(failed(&file.location, "can't read its footer"))
    }

    pub async fn get(&self, path: &Path) -> Result<Bytes, OfflineError> {
        let result = self.store.get(path).await.map_err(unreadable(path, "can't read"))?;
        result.bytes().await.map_err(failed(path, "can't read"))
    }

    /// Removes a file; that another did it before is as well.
    pub async fn remove(&self, path: &Path) -> Result<(), OfflineError> {
        match self.store.delete(path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(failed(path, "can't remove")),
        }
    }
}

fn sweep(folder: &FsPath) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Another instance may sweep too.
        let Ok(known) = entry.metadata() else { continue };
        if known.is_dir() {
            sweep(&entry.path())?;
        } else if name.starts_with('.')
            && name.ends_with(".tmp")
            && known.modified()?.elapsed().is_ok_and(|age| age > ABANDONED)
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn write_durably(root: &FsPath, file: &FsPath, bytes: &[u8], replace: bool) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(root);
    std::fs::create_dir_all(folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // A name that nobody has: another process may be writing the same file. What a crash leaves is never read.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let temporary = folder.join(format!(".{name}.{}-{now}.tmp", std::process::id()));
    let mut out = File::create_new(&temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    if replace {
        std::fs::rename(&temporary, file)?;
    } else {
        // A link, unlike a rename, never takes the place of a file.
        let linked = std::fs::hard_link(&temporary, file);
        std::fs::remove_file(&temporary)?;
        linked?;
    }
    // A name is durable with its folder, and a new folder with the one above it.
    for folder in folder.ancestors() {
        File::open(folder)?.sync_all()?;
        if folder == root {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
