//! `tidemark training-set`: a Parquet file, or a folder of them, of a spine with a service's features as of each row's instant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::json;
use tidemark_engine::batch::{Cut, PartitionBy};
use tidemark_engine::catalog::Source;
use tidemark_engine::platform::{Folder, behind};
use tidemark_training::{Format, Options, Part, Request, build, diff, service};

use crate::console::{bytes, count, counted, print};
use crate::run;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A training set of the project
    #[arg(required_unless_present_any = ["spine", "diff"], conflicts_with_all = ["spine", "service", "timestamp"])]
    name: Option<String>,
    /// Or: a file with the rows to start from (Parquet, CSV or NDJSON)
    #[arg(long, value_name = "FILE", requires_all = ["service", "timestamp"])]
    spine: Option<PathBuf>,
    /// The feature service to evaluate over the file's rows
    #[arg(long, value_name = "NAME", requires = "spine")]
    service: Option<String>,
    /// The file's column with the instant to evaluate at
    #[arg(long, value_name = "COLUMN", requires = "spine")]
    timestamp: Option<String>,
    /// Or: says what makes two training sets in Parquet different, each a file or a folder; exit code 1 if anything does
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["name", "spine", "out", "partition_by"])]
    diff: Vec<PathBuf>,
    /// The file to write, or with --partition-by the folder, which must be empty or not there
    #[arg(long, value_name = "FILE", required_unless_present = "diff")]
    out: Option<PathBuf>,
    /// What to write it as
    #[arg(long, value_enum, default_value = "parquet")]
    format: FileFormat,
    /// Writes a folder with a file for each of these values: `day` or `month` of the timestamp (date=2026-01-31/part-0.parquet,
    /// month=2026-01/…), or a column of the set (country=US/…), which is then in the folders' names and not in the files
    #[arg(long, value_name = "day|month|COLUMN")]
    partition_by: Option<String>,
    /// Only rows from this instant on, such as 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = run::instant)]
    from: Option<i64>,
    /// Only rows before this instant
    #[arg(long, value_name = "INSTANT", value_parser = run::instant)]
    to: Option<i64>,
    /// Only a part of the rows, such as 0.1 for a tenth; the same ones each time
    #[arg(long, value_name = "PART", value_parser = part)]
    sample: Option<f64>,
    /// What joins and sorts may hold in memory, such as 512MB or 2GB: what is beyond it waits in temporary files. What is
    /// worked on comes on top: half as much at the most, unless one key has more
    #[arg(long, value_name = "BYTES", env = "TIDEMARK_MEMORY_LIMIT", value_parser = run::bytes)]
    memory_limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FileFormat {
    Parquet,
    Csv,
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "expected a number from 0 to 1".into())
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    if let [a, b] = args.diff.as_slice() {
        return explain(settings, a, b);
    }
    let Some(out) = &args.out else { bail!("expected --out, where to write it") };
    let project = settings.open_project().await?;
    let request = match (&args.name, &args.spine, &args.service, &args.timestamp) {
        (_, Some(spine), Some(service), Some(timestamp)) => {
            Request::File { service: service.clone(), spine: spine.clone(), timestamp: timestamp.clone() }
        }
        (Some(name), ..) => Request::Named(name.clone()),
        _ => bail!("expected the name of a training set, or --spine, --service and --timestamp"),
    };
    let folder = settings.folder();
    let sources = service(&project, &request)?.views().into_iter().map(|(view, _)| view.source.clone());
    check_archive(&folder, sources, Lacking::IsSaid).await?;
    let format = match args.format {
        FileFormat::Parquet => Format::Parquet,
        FileFormat::Csv => Format::Csv,
    };
    let cut = Cut { from: args.from, to: args.to, sample: args.sample };
    let partition_by = args.partition_by.as_deref().map(PartitionBy::named);
    let options = Options { memory: args.memory_limit, cut, format, partition_by };
    let done = build(&project, &folder, &request, &options, out).await?;
    if settings.json {
        let mut said = json!({"rows": done.rows, "columns": done.columns, "seconds": done.seconds, "bytes": done.bytes, "spilled": done.spilled});
        let part = |part: &Part| json!({"file": part.path, "rows": part.rows, "bytes": part.bytes});
        match &args.partition_by {
            Some(_) => {
                said["folder"] = json!(out);
                said["files"] = done.parts.iter().map(part).collect();
            }
            None => said["file"] = json!(out),
        }
        print(&said.to_string())?;
    } else {
        print(&format!(
            "{}: {}{} rows, {} columns, {} in {:.1} s{}",
            out.display(),
            match done.parts.len() {
                0 => String::new(),
                files => format!("{}, ", counted(files, "file")),
            },
            count(done.rows),
            done.columns.len(),
            bytes(done.bytes),
            done.seconds,
            if done.spilled > 0 {
                format!("; {} went through temporary files", bytes(done.spilled))
            } else {
                String::new()
            }
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what makes two files different.
fn explain(settings: &Settings, a: &Path, b: &Path) -> Result<ExitCode> {
    let found = diff(a, b)?;
    if settings.json {
        let differences: Vec<String> = found.iter().map(ToString::to_string).collect();
        print(&json!({"a": a, "b": b, "differences": differences}).to_string())?;
    } else if found.is_empty() {
        print(&format!("A {} and B {} are the same", a.display(), b.display()))?;
    } else {
        print(&format!("A {}\nB {}", a.display(), b.display()))?;
        found.iter().try_for_each(|difference| print(&difference.to_string()))?;
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to do where the archive lacks some of the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    IsSaid,
    IsAnError,
}

/// Says on stderr what the archive lacks of the event log; an error if it lacks all. What is made without the events would be wrong
/// without a word.
pub async fn check_archive(
    folder: &Folder,
    sources: impl IntoIterator<Item = Arc<Source>>,
    lacking: Lacking,
) -> Result<()> {
    const HINT: &str = "run `tidemark stream --until-end` first";
    let sources: BTreeMap<_, _> = sources.into_iter().map(|source| (source.name.clone(), source)).collect();
    let found = match folder.open_log() {
        Ok(None) => return Ok(()),
        Ok(Some(log)) => behind(&log, folder, sources.into_values()).await.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    let found = match found {
        Ok(found) => found,
        Err(cause) => {
            eprintln!(
                "warning: can't tell whether the archive has every event of the log: {cause}\n\
                 A `tidemark up` that runs archives what it takes within seconds; events newer than that are missing."
            );
            return Ok(());
        }
    };
    for source in found {
        let events = count(source.events);
        if source.empty {
            bail!(
                "source {}: its archive under {} is empty, and the event log holds {events} events; expected the archive \
                 to hold them; hint: {HINT}",
                source.source,
                folder.offline()
            );
        }
        if lacking == Lacking::IsAnError {
            bail!("source {}: {events} events of the log are not in the archive yet; hint: {HINT}", source.source);
        }
        eprintln!(
            "warning: source {}: {events} events of the log are not in the archive yet, and so not in what is made now; \
             hint: {HINT}",
            source.source
        );
    }
    Ok(())
}
