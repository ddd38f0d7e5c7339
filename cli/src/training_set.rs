//! `tidemark training-set`: a Parquet file of a spine with a service's features as of each row's instant.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tidemark_training::{Request, build};

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
    let done = build(&project, &settings.folder().offline(), &request, &args.out).await?;
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
