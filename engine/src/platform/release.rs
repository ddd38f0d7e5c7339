//! Releases: definitions whose views have all of their history, kept so that a later process can go on serving them while what was
//! changed since fills.
//!
//! ```text
//! <offline>/releases/<id>/…        the project's files: definitions, contracts, dimension tables
//! <offline>/releases/<id>.json     their paths, each with a hash of what is in it
//! <offline>/releases/live.json     {"release": <id>}
//! ```
//!
//! Guarantees: a release is named live once its files are there, whole, and every view of it can be read. What is read of it later compiles
//! to the views whose state is in the store, or it isn't used: a view's fingerprint says so.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PlatformError;
use crate::offline::{OfflineError, Storage};
use crate::plan::Project;

/// The files of a project as a process found them.
#[derive(Debug, Clone)]
pub struct Release {
    id: String,
    root: PathBuf,
    /// Path below the project folder, and a hash of what is in the file.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Live {
    release: String,
}

impl Release {
    /// Reads a project's files. Tables elsewhere than in the project folder are not among them.
    pub fn of(project: &Project) -> Result<Release, PlatformError> {
        let mut paths = below(&project.features, "sql");
        paths.extend(below(&project.root.join("schemas"), "avsc"));
        paths.extend(project.tables.values().flat_map(|table| table.paths()));
        let mut files = BTreeMap::new();
        let mut all = Sha256::new();
        for path in paths {
            let Ok(name) = path.strip_prefix(&project.root) else { continue };
            let name = name.to_string_lossy().replace('\\', "/");
            files.insert(name, hash(&read(&path)?));
        }
        for (name, hash) in &files {
            all.update(format!("{name}\n{hash}\n"));
        }
        let id = all.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Release { id, root: project.root.clone(), files })
    }

    /// Keeps it, and names it live. Not if a file is another one by now: what is served was compiled from the one before.
    pub async fn publish(&self, storage: &Storage) -> Result<(), PlatformError> {
        if live(storage).await?.as_ref() == Some(&self.id) {
            return Ok(());
        }
        for (name, expected) in &self.files {
            let content = read(&self.root.join(name))?;
            if hash(&content) != *expected {
                tracing::info!(file = name, "was changed since the start: the definitions that are live are not kept");
                return Ok(());
            }
            storage.put(&place(storage, &self.id, name), content.into()).await?;
        }
        put(storage, &list(storage, &self.id), &self.files).await?;
        put(storage, &pointer(storage), &Live { release: self.id.clone() }).await
    }

    /// What is live, if that is another release; its files are laid out in a folder that this process may use for that.
    pub async fn previous(&self, storage: &Storage, scratch: &Path) -> Result<Option<Arc<Project>>, PlatformError> {
        let Some(id) = live(storage).await?.filter(|id| *id != self.id) else { return Ok(None) };
        let folder = scratch.join(&id);
        let files: BTreeMap<String, String> = get(storage, &list(storage, &id)).await?;
        let inside = |name: &&String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        for name in files.keys().filter(inside) {
            write(&folder.join(name), &storage.get(&place(storage, &id, name)).await?)?;
        }
        self.lend(&folder)?;
        let features = self.features();
        match Project::load(&folder, &folder.join(features)).await {
            Ok(project) => Ok(Some(Arc::new(project))),
            Err(error) => {
                tracing::warn!(%error, release = id, "what was live before can't be compiled: it is not served");
                Ok(None)
            }
        }
    }

    /// What else is in the project folder, such as the files of a source, is there for the other release too.
    fn lend(&self, folder: &Path) -> Result<(), PlatformError> {
        let failed = |source| PlatformError::Folder { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        #[cfg(unix)]
        for entry in std::fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let here = folder.join(entry.file_name());
            if !here.exists() && !folder.starts_with(entry.path()) {
                std::os::unix::fs::symlink(entry.path(), here).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn features(&self) -> &str {
        let sql = self.files.keys().find(|name| name.ends_with(".sql"));
        sql.and_then(|name| name.split('/').next()).unwrap_or("features")
    }
}

async fn live(storage: &Storage) -> Result<Option<String>, PlatformError> {
    let files = storage.list(&storage.path(&["releases"]), "json").await?;
    let pointer = pointer(storage);
    if !files.iter().any(|file| file.location == pointer) {
        return Ok(None);
    }
    let live: Live = get(storage, &pointer).await?;
    Ok(Some(live.release))
}

async fn get<T: DeserializeOwned>(storage: &Storage, path: &ObjectPath) -> Result<T, PlatformError> {
    serde_json::from_slice(&storage.get(path).await?).map_err(|e| damaged(path, &e))
}

async fn put(storage: &Storage, path: &ObjectPath, value: &impl Serialize) -> Result<(), PlatformError> {
    let text = serde_json::to_vec(value).map_err(|e| damaged(path, &e))?;
    Ok(storage.put(path, Bytes::from(text)).await?)
}

fn pointer(storage: &Storage) -> ObjectPath {
    storage.path(&["releases", "live.json"])
}

fn list(storage: &Storage, id: &str) -> ObjectPath {
    storage.path(&["releases", &format!("{id}.json")])
}

fn place(storage: &Storage, id: &str, name: &str) -> ObjectPath {
    storage.path(&["releases", id].into_iter().chain(name.split('/')).collect::<Vec<_>>())
}

fn damaged(path: &ObjectPath, error: &serde_json::Error) -> PlatformError {
    OfflineError::Foreign { path: path.to_string(), cause: error.to_string() }.into()
}

fn below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let pattern = format!("{}/**/*.{extension}", glob::Pattern::escape(&folder.to_string_lossy()));
    glob::glob(&pattern).into_iter().flatten().flatten().collect()
}

fn read(path: &Path) -> Result<Vec<u8>, PlatformError> {
    std::fs::read(path).map_err(|source| PlatformError::Folder { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), PlatformError> {
    let failed = |source| PlatformError::Folder { path: path.to_owned(), source };
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    std::fs::write(path, content).map_err(failed)
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
