//! `tidemark backfill`: snapshots of a view, a Parquet file a date; and with `--online` its state in the online store.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use chrono::NaiveDate;
use serde_json::json;
use tidemark_engine::plan::Project;
use tidemark_training::{Backfill, Step, backfill};

use crate::console::{Progress, bytes, count, counted, left, print, rate, tell};
use crate::settings::Settings;
use crate::training_set::{Lacking, check_archive};
use crate::{load, run, services};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The feature view
    #[arg(long, value_name = "NAME")]
    view: String,
    /// The first date, such as 2026-01-01
    #[arg(long, value_name = "DATE", requires = "to", required_unless_present = "online")]
    from: Option<NaiveDate>,
    /// The last date; a snapshot is as of a date's end (UTC), which must lie back as far as the view takes late events
    #[arg(long, value_name = "DATE", requires = "from", required_unless_present = "online")]
    to: Option<NaiveDate>,
    /// Load the online store from history: all that the view needs, up to where the archive ends, from where a stream goes on.
    /// Streams and reads may go on meanwhile; interrupted and run again, it goes on where it was. Without dates, nothing else is done
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    redis: services::Redis,
    /// How many passes over the events run at once, eight dates each
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Make dates again that are there already
    #[arg(long)]
    force: bool,
    /// What the joins and sorts of a pass may hold in memory, such as 512MB or 2GB: what is beyond it waits in temporary files. What
    /// is worked on (half as much at the most, unless one key has more) and the entities' keys come on top
    #[arg(long, value_name = "BYTES", env = "TIDEMARK_MEMORY_LIMIT", value_parser = run::bytes)]
    memory_limit: Option<usize>,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let dates = args.from.zip(args.to);
    if let Some((from, to)) = dates.filter(|(from, to)| to < from) {
        bail!("--to {to} is before --from {from}; expected the first date, then the last");
    }
    let project = settings.open_project().await?;
    if args.online {
        load::run(settings, &project, &args.view, args.redis.config(settings).as_ref(), args.memory_limit).await?;
    }
    if let Some(dates) = dates {
        snapshots(settings, &project, args, dates).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn snapshots(
    settings: &Settings,
    project: &Project,
    args: &Args,
    (from, to): (NaiveDate, NaiveDate),
) -> Result<()> {
    let folder = settings.folder();
    if let Some(view) = project.views.get(&args.view) {
        // A date is made once: what comes late must be in, and archived.
        let settled = chrono::Utc::now() - chrono::Duration::microseconds(view.options.lateness);
        let last = settled.date_naive().pred_opt().unwrap_or_default();
        if to > last {
            bail!(
                "--to {}: events of that date may still come, since view {} takes them late; expected {last} or earlier (UTC)",
                to,
                view.name
            );
        }
        check_archive(&folder, [view.source.clone()], Lacking::IsAnError).await?;
    }
    let what = Backfill {
        view: args.view.clone(),
        from,
        to,
        parallel: args.parallel.into(),
        force: args.force,
        memory: args.memory_limit,
    };
    let mut shown = Dates::new(settings.json);
    let made = backfill(project, &folder, &what, &mut |step| shown.step(step)).await;
    drop(shown);
    let made = made?;
    let seconds = made.elapsed.as_secs_f64();
    if settings.json {
        let (dates, there, rows, size) = (made.dates, made.there, made.rows, made.bytes);
        let said = json!({"event": "finished", "dates": dates, "there": there, "rows": rows, "bytes": size, "seconds": seconds});
        print(&said.to_string())
    } else {
        print(&format!(
            "{}: {} made, {} there already; {} rows, {} in {seconds:.1} s",
            args.view,
            counted(made.dates, "date"),
            made.there,
            count(made.rows),
            bytes(made.bytes)
        ))
    }
}

/// What is seen while dates are made: a bar on a terminal, a line a date elsewhere, events for programs.
struct Dates {
    json: bool,
    line: Progress,
    since: Instant,
    dates: usize,
    done: usize,
    rows: u64,
}

impl Dates {
    fn new(json: bool) -> Self {
        Self { json, line: Progress::new(), since: Instant::now(), dates: 0, done: 0, rows: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Begun { dates, there } => {
                self.dates = *dates;
                if self.json {
                    tell(&json!({"event": "begun", "dates": dates, "there": there}).to_string());
                }
            }
            Step::Made { date, rows, bytes: size } => {
                self.done += 1;
                self.rows += rows;
                if self.json {
                    let said = json!({"event": "made", "date": date.to_string(), "rows": rows, "bytes": size});
                    tell(&said.to_string());
                } else if !stderr().is_terminal() {
                    eprintln!("{date}: {} rows, {}; {}", count(*rows), bytes(*size), self.rest());
                }
            }
        }
        if !self.json {
            self.line.bar(self.part(), &self.rest());
        }
    }

    fn part(&self) -> f64 {
        if self.dates == 0 { 1.0 } else { self.done as f64 / self.dates as f64 }
    }

    /// How far it is, how fast, and how long it will take.
    fn rest(&self) -> String {
        let seconds = self.since.elapsed().as_secs_f64();
        format!(
            "{} of {}, {} rows/s{}",
            self.done,
            counted(self.dates, "date"),
            count(rate(self.rows, seconds)),
            left(self.part(), seconds)
        )
    }
}
