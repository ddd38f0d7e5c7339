//! Releases: definitions whose views have all of their history, kept so that a later process can go on serving them while what was
//! changed since fills.
//!
//! ```text
//! <offline>/releases/<id>/…        the project's files: definitions, contracts, dimension tables
//! <offline>/releases/<id>.json     their paths, each with a hash of what is in it; and the version of each source's history, whose
//!                                  files are not kept: views have absorbed them
//! <offline>/releases/live.json     {"release": <id>}
//! ```
//!
//! Guarantees: a release is what the process began with, whatever became of its definitions and contracts since. It is named live once its
//! files are there, whole, and every view of it can be read. What is read of it later compiles
//! to the views whose state is in the store, or it isn't used: a view's fingerprint says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PlatformError;
use crate::catalog::Histories;
use crate::offline::{OfflineError, Storage};
use crate::plan::Project;

/// What the versions of histories stand under, among files: no path begins so.
const HISTORY: &str = "//history/";

/// The files of a project as a process found them.
#[derive(Debug, Clone)]
pub struct Release {
    id: String,
    root: PathBuf,
    /// By the path below the project folder.
    files: BTreeMap<String, Content>,
}

/// What was in a file.
#[derive(Debug, Clone)]
enum Content {
    /// Of definitions and contracts: they may be edited long before what they say can be read.
    Kept(Bytes),
    /// Of a table, by its hash: it may be large.
    Hashed(String),
}

impl Content {
    fn hash(&self) -> String {
        match self {
            Self::Kept(content) => hash(content),
            Self::Hashed(hash) => hash.clone(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Live {
    release: String,
}

impl Release {
    /// Reads a project's files. Tables elsewhere than in the project folder are not among them.
    pub fn of(project: &Project) -> Result<Release, PlatformError> {
        let tables = project.tables.values().flat_map(|table| table.paths());
        let written = below(&project.features, "sql").into_iter().chain(below(&project.root.join("schemas"), "avsc"));
        let mut files = BTreeMap::new();
        let mut all = Sha256::new();
        for source in project.sources.values() {
            let version = source.history_version.clone().map(Content::Hashed);
            files.extend(version.map(|version| (format!("{HISTORY}{}", source.name), version)));
        }
        for (path, keep) in tables.map(|path| (path, false)).chain(written.map(|path| (path, true))) {
            let Ok(name) = path.strip_prefix(&project.root) else { continue };
            let name = name.to_string_lossy().replace('\\', "/");
            let content = read(&path)?;
            files.insert(name, if keep { Content::Kept(content.into()) } else { Content::Hashed(hash(&content)) });
        }
        for (name, content) in &files {
            all.update(format!("{name}\n{}\n", content.hash()));
        }
        let id = all.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Release { id, root: project.root.clone(), files })
    }

    /// Keeps it, and names it live. Not if a table is another one by now: what is served was computed with the one before.
    pub async fn publish(&self, storage: &Storage) -> Result<(), PlatformError> {
        if live(storage).await?.as_ref() == Some(&self.id) {
            return Ok(());
        }
        for (name, content) in self.files.iter().filter(|(name, _)| !name.starts_with(HISTORY)) {
            let content = match content {
                Content::Kept(content) => content.clone(),
                Content::Hashed(expected) => {
                    let content = read(&self.root.join(name))?;
                    if hash(&content) != *expected {
                        tracing::info!(file = name, "was changed since the start: what is live is not kept");
                        return Ok(());
                    }
                    content.into()
                }
            };
            storage.put(&place(storage, &self.id, name), content).await?;
        }
        let hashes: BTreeMap<&String, String> = self.files.iter().map(|(name, of)| (name, of.hash())).collect();
        put(storage, &list(storage, &self.id), &hashes).await?;
        put(storage, &pointer(storage), &Live { release: self.id.clone() }).await
    }

    /// What is live, if that is another release; its files are laid out in a folder that this process may use for that.
    pub async fn previous(&self, storage: &Storage, scratch: &Path) -> Result<Option<Arc<Project>>, PlatformError> {
        let Some(id) = live(storage).await?.filter(|id| *id != self.id) else { return Ok(None) };
        let folder = scratch.join(&id);
        let mut files: BTreeMap<String, String> = get(storage, &list(storage, &id)).await?;
        let mut histories = BTreeMap::new();
        files.retain(|name, version| match name.strip_prefix(HISTORY) {
            Some(source) => {
                histories.insert(source.to_owned(), version.clone());
                false
            }
            None => true,
        });
        let inside = |name: &&String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        for name in files.keys().filter(inside) {
            write(&folder.join(name), &storage.get(&place(storage, &id, name)).await?)?;
        }
        self.lend(&folder)?;
        let features = self.features();
        match Project::compile(&folder, &folder.join(features), Histories::Known(histories)).await {
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

/// Views of a source that need all of its events: the project's, and those that are served in their place until they have filled. `scratch`: a
/// folder that this process may use.
pub async fn views_that_need_all(
    project: &Project,
    source: &str,
    storage: &Storage,
    scratch: &Path,
) -> Result<Vec<String>, PlatformError> {
    let previous = Release::of(project)?.previous(storage, scratch).await;
    let _ = std::fs::remove_dir_all(scratch);
    let previous = previous?;
    let all = [Some(project), previous.as_deref()].into_iter().flatten().flat_map(|project| project.views_of(source));
    let names: BTreeSet<String> = all.filter(|view| view.needs_all()).map(|view| view.name.clone()).collect();
    Ok(names.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"},
      {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;

    fn definitions(count: &str) -> String {
        format!(
            "CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at');
            CREATE FEATURE VIEW v AS SELECT k, {count} OVER w AS n FROM e
            WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);"
        )
    }

    /// Whoever edits definitions while what they said before fills must not take it from the next process.
    #[tokio::test]
    async fn what_was_compiled_is_kept_though_its_files_are_edited() {
        let folder = tempfile::tempdir().unwrap();
        let (root, scratch) = (folder.path().join("shop"), folder.path().join("scratch"));
        let load = async || {
            let project = Project::load(&root, &root.join("features")).await.unwrap();
            (Release::of(&project).unwrap(), project.views["v"].fingerprint.clone())
        };
        write(&root.join("schemas/e.v1.avsc"), CONTRACT.as_bytes()).unwrap();
        write(&root.join("features/all.sql"), definitions("COUNT(*)").as_bytes()).unwrap();
        let (release, fingerprint) = load().await;
        write(&root.join("features/all.sql"), definitions("MAX(k)").as_bytes()).unwrap();
        let renamed = CONTRACT.replace(r#""name": "E""#, r#""name": "E", "doc": "edited""#);
        write(&root.join("schemas/e.v1.avsc"), renamed.as_bytes()).unwrap();
        let storage = Storage::open(&folder.path().join("offline").to_string_lossy()).unwrap();
        release.publish(&storage).await.unwrap();
        let (next, other) = load().await;
        assert_ne!(fingerprint, other);
        let previous = next.previous(&storage, &scratch).await.unwrap().unwrap();
        assert_eq!(previous.views["v"].fingerprint, fingerprint);
        // Of itself it is no predecessor.
        assert!(release.previous(&storage, &scratch).await.unwrap().is_none());
    }
}
