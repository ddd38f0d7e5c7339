//! The manifest on disk: a line of JSON for each number.
//!
//! Guarantees: it is there whole or as it was. Nothing is written over what another process wrote: whoever writes names what it
//! last saw, under a lock that a process which dies gives back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::stretch::Stretch;

/// A manifest as it was at some moment: its length and its checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manifest(Option<(usize, u32)>);

impl Manifest {
    /// What is written; of what isn't there, nothing.
    pub(super) fn read(path: &Path) -> io::Result<(Manifest, Vec<Stretch>)> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((Manifest(None), vec![])),
            text => text?,
        };
        let stretches = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let stretches: Vec<Stretch> =
            stretches.map_err(|e: serde_json::Error| io::Error::new(ErrorKind::InvalidData, e))?;
        // Only what is never written down has none.
        if stretches.iter().any(|stretch| stretch.crc.is_none()) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a stretch has no checksum"));
        }
        Ok((Manifest::of(text.as_bytes()), stretches))
    }

    fn of(bytes: &[u8]) -> Manifest {
        Manifest(Some((bytes.len(), crc32fast::hash(bytes))))
    }

    /// Writes it anew, if it is still this one; nothing otherwise.
    pub(super) fn write(self, path: &Path, stretches: &[Stretch]) -> io::Result<Option<Manifest>> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let _lock = lock(&path.with_extension("lock"))?;
        let there = match fs::read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Manifest(None),
            bytes => Manifest::of(&bytes?),
        };
        if there != self {
            return Ok(None);
        }
        let mut bytes = vec![];
        for stretch in stretches {
            serde_json::to_writer(&mut bytes, stretch)?;
            bytes.push(b'\n');
        }
        let temporary = path.with_extension("tmp");
        let mut out = File::create(&temporary)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()?;
        Ok(Some(Manifest::of(&bytes)))
    }
}

/// Waits until nobody else writes. A folder on a network that knows no locks is one process's.
fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.lock() {
        Err(e) if e.kind() != ErrorKind::Unsupported => Err(e),
        _ => Ok(file),
    }
}
