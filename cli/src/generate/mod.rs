//! `tidemark generate`: synthetic card transactions and clicks, as history or live.

pub mod history;
mod http;
pub mod live;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tidemark_engine::platform::{Intake, Platform};
use tidemark_generators::{Config, Format, World};

use crate::console::{Progress, count};
use crate::services::Connections;
use crate::settings::Settings;
use history::{History, Range};

const DAY: i64 = 86_400_000_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to: the embedded log of --data, files, Kafka, or a running platform's URL
    #[arg(long, value_name = "log|files|kafka|http://…", default_value = "log")]
    to: Target,
    /// Days of history
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Where history ends, RFC 3339 [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = crate::run::instant)]
    end: Option<i64>,
    /// Folder for files [default: the data folder's `generated`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Format of files: parquet, avro or ndjson
    #[arg(long, default_value = "parquet")]
    format: Format,
    /// Live traffic in place of history, in events a second; needs --to kafka or --to http://…
    #[arg(long, value_name = "RATE", value_parser = live::rate)]
    live: Option<f64>,
    /// How long live traffic goes on, in seconds [default: until stopped]
    #[arg(long = "for", value_name = "SECONDS", requires = "live")]
    seconds: Option<u32>,
    #[command(flatten)]
    scenario: Scenario,
    #[command(flatten)]
    connections: Connections,
}

/// The world that the events happen in.
#[derive(Debug, Clone, clap::Args)]
pub struct Scenario {
    /// The same seed and settings give the same world and the same events
    #[arg(long, default_value_t = Config::default().seed)]
    seed: u64,
    #[arg(long, default_value_t = Config::default().users)]
    users: u32,
    #[arg(long, default_value_t = Config::default().merchants)]
    merchants: u32,
    #[arg(long, value_name = "NUMBER", default_value_t = Config::default().transactions_per_day)]
    transactions_per_day: f64,
    #[arg(long, value_name = "NUMBER", default_value_t = Config::default().clicks_per_day)]
    clicks_per_day: f64,
    /// Share of transactions that are fraudulent
    #[arg(long, value_name = "SHARE", default_value_t = Config::default().fraud_share)]
    fraud: f64,
    /// Share of events that arrive late and out of order
    #[arg(long, value_name = "SHARE", default_value_t = Config::default().late_share)]
    late: f64,
    /// Share of events that arrive twice
    #[arg(long, value_name = "SHARE", default_value_t = Config::default().duplicates)]
    duplicates: f64,
}

impl Scenario {
    fn config(&self) -> Config {
        Config {
            seed: self.seed,
            users: self.users,
            merchants: self.merchants,
            transactions_per_day: self.transactions_per_day,
            clicks_per_day: self.clicks_per_day,
            fraud_share: self.fraud,
            late_share: self.late,
            duplicates: self.duplicates,
            ..Config::default()
        }
    }
}

#[derive(Debug, Clone)]
enum Target {
    Log,
    Files,
    Kafka,
    Http(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "log" => Ok(Self::Log),
            "files" => Ok(Self::Files),
            "kafka" => Ok(Self::Kafka),
            url if url.starts_with("http://") => Ok(Self::Http(url.trim_end_matches('/').to_owned())),
            _ => Err("expected log, files, kafka, or the URL of a platform such as http://127.0.0.1:8080".into()),
        }
    }
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let config = args.scenario.config();
    if let Some(rate) = args.live {
        let time = args.seconds.map(|s| Duration::from_secs(s.into()));
        return match &args.to {
            Target::Http(url) => report(settings, &http::live(url, config, rate, time)?),
            Target::Kafka => {
                let intake = kafka(settings, &args.connections).await?;
                let traffic = live::Traffic::new(&intake.project, config, rate, time)?;
                report(settings, &traffic.run(&intake).await?)
            }
            Target::Log | Target::Files => bail!(
                "--live goes to Kafka or a running platform; expected --to kafka or --to http://…; hint: `tidemark up --generate {rate}` makes live traffic too"
            ),
        };
    }
    let to = args.end.unwrap_or_else(now);
    let range = Range { from: to - i64::from(args.days) * DAY, to };
    let world = World::new(config)?;
    let summary = match &args.to {
        Target::Files => {
            let out = args.out.clone().unwrap_or_else(|| settings.data.join("generated"));
            files(&world, range, &out, args.format)?
        }
        Target::Log => {
            let project = settings.project().await?;
            history::check(&project)?;
            let platform = Platform::embedded(project, settings.folder())?;
            let mut history = History::new(&world, range);
            history.append(&platform.intake).await?;
            history.write_tables(&platform.project)?
        }
        Target::Kafka => {
            let intake = kafka(settings, &args.connections).await?;
            let mut history = History::new(&world, range);
            history.append(&intake).await?;
            history.write_tables(&intake.project)?
        }
        Target::Http(url) => http::history(url, &world, range)?,
    };
    report(settings, &summary)
}

/// Kafka, with the topics that the events go to.
async fn kafka(settings: &Settings, connections: &Connections) -> Result<Intake> {
    let project = settings.project().await?;
    history::check(&project)?;
    let intake = Intake::kafka(project, connections.kafka(settings)?)?;
    intake.create_topics().await?;
    Ok(intake)
}

/// What was made.
#[derive(Debug, Default, serde::Serialize)]
pub struct Made {
    pub transactions: u64,
    pub clicks: u64,
    pub duplicates: u64,
    pub labels: u64,
    pub frauds: u64,
    pub merchants: u64,
    /// Tables and event files written.
    pub files: Vec<PathBuf>,
    /// Events that a platform refused, with the first reason.
    pub refused: u64,
    pub reason: Option<String>,
}

fn files(world: &World, range: Range, out: &std::path::Path, format: Format) -> Result<Made> {
    let mut progress = Progress::new();
    let s = tidemark_generators::write_history(world, range.from, range.to, out, format, |p| {
        progress.show(&format!("day {} of {}: {} events", p.days_done, p.days, count(p.events)));
    })?;
    Ok(Made {
        transactions: s.transactions,
        clicks: s.clicks,
        duplicates: s.duplicates,
        labels: s.labels,
        frauds: s.frauds,
        merchants: s.merchants,
        files: s.files,
        ..Made::default()
    })
}

fn report(settings: &Settings, made: &Made) -> Result<ExitCode> {
    let failed = made.refused > 0;
    if settings.json {
        println!("{}", json!(made));
    } else {
        println!(
            "{} transactions, {} clicks ({} sent twice)",
            count(made.transactions),
            count(made.clicks),
            count(made.duplicates)
        );
        if !made.files.is_empty() {
            println!(
                "{} labels, {} of them fraud; {} merchants",
                count(made.labels),
                count(made.frauds),
                count(made.merchants)
            );
        }
        match made.files.as_slice() {
            [] => {}
            files if files.len() <= 4 => files.iter().for_each(|f| println!("  {}", f.display())),
            [first, .., last] => {
                println!("  {} files, from {} to {}", made.files.len(), first.display(), last.display())
            }
            [_] => {}
        }
    }
    if failed {
        bail!(
            "{} events were refused; the first: {}",
            count(made.refused),
            made.reason.as_deref().unwrap_or("no reason given")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Microseconds UTC.
pub fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
