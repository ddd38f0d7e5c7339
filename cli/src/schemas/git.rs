//! Files as git's HEAD has them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What can be compared with.
#[derive(Debug)]
pub enum Head {
    Commit {
        folder: PathBuf,
    },
    /// Why there is nothing, in a few words.
    Nothing(String),
}

impl Head {
    /// Of the repository that a folder is in.
    pub fn of(folder: &Path) -> Self {
        match git(folder, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]) {
            Err(error) => Head::Nothing(format!("git can't be run: {error}")),
            Ok(output) if output.status.success() => Head::Commit { folder: folder.to_owned() },
            Ok(output) => Head::Nothing(match said(&output) {
                said if said.is_empty() => "the repository has no commit".to_owned(),
                said if said.contains("not a git repository") => "the project is in no git repository".to_owned(),
                said => said,
            }),
        }
    }

    /// A file's text; `None` for one that HEAD doesn't have. The path is relative to the folder.
    pub fn text(&self, path: &str) -> Option<String> {
        let Head::Commit { folder } = self else {
            return None;
        };
        let output = git(folder, &["show", &format!("HEAD:./{path}")]).ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn git(folder: &Path, args: &[&str]) -> std::io::Result<Output> {
    Command::new("git").arg("-C").arg(folder).args(args).output()
}

/// The first line of what git complains about.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().next().unwrap_or_default().trim_start_matches("fatal: ").to_owned()
}
