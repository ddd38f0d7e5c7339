//! `tidemark explain NAME`: plans, frames, state and columns in words.

use std::process::ExitCode;

use anyhow::Result;
use tidemark_engine::explain;

use crate::console::print;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A feature view, feature service or training set
    name: String,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.project().await?;
    let page = if settings.json {
        explain::json(&project, &args.name)?.to_string()
    } else {
        explain::text(&project, &args.name)?
    };
    print(&page)?;
    Ok(ExitCode::SUCCESS)
}
