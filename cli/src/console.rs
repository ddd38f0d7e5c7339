//! How things are said: logs, errors, numbers, progress.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

use anyhow::{Context, Result, anyhow};
use tidemark_engine::plan::ProjectError;
use tracing_subscriber::EnvFilter;

/// Logs to standard error, at `LOG_LEVEL` (error, warn, info, debug, trace, or a filter as of `tracing`).
pub fn start_logging(level: &str) -> Result<()> {
    let text = std::env::var("LOG_LEVEL").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(text.as_deref().unwrap_or(level))
        .map_err(|e| anyhow!("LOG_LEVEL: {e}; expected error, warn, info, debug or trace"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|e| anyhow!("logging: {e}"))
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    match writeln!(stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("can't print"),
    }
}

/// As [`print`], of work that goes on whether or not it can be said.
pub fn tell(text: &str) {
    if let Err(error) = print(text) {
        tracing::warn!("{error:#}");
    }
}

/// An error as a person reads it: what failed, then each cause that isn't already said.
pub fn message(error: &anyhow::Error) -> String {
    if let Some(definitions @ ProjectError::Definitions(_)) = error.downcast_ref::<ProjectError>() {
        return definitions.to_string();
    }
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(cause.trim()) {
            text = format!("{text}: {cause}");
        }
    }
    format!("error: {text}")
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 view`, `2 views`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

/// How many a second; a stretch too short to measure counts as a microsecond.
pub fn rate(number: u64, seconds: f64) -> u64 {
    (number as f64 / seconds.max(1e-6)) as u64
}

/// `, 12 s left`, after so many seconds, if so much is done; nothing before it can be told.
pub fn left(part: f64, seconds: f64) -> String {
    match part {
        0.005.. => format!(", {:.0} s left", seconds * (1.0 / part - 1.0).max(0.0)),
        _ => String::new(),
    }
}

/// `512 B`, `3.4 MB`.
pub fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.1} GB", number as f64 / 1e9),
    }
}

/// A line on a terminal that is written over; elsewhere, nothing.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { shown: false }
    }

    /// With a bar before it, of which so much is full.
    pub fn bar(&mut self, part: f64, line: &str) {
        const WIDTH: usize = 30;
        let full = ((part * WIDTH as f64) as usize).min(WIDTH);
        self.show(&format!("[{}{}] {line}", "#".repeat(full), " ".repeat(WIDTH - full)));
    }

    pub fn show(&mut self, line: &str) {
        let mut out = stderr();
        if out.is_terminal() {
            let _ = write!(out, "\r\x1b[2K{line}");
            let _ = out.flush();
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1, 2].map(|n| counted(n, "view")), ["1 view", "2 views"]);
        assert_eq!([999, 3_400_000].map(bytes), ["999 B", "3.4 MB"]);
        assert_eq!(rate(10, 2.0), 5);
        assert_eq!([0.0, 0.25, 1.0].map(|part| left(part, 3.0)), ["", ", 9 s left", ", 0 s left"]);
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(cause).context("can't write x");
        assert_eq!(message(&error), "error: can't write x: disk on fire");
        let told = anyhow::Error::new(std::io::Error::other("disk on fire")).context("x: disk on fire");
        assert_eq!(message(&told), "error: x: disk on fire");
    }
}
