//! `bench-stream`: how fast events go from Kafka into Redis, how soon they can be read, and where the time goes.
//!
//! One run measures everything: the engine, two floors under it, and what others make of the same transactions. README.md
//! says what each figure means.

mod answers;
mod drain;
mod floors;
mod kafka;
mod latency;
mod peers;
mod profile;
mod project;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use project::Scratch;
use report::Report;
use tidemark_benches::redis_server::RedisServer;
use tidemark_benches::{machine, say};

/// What is waiting in Kafka by default.
const EVENTS: u64 = 2_000_000;
const QUICK: u64 = 100_000;

/// Measures `tidemark stream` against floors and peers; prints a table, and writes target/bench/stream.json.
#[derive(Debug, Parser)]
#[command(name = "bench-stream")]
pub struct Args {
    /// Transactions that wait in Kafka; about so many, the generator's days are whole
    #[arg(long, default_value_t = EVENTS)]
    events: u64,
    /// 100,000 transactions, a short stretch of live traffic, peers over 50,000: to try it
    #[arg(long)]
    quick: bool,
    /// Runs of the engine, of which the median counts
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// How many of the transactions the peers get [default: 1000000, but not more than there are]
    #[arg(long)]
    peer_events: Option<usize>,
    /// Peers to run, with commas between; `none` for none
    #[arg(long, value_delimiter = ',', default_value = "floor.python,bytewax.w1,pyflink.p1")]
    peers: Vec<String>,
    /// Seconds after which a peer is stopped
    #[arg(long, default_value_t = 420)]
    peer_limit: u64,
    /// Live events a second
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Seconds of live traffic
    #[arg(long, default_value_t = 60)]
    live: u64,
    /// Leave out the profile, which drains once more under perf
    #[arg(long)]
    no_profile: bool,
    /// Keep the scratch folder and the topics
    #[arg(long)]
    keep: bool,
}

/// Where services, programs and files are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository.
    pub root: PathBuf,
    /// The folder of this run's files.
    pub work: PathBuf,
    /// The release binary beside this one.
    pub tidemark: PathBuf,
    pub brokers: String,
    pub registry: String,
    /// What this run's topics, keys and groups begin with.
    pub id: String,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.quick {
        (args.events, args.live) = (QUICK, args.live.min(10));
        args.peer_events.get_or_insert(50_000);
    }
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-stream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let place = place()?;
    std::fs::create_dir_all(&place.work)?;
    let done = measure(args, &place).await;
    if !args.keep {
        kafka::forget(&place).await;
        let _ = std::fs::remove_dir_all(&place.work);
    }
    let report = done?;
    let path = place.root.join("target/bench/stream.json");
    report.write(&path)?;
    print!("{}", report.table());
    println!("\nThe same and more is in {}", path.display());
    Ok(())
}

async fn measure(args: &Args, place: &Place) -> Result<Report> {
    let mut report = Report { machine: machine::facts(&place.root, &place.tidemark)?, ..Report::default() };
    let redis = RedisServer::start(&place.work)?;
    let shipped = Scratch::shipped(place)?;

    say("generating transactions into Kafka");
    report.made = shipped.generate(place, args.events)?;

    say("draining them into Redis, all shipped views");
    let (mut runs, mut name) = (vec![], String::new());
    for run in 0..args.runs.max(1) {
        name = format!("{}-{run}", place.id);
        runs.push(drain::run(place, &shipped, &name, &redis)?);
    }
    let ours = drain::median(&mut runs).context("no run")?;
    report.runs = runs;

    say("reading the same messages: decode only");
    let decode = floors::decode(place, &shipped).await?;
    (report.decode_seconds, report.decode_events) = (decode.seconds, decode.decoded);
    let all = answers::Events::new(decode.transactions);
    report.answers = answers::check_shipped(&shipped, &name, &redis, &all).await?;

    {
        // The first one keeps the state that live traffic goes on over.
        let other = RedisServer::start(&place.work)?;
        say("draining into the one view that the peers have");
        let single = Scratch::single(place)?;
        let name = format!("{}-single", place.id);
        report.single = Some(drain::run(place, &single, &name, &other)?);
        report.single_answers = answers::check_single(&single, &name, &other, &all).await?;
        say("writing the same bytes to Redis, raw");
        report.raw = Some(floors::raw_writes(&other, &ours)?);
        if !args.no_profile {
            say("draining once more, under perf");
            report.profile = Some(profile::run(place, &shipped, &other).map_err(|e| format!("{e:#}")));
        }
    }
    report.ours = Some(ours);

    say("live traffic, and probes that look for themselves");
    let live = latency::run(place, &shipped, &name, &redis, (args.rate, args.live)).await;
    report.latency = Some(live.map_err(|e| format!("{e:#}")));
    drop(redis);

    let wanted = args.peer_events.unwrap_or(1_000_000).min(all.len());
    let file = place.work.join("events.jsonl");
    all.write_json_lines(&file, wanted)?;
    for peer in args.peers.iter().filter(|peer| *peer != "none") {
        say(&format!("{peer} over {wanted} of them"));
        report.peers.push(peers::run(place, peer, (&file, wanted), &all, args.peer_limit));
    }
    Ok(report)
}

fn place() -> Result<Place> {
    let (root, beside) = tidemark_benches::beside()?;
    let id = format!("bench-{}-{}", chrono::Utc::now().format("%y%m%d%H%M%S"), std::process::id());
    let service = |name: &str| {
        std::env::var(name).with_context(|| format!("{name} is not set; hint: eval \"$(infra/services env)\""))
    };
    Ok(Place {
        work: root.join("target/bench").join(&id),
        root,
        tidemark: beside,
        brokers: service("KAFKA_BROKERS")?,
        registry: service("SCHEMA_REGISTRY_URL")?,
        id,
    })
}
