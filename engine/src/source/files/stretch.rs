//! Bytes of a file that have a number, and a file beside the ones that were read of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::location::{Format, Found, modified};
use super::scan::{Scan, is_text, scan};

/// Bytes of a file under a number: its place in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    /// What the source was when they were numbered: [`FilesConfig::of`].
    pub of: String,
    /// The file's path from the location's leading folder.
    pub file: String,
    pub from: u64,
    pub to: u64,
    /// The bytes' checksum; none where numbers are given for one reading only, of a file that is read whole.
    pub crc: Option<u32>,
    /// About how many rows it has: for telling how far a reader is.
    pub rows: u64,
    /// When it got its number, microseconds UTC: when its events were ingested.
    pub numbered: i64,
    /// The file's last change when it was last compared with this.
    pub modified: i64,
    #[serde(default)]
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    #[default]
    Events,
    /// Nothing could be read of the file, so that it may change or go: what it turns into is numbered as if new.
    Unreadable,
    /// Only says that the file has changed after it was read.
    Changed,
}

/// A file beside what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// It is as it was read.
    Same,
    /// It can be read on from where reading stopped.
    Grown,
    Changed,
}

impl Stretch {
    /// Whether a file holds these bytes.
    pub(super) fn is_in(&self, path: &Path, format: Format) -> io::Result<bool> {
        let Some(crc) = self.crc else {
            let metadata = fs::metadata(path)?;
            return Ok((metadata.len(), modified(&metadata)) == (self.to, self.modified));
        };
        let found = scan(path, format, self.from, self.to)?.all;
        Ok(found.bytes == self.to - self.from && found.crc == crc)
    }
}

/// Compares a file with what was read of it.
pub(super) fn compare(file: &Found, format: Format, taken: &[Stretch]) -> io::Result<Compared> {
    let mut last = Scan::default();
    for stretch in taken {
        let Some(crc) = stretch.crc else {
            let same = stretch.is_in(&file.path, format)?;
            return Ok(if same { Compared::Same } else { Compared::Changed });
        };
        last = scan(&file.path, format, stretch.from, stretch.to)?;
        if last.all.bytes != stretch.to - stretch.from || last.all.crc != crc {
            return Ok(Compared::Changed);
        }
    }
    match taken.last().map(|stretch| stretch.to) {
        None => Ok(Compared::Grown),
        Some(end) if file.bytes == end => Ok(Compared::Same),
        Some(end) => {
            // What was read as a row must not go on.
            let line_ended = last.whole.bytes == last.all.bytes || (!last.quoted && breaks_line(&file.path, end)?);
            Ok(if is_text(format) && line_ended { Compared::Grown } else { Compared::Changed })
        }
    }
}

/// Whether a file has a line break at a place.
fn breaks_line(path: &Path, at: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut next = Vec::new();
    file.take(2).read_to_end(&mut next)?;
    Ok(next.starts_with(b"\n") || next == b"\r\n")
}
