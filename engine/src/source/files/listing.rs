//! The numbered files of a location, and the manifest that keeps their numbers.
//!
//! A number stands for a [`Stretch`]: bytes of a file, with their checksum. Guarantees: a number in the manifest means
//! the same bytes for ever, or is refused by the file's name. Numbers only grow: a source whose location changes numbers
//! anew behind its old numbers. Of several processes that number, each goes on from what the others wrote down. Paths are kept from the location's leading folder, so that the project can move.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::super::SourceError;
use super::location::{Format, Found, files_error, list, modified};
use super::manifest::Manifest;
use super::scan::{Extent, Scan, is_text, scan};
use super::stretch::{Compared, Kind, Stretch, compare};
use super::{FilesConfig, Reading};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A file that has stayed the same for so long is taken, microseconds …
const SETTLED: i64 = 1_000_000;
/// … but for the line at its end that has no end yet: its writer may be in the middle of it.
const SETTLED_END: i64 = 60_000_000;
/// Avro files don't say how many rows they have; one is taken to be about so long.
const AVRO_ROW_BYTES: u64 = 32;

const START_ANEW: &str = "put it back as it was; or, to start anew without it, move the other files to a new folder \
                          and make that the source's location (or delete the data folder)";

/// What is known of a file.
#[derive(Debug, Default)]
struct Known {
    /// Where the last look found it.
    path: Option<PathBuf>,
    numbers: Vec<usize>,
    seen: Option<Seen>,
    /// Its size and last change when it was last known to hold what was read of it.
    good: Option<(u64, i64)>,
}

#[derive(Debug)]
struct Seen {
    /// Its size and last change.
    state: (u64, i64),
    /// Since when it has been so, microseconds UTC.
    since: i64,
    /// Since when there has been something to take.
    pending: i64,
    /// How far that has been made use of.
    used: Settled,
    warned: bool,
}

/// How much of a file can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Settled {
    Not,
    WholeLines,
    Wholly,
}

/// The numbered files of a location.
#[derive(Debug)]
pub(super) struct Listing {
    pub source: String,
    pub config: FilesConfig,
    pub stretches: Vec<Stretch>,
    /// The files that stretches of this reading, or a look, have named.
    known: BTreeMap<String, Known>,
    /// Files are taken as the stream numbered them: new ones are left to it.
    fixed: bool,
    looked: bool,
    /// The manifest as it was last read or written.
    manifest: Manifest,
    unsaved: bool,
}

impl Listing {
    /// Reads the manifest, and looks at the location.
    pub(super) fn open(source: &str, config: FilesConfig) -> Result<Listing, SourceError> {
        let mut listing = Listing::read(source, config)?;
        listing.refresh()?;
        let left = listing.known.values().filter(|known| known.numbers.is_empty()).count();
        if listing.fixed && left > 0 {
            tracing::warn!(source = source, files = left, "new files are left out until the stream has read them");
        }
        Ok(listing)
    }

    /// What the manifest says; nothing has been looked at.
    fn read(source: &str, config: FilesConfig) -> Result<Listing, SourceError> {
        let mut listing = Listing {
            source: source.into(),
            config,
            stretches: vec![],
            known: BTreeMap::new(),
            fixed: false,
            looked: false,
            manifest: Manifest::default(),
            unsaved: false,
        };
        if let Some(path) = &listing.config.manifest {
            (listing.manifest, listing.stretches) = Manifest::read(path).map_err(|e| match e.kind() {
                ErrorKind::InvalidData => listing.error(
                    format!("the manifest {} is damaged: {e}", path.display()),
                    "a line of JSON for each stretch of a file",
                    "restore it, or delete the data folder",
                ),
                _ => listing.io(path, &e),
            })?;
        }
        for (number, stretch) in listing.stretches.iter().enumerate().filter(|(_, s)| s.of == listing.config.of) {
            let known = listing.known.entry(stretch.file.clone()).or_default();
            known.numbers.push(number);
            if stretch.kind != Kind::Changed {
                let state = (stretch.to, stretch.modified);
                known.seen = Some(Seen { state, since: 0, pending: 0, used: Settled::Wholly, warned: false });
                known.good = Some(state);
            }
        }
        listing.fixed = listing.config.reading == Reading::Looking && !listing.known.is_empty();
        Ok(listing)
    }

