//! Virtual environments for peers, made when they are first wanted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The interpreter of a virtual environment that has just what its file of requirements says; made if it is not there.
pub fn python(scripts: &Path, name: &str) -> Result<PathBuf> {
    let home = std::env::var("HOME").context("HOME is not set")?;
    let folder = Path::new(&home).join(".cache/tidemark/peers").join(name);
    let requirements = scripts.join(format!("{name}.txt"));
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let wanted = std::fs::read_to_string(&requirements)?;
    if std::fs::read_to_string(&stamp).ok().as_ref() == Some(&wanted) {
        return Ok(python);
    }
    eprintln!("         installing {} into {}", requirements.display(), folder.display());
    command("python3", &["-m", "venv"], &[&folder])?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    command(&python.display().to_string(), &quiet, &[&requirements])?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

fn command(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(arguments).args(paths).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} can't start"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    let last = error.trim().lines().next_back().unwrap_or_default();
    ensure!(output.status.success(), "it can't be installed: {last}");
    Ok(())
}
