//! Reads every definition file of a project.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::ast::Definition;
use super::diagnostic::{Diagnostic, Diagnostics, SourceFile, Span};
use super::parse_file;

/// The folder of definitions can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the folder of definitions {} can't be read: {source}; expected a folder with *.sql files, as --features names it", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

/// Reads every `*.sql` file anywhere below `features`, in the order of their paths; files and folders whose names start
/// with a dot are left out. Paths are shown relative to `project`.
///
/// Returns what could be read and every error in every file, so that the catalogue can add its own before anything is
/// reported. [`Diagnostics::concern`] tells whether a definition that isn't there was tried. Of definitions with one
/// name the first is returned.
pub fn load(project: &Path, features: &Path) -> Result<(Vec<Definition>, Diagnostics), LoadError> {
    let mut paths = BTreeSet::new();
    let mut seen = BTreeSet::new();
    find(features, &mut paths, &mut seen).map_err(|(path, source)| LoadError::Folder { path, source })?;
    let mut definitions = Vec::new();
    let mut diagnostics = Diagnostics::new();
    for path in paths {
        let shown = shown(project, &path);
        match read(&path, shown) {
            Ok(file) => {
                let (parsed, errors) = parse_file(file);
                definitions.extend(parsed);
                diagnostics.extend(errors);
            }
            Err(error) => diagnostics.push(error),
        }
    }
    let (definitions, duplicates) = distinct(definitions);
    diagnostics.extend(duplicates);
    Ok((definitions, diagnostics))
}

/// The first definition of every name, and an error for each other one.
pub fn distinct(definitions: Vec<Definition>) -> (Vec<Definition>, Vec<Diagnostic>) {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Definition> = Vec::new();
    let mut errors = Vec::new();
    for definition in definitions {
        let name = definition.name().clone();
        match first.get(&name.value).and_then(|index| kept.get(*index)) {
            Some(earlier) => {
                let (path, place) = (&earlier.file().path, earlier.name().span);
                let message = format!("`{}` is already the name of a {}", name.value, earlier.kind());
                let error = Diagnostic::new(definition.file(), name.span, message).definition(name.value);
                errors.push(
                    error
                        .expected("a name that no other definition has")
                        .hint(format!("the first is at {path}:{}:{}", place.line, place.column)),
                );
            }
            None => {
                first.insert(name.value, kept.len());
                kept.push(definition);
            }
        }
    }
    (kept, errors)
}

/// `seen` holds the folders gone into, so that links can't lead in circles.
fn find(
    folder: &Path,
    paths: &mut BTreeSet<PathBuf>,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (folder.to_owned(), error);
    if !seen.insert(folder.canonicalize().map_err(at)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            find(&path, paths, seen)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            paths.insert(path);
        }
    }
    Ok(())
}

/// A byte order mark is no part of the text.
fn read(path: &Path, shown: String) -> Result<Arc<SourceFile>, Diagnostic> {
    let empty = |shown: &str| SourceFile::new(shown, "");
    let bytes = fs::read(path).map_err(|error| {
        Diagnostic::new(&empty(&shown), Span::new(1, 1, 1), format!("the file can't be read: {error}"))
            .expected("a readable text file")
    })?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile::new(shown, text)),
        Err(error) => {
            let valid = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
            let line = valid.matches('\n').count() + 1;
            let column = valid.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let place =
                Span::new(u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX), 1);
            let file = SourceFile::new(shown, String::from_utf8_lossy(bytes));
            Err(Diagnostic::new(&file, place, "the file isn't UTF-8 text")
                .expected("UTF-8")
                .hint("save it as UTF-8 in your editor, or with iconv"))
        }
    }
}

/// With `/` between its parts on every system.
fn shown(project: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(project).unwrap_or(path);
    relative.to_string_lossy().replace('\\', "/")
}
