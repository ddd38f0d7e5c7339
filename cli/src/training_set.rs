//! `tidemark training-set`: a Parquet file of a spine with a service's features as of each row's instant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tidemark_engine::plan::FeatureService;
use tidemark_engine::platform::{Folder, behind};
use tidemark_training::{Request, build, service};

use crate::console::{bytes, count};
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A training set of the project
    #[arg(required_unless_present = "spine", conflicts_with_all = ["spine", "service", "timestamp"])]
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
    /// The Parquet file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.project().await?;
    let request = match (&args.name, &args.spine, &args.service, &args.timestamp) {
        (_, Some(spine), Some(service), Some(timestamp)) => {
            Request::File { service: service.clone(), spine: spine.clone(), timestamp: timestamp.clone() }
        }
        (Some(name), ..) => Request::Named(name.clone()),
        _ => anyhow::bail!("expected the name of a training set, or --spine, --service and --timestamp"),
    };
    let folder = settings.folder();
    check_archive(&folder, service(&project, &request)?).await?;
    let done = build(&project, &folder.offline(), &request, &args.out).await?;
    if settings.json {
        println!(
            "{}",
            json!({"rows": done.rows, "columns": done.columns, "seconds": done.seconds, "bytes": done.bytes, "file": args.out})
        );
    } else {
        println!(
            "{}: {} rows, {} columns, {} in {:.1} s",
            args.out.display(),
            count(done.rows),
            done.columns.len(),
            bytes(done.bytes),
            done.seconds
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr what the archive lacks of the event log; an error if it lacks all. A training set without the events
/// would be wrong without a word.
async fn check_archive(folder: &Folder, service: &FeatureService) -> Result<()> {
    const HINT: &str = "run `tidemark stream --until-end` first";
    let sources: BTreeMap<_, _> =
        service.views().into_iter().map(|(view, _)| (view.source.name.clone(), view.source.clone())).collect();
    let found = match folder.open_log() {
        Ok(None) => return Ok(()),
        Ok(Some(log)) => behind(&log, &folder.offline(), sources.into_values()).await.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    let lacking = match found {
        Ok(lacking) => lacking,
        Err(cause) => {
            eprintln!(
                "warning: can't tell whether the archive has every event of the log: {cause}\n\
                 A `tidemark up` that runs archives what it takes within seconds; events newer than that are missing."
            );
            return Ok(());
        }
    };
    for source in lacking {
        let events = count(source.events);
        if source.empty {
            anyhow::bail!(
                "source {}: its archive under {} is empty, and the event log holds {events} events; expected the archive \
                 to hold them; hint: {HINT}",
                source.source,
                folder.offline().display()
            );
        }
        eprintln!(
            "warning: source {}: {events} events of the log are not in the archive yet, and so not in this training set; \
             hint: {HINT}",
            source.source
        );
    }
    Ok(())
}
