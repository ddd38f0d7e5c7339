//! One embedded database file, opened with errors that a person can act on.
//!
//! Guarantees: a file of another kind or of an unknown version is refused by name; a damaged file is an
//! error, never a panic; a file that another process has open is left alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// What a file holds, and in which version of its layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As a person calls it: "event log".
    pub name: &'static str,
    pub version: &'static str,
    /// Bytes of pages to keep in memory.
    pub cache: usize,
}

/// The database file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{kind} {path}: {what}; hint: {hint}")]
    Refused { kind: &'static str, path: PathBuf, what: String, hint: String },
    #[error("{kind} {path}: {cause}")]
    Io { kind: &'static str, path: PathBuf, cause: String },
}

/// Opens or creates the file at `path`, and the folders above it.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<Database, OpenError> {
    let io = |cause: String| OpenError::Io { kind: kind.name, path: path.into(), cause };
    let refused =
        |what: String, hint: &str| OpenError::Refused { kind: kind.name, path: path.into(), what, hint: hint.into() };
    let damaged = |cause: String| {
        refused(
            format!("not a whole Tidemark {}: {cause}", kind.name),
            "the file is damaged or of another program; restore it from a backup, or move it away to start empty",
        )
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| io(e.to_string()))?;
    }
    // In a debug build redb asserts what a damaged file breaks. The file is only read here, so nothing is left half done.
    let opened = catch_unwind(AssertUnwindSafe(|| Database::builder().set_cache_size(kind.cache).create(path)));
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
            return Err(refused(
                "another process has it open".into(),
                "is another `tidemark` running on this folder? stop it, or use another folder",
            ));
        }
        Ok(Err(DatabaseError::Storage(redb::StorageError::Io(e))))
            if e.kind() != std::io::ErrorKind::InvalidData && e.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            return Err(io(e.to_string()));
        }
        Ok(Err(e)) => return Err(damaged(e.to_string())),
        Err(_) => return Err(damaged("its pages contradict each other".into())),
    };
    match catch_unwind(AssertUnwindSafe(|| identify(&database, kind))) {
        Ok(Ok(None)) => Ok(database),
        Ok(Ok(Some(found))) => Err(refused(
            format!("it is a {found}, not a {} of version {}", kind.name, kind.version),
            "point to the right file, or use the release of Tidemark that wrote it",
        )),
        Ok(Err(e)) => Err(damaged(e.to_string())),
        Err(_) => Err(damaged("its pages contradict each other".into())),
    }
}

/// Marks a new file with its kind; `Some` names what the file is when it is something else.
fn identify(database: &Database, kind: Kind) -> Result<Option<String>, redb::Error> {
    let read = database.begin_read()?;
    let fresh = read.list_tables()?.next().is_none();
    if fresh {
        drop(read);
        let write = database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("kind", kind.name)?;
            meta.insert("version", kind.version)?;
        }
        write.commit()?;
        return Ok(None);
    }
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::Storage(e)) => return Err(e.into()),
        Err(_) => return Ok(Some("database of another program".into())),
    };
    let get = |key: &str| -> Result<String, redb::Error> {
        Ok(meta.get(key)?.map(|v| v.value().to_owned()).unwrap_or_default())
    };
    let (name, version) = (get("kind")?, get("version")?);
    Ok((name != kind.name || version != kind.version).then(|| format!("{name} of version {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Kind = Kind { name: "event log", version: "1", cache: 1 << 20 };

    fn refusal(path: &Path, kind: Kind) -> String {
        open(path, kind).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_opened_only_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/log.redb");
        drop(open(&path, LOG).unwrap());
        let held = open(&path, LOG).unwrap();
        assert!(refusal(&path, LOG).contains("another process has it open"));
        drop(held);
        let other = refusal(&path, Kind { name: "online store", version: "3", cache: 1 << 20 });
        assert!(other.contains("it is a event log of version 1, not a online store of version 3"), "{other}");
        assert!(refusal(&path, Kind { version: "2", ..LOG }).contains("version 1, not a event log of version 2"));

        let foreign = dir.path().join("foreign.redb");
        std::fs::write(&foreign, b"PAR1 this is something else entirely").unwrap();
        assert!(refusal(&foreign, LOG).contains("not a whole Tidemark event log"));
        let another = dir.path().join("another.redb");
        let database = Database::create(&another).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
        write.commit().unwrap();
        drop(database);
        assert!(refusal(&another, LOG).contains("database of another program"));
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.redb");
        let database = open(&path, LOG).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(TableDefinition::<u64, &[u8]>::new("events")).unwrap();
            for i in 0..500 {
                table.insert(i, [7u8; 2000].as_slice()).unwrap();
            }
        }
        write.commit().unwrap();
        drop(database);
        let whole = std::fs::read(&path).unwrap();
        for cut in [1, 64, 4095, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = refusal(&path, LOG);
            assert!(error.contains("log.redb") && error.contains("hint: the file is damaged"), "cut at {cut}: {error}");
        }
        std::fs::write(&path, &whole).unwrap();
        open(&path, LOG).unwrap();
    }
}
