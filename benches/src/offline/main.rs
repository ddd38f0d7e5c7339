//! `bench-offline`: training sets against what a data scientist would reach for.
//!
//! The same data and the same questions for all, each contender in a process of its own, in turns. Answers are compared.
//! README.md says what each figure means.

mod contender;
mod latest;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tidemark_benches::redis_server::RedisServer;
use tidemark_benches::{beside, machine, say, venv};

use contender::{Contender, Place, Run};
use report::Report;

/// Measures training sets against public tools; prints a table, and writes target/bench/offline.json.
#[derive(Debug, Parser)]
#[command(name = "bench-offline")]
struct Args {
    /// Runs of each at the small size, of which the median counts; the large one is run once
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Sizes, with commas between: T (20 thousand events), S (1 million), M (10 million)
    #[arg(long, value_delimiter = ',', default_value = "S,M")]
    sizes: Vec<String>,
    /// Sizes over which only Tidemark's growth is measured; `none` for none
    #[arg(long, value_delimiter = ',', default_value = "S,S3,M,M3")]
    growth: Vec<String>,
    /// Contenders beside Tidemark, with commas between; `none` for none
    #[arg(long, value_delimiter = ',', default_value = "polars,duckdb,datafusion,feast")]
    peers: Vec<String>,
    /// Seconds after which a peer is stopped
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// Where the data is generated, and kept for the next time [default: ~/.cache/tidemark/bench]
    #[arg(long, env = "PEERS_DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-offline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let (root, tidemark) = beside()?;
    let scripts = root.join("benches/peers");
    let data = match &args.data {
        Some(data) => data.clone(),
        None => PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/tidemark/bench"),
    };
    let python = venv::python(&scripts, "offline")?;
    std::fs::create_dir_all(&data)?;
    let redis = RedisServer::start(&data)?;
    let place = Place { scripts: scripts.join("offline"), data, tidemark, python, limit: args.limit, redis };
    let mut report = Report { machine: machine::facts(&root, &place.tidemark)?, ..Report::default() };

    for size in &args.sizes {
        place.generate(size)?;
        let runs = if contender::is_large(size) { 1 } else { args.runs.max(1) };
        for workload in ["w1", "w2", "w5"] {
            let contenders = contender::all(workload, size, &args.peers);
            let mut done: Vec<Vec<Run>> = contenders.iter().map(|_| vec![]).collect();
            let mut rows = BTreeMap::new();
            for run in 0..runs {
                for (contender, done) in contenders.iter().zip(&mut done) {
                    // What failed once fails again, slowly.
                    if done.iter().any(|run| run.failed.is_some()) {
                        continue;
                    }
                    say(&format!("{workload} {size}: {}, run {} of {runs}", contender.name, run + 1));
                    done.push(place.run(workload, size, contender, &scripts));
                    if workload == "w5"
                        && let Some(latest) = place.latest(size, contender)
                    {
                        rows.insert(contender.tool().to_owned(), latest?);
                    }
                }
            }
            let answers = match (rows.get("tidemark"), rows.get("floor")) {
                (Some(ours), Some(floor)) => vec![("tidemark".to_owned(), latest::compared(ours, floor))],
                _ => place.compare(workload, size, &contenders)?,
            };
            let done = contenders.iter().zip(done).map(|(contender, runs)| (contender.clone(), runs)).collect();
            report.add(workload, size, done, answers);
        }
    }
    for size in args.growth.iter().filter(|size| *size != "none") {
        place.generate(size)?;
        say(&format!("growth {size}"));
        report.growth.push((
            size.clone(),
            contender::events(size),
            place.run("w1", size, &Contender::ours(), &scripts),
        ));
    }
    let path = root.join("target/bench/offline.json");
    report.write(&path)?;
    print!("{}", report.table());
    println!("\nThe same and more is in {}", path.display());
    Ok(())
}
