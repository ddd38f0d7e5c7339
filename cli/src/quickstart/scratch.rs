//! The quickstart's own project folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::settings::Settings;

/// Makes `data/quickstart` anew: the project's definitions and contracts, no data.
pub fn make(settings: &Settings) -> Result<Settings> {
    let root = settings.data.join("quickstart");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("can't remove the last run, {}", root.display()))?;
    }
    let features = root.join("features");
    copy(&settings.features, &features)?;
    let schemas = settings.root.join("schemas");
    if schemas.exists() {
        copy(&schemas, &root.join("schemas"))?;
    }
    Settings::at(&features, None)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("can't copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), &place).with_context(failed)?;
        }
    }
    Ok(())
}
