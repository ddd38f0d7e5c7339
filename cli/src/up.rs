//! `tidemark up`: ingest, stream, archive and REST in one process over one folder.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use tidemark_engine::platform::Platform;
use tidemark_generators::Config;

use crate::generate::live;
use crate::run;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to serve REST on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "TIDEMARK_LISTEN")]
    listen: Option<SocketAddr>,
    /// Make this many synthetic events a second (of the sources transactions and clicks)
    #[arg(long, value_name = "RATE", value_parser = live::rate)]
    generate: Option<f64>,
    #[command(flatten)]
    workers: run::Workers,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.open_project().await?;
    crate::check::log(&project.warnings);
    let listener = run::listen(settings.listen(args.listen)).await?;
    let mut platform = Platform::embedded(project, settings.folder())?;
    args.workers.configure(&mut platform);
    platform.resume().await?;
    let traffic =
        args.generate.map(|rate| live::Traffic::new(&platform.project, Config::default(), rate, None)).transpose()?;
    run::run(settings, platform, listener, traffic).await
}
