//! `tidemark compact`: small files of the archive put together.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use chrono::{NaiveDate, Utc};
use serde_json::json;
use tidemark_engine::offline::{ARCHIVE_ROWS_PER_FILE, CompactStep, Compaction, Storage, compact};

use crate::archive::sources;
use crate::console::{bytes, count, counted, print};
use crate::run;
use crate::settings::Settings;

/// Below, a reader could still be listing what is removed.
const LEAST_GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this source's archive
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only what came in before this day (UTC), such as 2026-01-31
    #[arg(long, value_name = "DATE")]
    before: Option<NaiveDate>,
    /// Seconds that files which were put together stay for those who read them, before a later run removes them: at least a minute, and
    /// longer than the longest training set or backfill takes
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = grace)]
    grace: Duration,
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = run::seconds(text)?;
    if grace < LEAST_GRACE { Err("expected a minute at least, 60".into()) } else { Ok(grace) }
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.project().await?;
    let storage = Storage::open(settings.folder().offline())?;
    for source in sources(&project, args.source.as_deref())? {
        let how = Compaction {
            order: project.clustering(source),
            before: args.before,
            grace: args.grace,
            rows_per_file: ARCHIVE_ROWS_PER_FILE,
            now: Utc::now(),
        };
        let (mut merged, mut made, mut removed, mut waiting) = (0, 0, 0, 0);
        let mut failed = None;
        let mut hear = |step: &CompactStep| {
            match step {
                CompactStep::Merged { files, .. } => (merged, made) = (merged + files, made + 1),
                CompactStep::Removed { .. } => removed += 1,
                CompactStep::Waiting { files } => waiting = *files,
            }
            if let Err(error) = say(settings, step) {
                failed.get_or_insert(error);
            }
        };
        compact(&storage, &source.name, &how, &mut hear).await?;
        failed.map_or(Ok(()), Err)?;
        if settings.json {
            let name = &source.name;
            let line = json!({"event": "finished", "source": name, "merged": merged, "into": made, "removed": removed, "waiting": waiting});
            print(&line.to_string())?;
        } else {
            print(&format!(
                "{}: {} put together into {made}, {removed} removed, {waiting} wait for their grace to be over",
                source.name,
                counted(merged, "file")
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(settings: &Settings, step: &CompactStep) -> Result<()> {
    match step {
        CompactStep::Merged { path, files, rows, bytes } if settings.json => {
            let line = json!({"event": "merged", "file": path, "files": files, "rows": rows, "bytes": bytes});
            print(&line.to_string())
        }
        CompactStep::Removed { path, bytes } if settings.json => {
            print(&json!({"event": "removed", "file": path, "bytes": bytes}).to_string())
        }
        CompactStep::Merged { path, files, rows, bytes: size } => {
            let (rows, size) = (count(*rows as u64), bytes(*size as u64));
            eprintln!("{path}: {files} files, {rows} rows, {size}");
            Ok(())
        }
        CompactStep::Removed { .. } | CompactStep::Waiting { .. } => Ok(()),
    }
}
