//! Which files a location holds, and their numbers.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::SourceError;

/// A format that events are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Parquet,
    Csv,
    NdJson,
    Avro,
}

impl Format {
    /// By the file's extension.
    pub(super) fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" | "json" => Some(Format::NdJson),
            "avro" => Some(Format::Avro),
            _ => None,
        }
    }
}

/// A file with a number: its place in [`Listing::files`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// When it was last changed as it got its number, microseconds UTC: when its events were ingested.
    pub modified: i64,
}

/// The numbered files of a location.
#[derive(Debug)]
pub(super) struct Listing {
    pub source: String,
    location: String,
    pub format: Option<Format>,
    manifest: Option<PathBuf>,
    pub files: Vec<ListedFile>,
}

impl Listing {
    pub(super) fn open(
        source: &str,
        location: &str,
        format: Option<Format>,
        manifest: Option<PathBuf>,
    ) -> Result<Listing, SourceError> {
        let mut listing =
            Listing { source: source.into(), location: location.into(), format, manifest, files: Vec::new() };
        if let Some(path) = listing.manifest.clone().filter(|path| path.exists()) {
            let text = fs::read_to_string(&path).map_err(|e| listing.io(&path, &e))?;
            let files = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
            listing.files = files.map_err(|e: serde_json::Error| {
                let what = format!("the manifest {} is damaged: {e}", path.display());
                listing.error(what, "a line of JSON per file", "delete it if no event of these files was read yet")
            })?;
        }
        listing.refresh()?;
        Ok(listing)
    }

    /// Numbers the files that are new.
    pub(super) fn refresh(&mut self) -> Result<(), SourceError> {
        let before = self.files.len();
        let last = self.files.last().map(|file| file.path.clone());
        for found in list(&self.source, &self.location, self.format)? {
            let known = self.files.get(..before).unwrap_or_default().iter().find(|known| known.path == found.path);
            match (known, &last) {
                (Some(known), _) if known.bytes != found.bytes => {
                    let what = format!(
                        "{} has changed since it was numbered: it had {} bytes, now {}",
                        found.path.display(),
                        known.bytes,
                        found.bytes
                    );
                    let hint = "write new events to a new file, and files under another name until they are whole";
                    return Err(self.error(what, "a file that stays as it is", hint));
                }
                (Some(_), _) => {}
                (None, Some(last)) if found.path < *last => {
                    let what = format!("{} is new but sorts before {}", found.path.display(), last.display());
                    let hint = "name files so that new ones come last, by their time for instance";
                    return Err(self.error(what, "a name that sorts after the files already read", hint));
                }
                (None, _) => self.files.push(found),
            }
        }
        if self.files.len() > before { self.save() } else { Ok(()) }
    }

    /// The numbers are on disk before an event is handed out under them.
    fn save(&self) -> Result<(), SourceError> {
        let Some(path) = &self.manifest else {
            return Ok(());
        };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let temporary = path.with_extension("tmp");
            let mut out = fs::File::create(&temporary)?;
            for file in &self.files {
                serde_json::to_writer(&mut out, file)?;
                out.write_all(b"\n")?;
            }
            out.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(|e| self.io(path, &e))
    }

    fn io(&self, path: &Path, e: &std::io::Error) -> SourceError {
        self.error(format!("{}: {e}", path.display()), "a file that can be read and written", "check its permissions")
    }

    fn error(&self, what: String, expected: &str, hint: &str) -> SourceError {
        files_error(&self.source, what, expected, hint)
    }
}

pub(super) fn files_error(source: &str, what: String, expected: &str, hint: &str) -> SourceError {
    SourceError::Files { source_name: source.into(), what, expected: expected.into(), hint: hint.into() }
}

/// The event files of a location, in the order of their paths. In a folder, those whose ending says the format (any, if
/// none is stated); a file that is named, or meets a pattern, is of the stated format whatever its ending.
pub(super) fn list(source: &str, location: &str, format: Option<Format>) -> Result<Vec<ListedFile>, SourceError> {
    if location.contains("://") && !location.starts_with("file://") {
        let what = format!("location \"{location}\" is not on this machine");
        return Err(files_error(source, what, "a file, a folder or a pattern", "copy the files here first"));
    }
    let location = location.strip_prefix("file://").unwrap_or(location);
    let path = Path::new(location);
    let pattern = if path.is_dir() {
        format!("{}/**/*", glob::Pattern::escape(location.trim_end_matches('/')))
    } else if path.exists() {
        glob::Pattern::escape(location)
    } else {
        location.to_owned()
    };
    let cant_list = |cause: String| {
        let what = format!("can't list \"{location}\": {cause}");
        files_error(source, what, "a file, a folder or a pattern", "try events/*.parquet")
    };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let mut files = Vec::new();
    for entry in glob::glob_with(&pattern, options).map_err(|e| cant_list(e.to_string()))? {
        let path = entry.map_err(|e| cant_list(e.to_string()))?;
        if path.is_dir() {
            continue;
        }
        let by_name = Format::of(&path);
        if Path::new(location).is_dir() && (by_name.is_none() || format.is_some_and(|format| by_name != Some(format))) {
            continue;
        }
        if format.or(by_name).is_none() {
            let what = format!("{} has no known extension", path.display());
            return Err(files_error(
                source,
                what,
                ".parquet, .csv, .ndjson, .jsonl, .json or .avro",
                "narrow the pattern, or state the format",
            ));
        }
        let metadata = fs::metadata(&path).map_err(|e| cant_list(e.to_string()))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0);
        files.push(ListedFile { path, bytes: metadata.len(), modified });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
