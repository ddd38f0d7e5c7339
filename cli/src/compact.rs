//! `tidemark compact`: small files of the archive put together, and those removed that are older than a source keeps them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use chrono::{NaiveDate, Utc};
use serde_json::json;
use tidemark_engine::catalog::Source;
use tidemark_engine::offline::{ARCHIVE_ROWS_PER_FILE, CompactStep, Compaction, Retention, Storage, compact};
use tidemark_engine::plan::Project;
use tidemark_engine::platform::views_that_need_all;
use tidemark_engine::source::instant;

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
    let sources = sources(&project, args.source.as_deref())?;
    for source in &sources {
        may_forget(settings, &project, &storage, source).await?;
    }
    for source in sources {
        let retention = source.options.retention.as_ref().map(|kept| Retention {
            timestamp: source.timestamp.clone(),
            before: Utc::now().timestamp_micros().saturating_sub(kept.value),
        });
        let how = Compaction {
            order: project.clustering(source),
            before: args.before,
            grace: args.grace,
            rows_per_file: ARCHIVE_ROWS_PER_FILE,
            retention,
            now: Utc::now(),
        };
        let (mut merged, mut made, mut removed, mut waiting, mut retired) = (0, 0, 0, 0, 0);
        let mut failed = None;
        let mut hear = |step: &CompactStep| {
            match step {
                CompactStep::Merged { files, .. } => (merged, made) = (merged + files, made + 1),
                CompactStep::Removed { .. } => removed += 1,
                CompactStep::Retired { events, .. } => retired += events,
                CompactStep::Kept { .. } => {}
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
            let line = json!({"event": "finished", "source": name, "merged": merged, "into": made, "removed": removed, "waiting": waiting, "retired": retired});
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

/// A source may only forget events that no view needs for ever.
async fn may_forget(settings: &Settings, project: &Project, storage: &Storage, source: &Source) -> Result<()> {
    let Some(kept) = &source.options.retention else { return Ok(()) };
    let scratch = settings.folder().path().join(format!(".compact-{}", std::process::id()));
    let views = views_that_need_all(project, &source.name, storage, &scratch).await?;
    if !views.is_empty() {
        bail!(
            "source {}: its retention of {} days can't be applied: {} need all events there ever were; expected frames that begin an \
             interval PRECEDING, not UNBOUNDED or ROWS; hint: change or drop the views (a `tidemark up` or `stream` that serves the old \
             ones must have gone over to the new ones), or leave `retention` out. Nothing was changed",
            source.name,
            kept.value / 86_400_000_000,
            views.join(", ")
        );
    }
    Ok(())
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
        CompactStep::Retired { before, files, events } if settings.json => print(
            &json!({"event": "retired", "before": instant(*before), "files": files, "events": events}).to_string(),
        ),
        CompactStep::Kept { path, cause } if settings.json => {
            print(&json!({"event": "kept", "file": path, "cause": cause}).to_string())
        }
        CompactStep::Retired { before, files, events } => {
            let (files, events) = (counted(*files, "file"), count(*events));
            print(&format!(
                "retention: {files} with {events} events, all before {}, no longer count; a later run removes them",
                instant(*before)
            ))
        }
        CompactStep::Kept { path, cause } => {
            eprintln!("warning: {path}: retention can't remove it, nor what came in after it: {cause}");
            Ok(())
        }
        CompactStep::Removed { .. } | CompactStep::Waiting { .. } => Ok(()),
    }
}
