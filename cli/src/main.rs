//! The `tidemark` binary: SQL files in, online values and training sets out.
//!
//! Thin: each verb is a file that reads its arguments, calls a library, and prints. Exit codes: 0 done, 1 failed, 2 wrong
//! usage. What a program reads goes to standard output, everything else to standard error.

mod archive;
mod backfill;
mod check;
mod client;
mod compact;
mod console;
mod dead_letters;
mod explain;
mod generate;
mod get;
mod load;
mod quickstart;
mod run;
mod schemas;
mod services;
mod settings;
mod status;
mod stream;
mod training_set;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use settings::Settings;

/// A stream's work is many small arrays that come and go: the system's allocator took a third of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Features for machine learning, defined once in SQL: online over REST, offline as training sets, the same values.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: settings::Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Checks every definition; touches no data and no service
    Check,
    /// Shows what a view, service or training set compiles to, in words
    Explain(explain::Args),
    /// Runs the platform over one folder: ingest, stream, archive, REST
    Up(up::Args),
    /// Streams from Kafka into Redis and the archive; start more of it to share the work
    Stream(stream::Args),
    /// Puts small files of the archive together, orders their rows by time, and removes what is older than sources keep it; readers and the
    /// stream go on meanwhile
    Compact(compact::Args),
    /// Proves the archive complete, or says what is wrong with it
    Archive(archive::Args),
    /// Shows the events that could not be taken, or sends them again
    DeadLetters(dead_letters::Args),
    /// Makes synthetic card transactions and clicks with a hidden fraud pattern
    Generate(generate::Args),
    /// Builds a point-in-time-correct training set as Parquet
    TrainingSet(training_set::Args),
    /// Makes snapshots of a view: its values for every entity at the end of each date, as Parquet; or loads the online store
    Backfill(backfill::Args),
    /// Reads a service or a view from a running platform
    Get(get::Args),
    /// Says how a running platform is
    Status(status::Args),
    /// Checks the data contracts under schemas/, and registers them
    Schemas(schemas::Args),
    /// Shows the whole loop on this machine, and checks that online and offline agree
    Quickstart,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Settings::new(&cli.global).and_then(|settings| {
        let level = if matches!(&cli.verb, Verb::Up(_) | Verb::Stream(stream::Args { until_end: false, .. })) {
            "info"
        } else {
            "warn"
        };
        console::start_logging(level)?;
        run_verb(&settings, cli.verb)
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", console::message(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_verb(settings: &Settings, verb: Verb) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match verb {
        Verb::Check => runtime.block_on(check::run(settings)),
        Verb::Explain(args) => runtime.block_on(explain::run(settings, &args)),
        Verb::Up(args) => runtime.block_on(up::run(settings, &args)),
        Verb::Stream(args) => runtime.block_on(stream::run(settings, &args)),
        Verb::Compact(args) => runtime.block_on(compact::run(settings, &args)),
        Verb::Archive(args) => runtime.block_on(archive::run(settings, &args)),
        Verb::DeadLetters(args) => runtime.block_on(dead_letters::run(settings, &args)),
        Verb::Generate(args) => runtime.block_on(generate::run(settings, &args)),
        Verb::TrainingSet(args) => runtime.block_on(training_set::run(settings, &args)),
        Verb::Backfill(args) => runtime.block_on(backfill::run(settings, &args)),
        Verb::Get(args) => get::run(settings, &args),
        Verb::Status(args) => status::run(settings, &args),
        Verb::Schemas(args) => schemas::run(settings, &args, &runtime),
        Verb::Quickstart => runtime.block_on(quickstart::run(settings)),
    }
}
