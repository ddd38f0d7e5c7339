//! Which files a location holds, and what it is called.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

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

/// A file as a look at its location found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path from the location's literal leading folder: the same wherever the folder is, however it is spelt.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// Its last change, microseconds UTC.
    pub modified: i64,
}

pub(super) fn files_error(source: &str, what: String, expected: &str, hint: &str) -> SourceError {
    SourceError::Files { source_name: source.into(), what, expected: expected.into(), hint: hint.into() }
}

/// The event files of a location, in the order of their paths. In a folder, those whose ending says the format (any, if
/// none is stated); a file that is named, or meets a pattern, is of the stated format whatever its ending.
pub(super) fn list(source: &str, location: &str, format: Option<Format>) -> Result<Vec<Found>, SourceError> {
    let cant_list = |cause: String| {
        let what = format!("can't list \"{location}\": {cause}");
        files_error(source, what, "a file, a folder or a pattern", "try events/*.parquet")
    };
    let path = local(location);
    if path.contains("://") {
        let what = format!("location \"{location}\" is not on this machine");
        return Err(files_error(source, what, "a file, a folder or a pattern", "copy the files here first"));
    }
    let (folder, pattern) = split(Path::new(path));
    let whole_folder = pattern.is_empty();
    // A pattern is checked even while there is no folder.
    let (folder, missing) = match fs::canonicalize(&folder) {
        Ok(folder) => (folder, false),
        Err(e) if e.kind() == ErrorKind::NotFound => (folder, true),
        Err(e) => return Err(cant_list(e.to_string())),
    };
    let below = if whole_folder { "**/*" } else { &pattern };
    let pattern = format!("{}/{below}", glob::Pattern::escape(folder.to_string_lossy().trim_end_matches('/')));
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let paths = glob::glob_with(&pattern, options).map_err(|e| cant_list(e.to_string()))?;
    let mut files = Vec::new();
    for path in paths.filter(|_| !missing) {
        let path = path.map_err(|e| cant_list(e.to_string()))?;
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Gone since it was listed, or a link to nowhere.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(cant_list(format!("{}: {e}", path.display()))),
        };
        let by_name = Format::of(&path);
        let foreign = whole_folder && (by_name.is_none() || format.is_some_and(|format| by_name != Some(format)));
        if metadata.is_dir() || foreign {
            continue;
        }
        if format.or(by_name).is_none() {
            let what = format!("{} has no known extension", path.display());
            let expected = ".parquet, .csv, .ndjson, .jsonl, .json or .avro";
            return Err(files_error(source, what, expected, "narrow the pattern, or state the format"));
        }
        let name = slashed(path.strip_prefix(&folder).unwrap_or(&path));
        files.push(Found { name, bytes: metadata.len(), modified: modified(&metadata), path });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// A file's last change, microseconds UTC; 0 where the system doesn't tell.
pub(super) fn modified(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

/// What a location is called, whatever way it is spelt and wherever its project is: its path from the project folder,
/// or an absolute path if it was given as one and lies elsewhere.
pub fn place(project: &Path, location: &str) -> String {
    let path = Path::new(local(location));
    if path.is_relative() {
        return slashed(&plain(path));
    }
    let (folder, pattern) = split(path);
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| plain(path));
    let (folder, project) = (real(&folder), real(project));
    slashed(&folder.strip_prefix(&project).unwrap_or(&folder).join(pattern))
}

fn local(location: &str) -> &str {
    location.strip_prefix("file://").unwrap_or(location)
}

/// The literal leading folder of a path, and the pattern below it: none for a folder, which is taken whole.
fn split(path: &Path) -> (PathBuf, String) {
    if path.is_dir() {
        return (path.into(), String::new());
    }
    let parts: Vec<Component> = path.components().collect();
    let special = |part: &Component| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let literal = match parts.iter().position(special) {
        Some(first) if !path.exists() => first,
        _ => parts.len().saturating_sub(1),
    };
    let (folder, rest) = parts.split_at(literal);
    let pattern = slashed(&rest.iter().collect::<PathBuf>());
    let pattern = if path.exists() { glob::Pattern::escape(&pattern) } else { pattern };
    let folder: PathBuf = folder.iter().collect();
    (if folder.as_os_str().is_empty() { ".".into() } else { folder }, pattern)
}

/// Without `.`, and without `..` where it takes back a folder.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn slashed(path: &Path) -> String {
    path.components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
        .replacen("//", "/", 1)
}