    /// Looks at the location: numbers what is new, and refuses to go on without a file that was read.
    pub(super) fn refresh(&mut self) -> Result<(), SourceError> {
        loop {
            let found = list(&self.source, &self.config.location, self.config.format)?;
            // What another process has numbered meanwhile may be newer than these files: they are listed anew.
            if self.look(&found, (self.config.clock)())? {
                return Ok(());
            }
        }
    }

    /// False if another process has numbered files first, and these are to be looked at again.
    pub(super) fn look(&mut self, found: &[Found], now: i64) -> Result<bool, SourceError> {
        for file in found {
            self.look_at(file, now)?;
        }
        self.looked = true;
        if !self.write_down()? {
            return Ok(false);
        }
        let names: HashSet<&str> = found.iter().map(|file| file.name.as_str()).collect();
        match self.known.keys().find(|name| !names.contains(name.as_str()) && self.taken(name).next().is_some()) {
            Some(name) => Err(self.gone(name)),
            None => Ok(true),
        }
    }

    fn look_at(&mut self, file: &Found, now: i64) -> Result<(), SourceError> {
        let state = (file.bytes, file.modified);
        let text = is_text(self.format_of(&file.path));
        let known = self.known.entry(file.name.clone()).or_default();
        known.path = Some(file.path.clone());
        if self.fixed && known.numbers.is_empty() {
            return Ok(());
        }
        let seen = match &mut known.seen {
            Some(seen) if seen.state == state => seen,
            // What was there before the first look has been as it is since its last change.
            seen => {
                let since = if self.looked { now } else { file.modified.min(now) };
                let pending = seen.as_ref().filter(|seen| seen.used == Settled::Not).map_or(since, |seen| seen.pending);
                seen.insert(Seen { state, since, pending, used: Settled::Not, warned: false })
            }
        };
        let settled = match now.saturating_sub(seen.since) {
            _ if self.config.reading != Reading::Following => Settled::Wholly,
            quiet if quiet >= SETTLED_END => Settled::Wholly,
            quiet if quiet >= SETTLED => Settled::WholeLines,
            // Its writer never rests; what stands before it stays.
            _ if text && now.saturating_sub(seen.pending) >= SETTLED_END => Settled::WholeLines,
            _ => Settled::Not,
        };
        if settled <= seen.used {
            return Ok(());
        }
        let warned = std::mem::replace(&mut seen.warned, false);
        seen.used = settled;
        let error = match self.judge(file, settled, now) {
            Ok(Compared::Changed) if self.config.reading == Reading::Looking => return Err(self.changed(&file.path)),
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if self.config.reading == Reading::Looking {
            return Err(self.io(&file.path, &error));
        }
        // It is tried again at the next look, and the other files go on.
        if let Some(seen) = self.known.get_mut(&file.name).and_then(|known| known.seen.as_mut()) {
            (seen.used, seen.warned) = (Settled::Not, true);
        }
        if !warned {
            tracing::warn!(source = self.source, file = %file.path.display(), %error, "can't be read; trying again");
        }
        Ok(())
    }

    /// Numbers what is new of a file, or the news that it has changed.
    fn judge(&mut self, file: &Found, settled: Settled, now: i64) -> io::Result<Compared> {
        let format = self.format_of(&file.path);
        let taken: Vec<Stretch> = self.taken(&file.name).cloned().collect();
        let compared = compare(file, format, &taken)?;
        match compared {
            Compared::Changed => {
                let last = self.known.get(&file.name).and_then(|known| known.numbers.last());
                let told = last.and_then(|number| self.stretches.get(*number)).is_some_and(|s| s.kind == Kind::Changed);
                if !told {
                    self.push(file, (0, 0), Some(0), 1, Kind::Changed, now);
                }
            }
            Compared::Same => self.good(file),
            Compared::Grown => {
                if let Some(known) = self.known.get_mut(&file.name).filter(|_| !taken.is_empty()) {
                    known.good = Some((file.bytes, file.modified));
                }
                if !self.fixed {
                    self.take(file, format, taken.last().map_or(0, |stretch| stretch.to), settled, now)?;
                }
            }
        }
        Ok(compared)
    }

    /// Numbers a file from a place on.
    fn take(&mut self, file: &Found, format: Format, from: u64, settled: Settled, now: i64) -> io::Result<()> {
        // What isn't written down needs no checksum, and to read a file for it alone takes long.
        let unread = self.config.reading == Reading::Looking && !is_text(format);
        let Scan { all, whole, .. } = match unread {
            true => Scan { all: Extent { bytes: file.bytes - from, ..Extent::default() }, ..Scan::default() },
            false => scan(&file.path, format, from, file.bytes)?,
        };
        let extent = if settled == Settled::Wholly || !is_text(format) { all } else { whole };
        let shrunk = from + all.bytes < file.bytes;
        if shrunk || (extent.bytes == 0 && file.bytes > 0) {
            return Ok(());
        }
        let rows = match format {
            _ if file.bytes == 0 => None,
            Format::Parquet => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&file.path)?);
                builder.ok().and_then(|builder| u64::try_from(builder.metadata().file_metadata().num_rows()).ok())
            }
            Format::Avro => Some(extent.bytes / AVRO_ROW_BYTES),
            Format::Csv | Format::NdJson => {
                let header = u64::from(format == Format::Csv && from == 0);
                Some((extent.lines + u64::from(extent.bytes > whole.bytes)).saturating_sub(header))
            }
        };
        let kind = if rows.is_some() { Kind::Events } else { Kind::Unreadable };
        let crc = (!unread).then_some(extent.crc);
        self.push(file, (from, from + extent.bytes), crc, rows.unwrap_or(1), kind, now);
        self.good(file);
        Ok(())
    }

    fn push(&mut self, file: &Found, (from, to): (u64, u64), crc: Option<u32>, rows: u64, kind: Kind, now: i64) {
        self.known.entry(file.name.clone()).or_default().numbers.push(self.stretches.len());
        let (of, modified) = (self.config.of.clone(), file.modified);
        self.stretches.push(Stretch {
            of,
            file: file.name.clone(),
            from,
            to,
            crc,
            rows,
            numbered: now,
            modified,
            kind,
        });
        self.unsaved = true;
    }

    /// Notes that a file, as it is, holds what was read of it.
    fn good(&mut self, file: &Found) {
        let Some(known) = self.known.get_mut(&file.name) else { return };
        known.good = Some((file.bytes, file.modified));
        let last = known.numbers.iter().rev().find(|n| self.stretches.get(**n).is_some_and(|s| s.kind == Kind::Events));
        if let Some(last) = last.and_then(|number| self.stretches.get_mut(*number))
            && last.modified != file.modified
        {
            last.modified = file.modified;
            self.unsaved = true;
        }
    }

    /// What was numbered of a file, and may have been read.
    fn taken(&self, file: &str) -> impl Iterator<Item = &Stretch> {
        let numbers = self.known.get(file).map(|known| known.numbers.as_slice()).unwrap_or_default();
        numbers.iter().filter_map(|number| self.stretches.get(*number)).filter(|stretch| stretch.kind == Kind::Events)
    }

    /// Where a stretch can be read; nothing, if its file has turned into something else and nothing was read of it.
    /// `anew`: compares the bytes even if the file seems untouched.
    pub(super) fn readable(&self, stretch: &Stretch, anew: bool) -> Result<Option<PathBuf>, SourceError> {
        let known = self.known.get(&stretch.file);
        let Some((known, path)) = known.and_then(|known| Some((known, known.path.as_ref()?))) else {
            return if stretch.kind == Kind::Events { Err(self.gone(&stretch.file)) } else { Ok(None) };
        };
        let holds = || -> io::Result<bool> {
            let metadata = fs::metadata(path)?;
            if !anew && stretch.kind == Kind::Events && known.good == Some((metadata.len(), modified(&metadata))) {
                return Ok(true);
            }
            let format = self.format_of(path);
            // Text may have grown; other files are read whole.
            let may_be_longer = stretch.kind == Kind::Events && is_text(format);
            Ok((metadata.len() == stretch.to || may_be_longer) && stretch.is_in(path, format)?)
        };
        match (holds(), stretch.kind) {
            (Ok(true), _) => Ok(Some(path.clone())),
            (_, Kind::Unreadable | Kind::Changed) => Ok(None),
            (Ok(false), Kind::Events) => Err(self.changed(path)),
            (Err(e), Kind::Events) if e.kind() == ErrorKind::NotFound => Err(self.gone(&stretch.file)),
            (Err(e), Kind::Events) => Err(self.io(path, &e)),
        }
    }

    /// Notes whether anything could be read of a stretch.
    pub(super) fn set_kind(&mut self, number: usize, kind: Kind) -> Result<(), SourceError> {
        while let Some(stretch) = self.stretches.get_mut(number).filter(|stretch| stretch.kind != kind) {
            stretch.kind = kind;
            self.unsaved = true;
            self.save()?;
        }
        self.save()
    }

    /// About how many rows lie before a place in a stretch.
    pub(super) fn rows_before(&self, number: usize, row: u32) -> u64 {
        let rows = |stretch: &Stretch| if stretch.of == self.config.of { stretch.rows.max(1) } else { 0 };
        let before: u64 = self.stretches.iter().take(number).map(rows).sum();
        before + self.stretches.get(number).map_or(0, rows).min(u64::from(row))
    }

    fn format_of(&self, path: &Path) -> Format {
        // `list` has refused files of which neither says anything.
        self.config.format.or_else(|| Format::of(path)).unwrap_or(Format::NdJson)
    }

    /// The numbers are on disk before an event is handed out under them.
    pub(super) fn save(&mut self) -> Result<(), SourceError> {
        if self.write_down()? { Ok(()) } else { self.refresh() }
    }

    /// Writes the manifest, if there is anything new. False if another process did meanwhile: this is what that one wrote
    /// then, and nothing has been looked at.
    fn write_down(&mut self) -> Result<bool, SourceError> {
        let manifest = self.config.manifest.clone().filter(|_| self.config.reading != Reading::Looking);
        let Some(path) = manifest.filter(|_| self.unsaved) else { return Ok(true) };
        match self.manifest.write(&path, &self.stretches).map_err(|e| self.io(&path, &e))? {
            Some(written) => (self.manifest, self.unsaved) = (written, false),
            None => {
                *self = Listing { looked: self.looked, ..Listing::read(&self.source, self.config.clone())? };
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn gone(&self, file: &str) -> SourceError {
        let what = format!("{file} of location \"{}\" is gone, but its events were read", self.config.location);
        self.error(what, "every file that was read", START_ANEW)
    }

    pub(super) fn changed(&self, path: &Path) -> SourceError {
        let what = format!("{} has changed since its events were read", path.display());
        self.error(what, "a file that stays as it is, or grows by whole lines at its end", START_ANEW)
    }

    fn io(&self, path: &Path, e: &io::Error) -> SourceError {
        self.error(format!("{}: {e}", path.display()), "a file that can be read and written", "check its permissions")
    }

    fn error(&self, what: String, expected: &str, hint: &str) -> SourceError {
        files_error(&self.source, what, expected, hint)
    }
}
