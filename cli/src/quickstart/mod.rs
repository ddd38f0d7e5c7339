//! `tidemark quickstart`: the whole loop on one machine, and the proof that online and offline agree.
//!
//! It works in a project of its own, `data/quickstart` under the project folder, made anew from the project's
//! definitions: whatever else is in the data folder stays as it is.

mod compare;
mod platform;
mod scratch;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tidemark_engine::platform::Platform;
use tidemark_generators::{Config, World};
use tidemark_training::{Options, Request, build};

use crate::console::{bytes, count, rate};
use crate::generate::history::{self, History, Range};
use crate::generate::now;
use crate::settings::Settings;

const DAYS: i64 = 30;
const DAY: i64 = 86_400_000_000;
const SERVICE: &str = "fraud_v1";
const TRAINING_SET: &str = "fraud_training";
/// Live events a second.
const LIVE: f64 = 20.0;
/// Rows of the training set that are read online too.
const SAMPLE: usize = 300;

pub async fn run(settings: &Settings) -> Result<ExitCode> {
    let started = Instant::now();
    let scratch = scratch::make(settings)?;
    println!("Tidemark quickstart, in {}\n", scratch.root.display());

    section(1, "30 days of card transactions and clicks, with a hidden fraud pattern");
    let end = now();
    let world = World::new(scenario())?;
    let took = Instant::now();
    {
        let project = scratch.open_project().await?;
        history::check(&project)?;
        let platform = Platform::embedded(project, scratch.folder())?;
        let mut history = History::new(&world, Range { from: end - DAYS * DAY, to: end });
        history.append(&platform.intake).await?;
        let made = history.write_tables(&platform.project)?;
        say(&format!(
            "{} transactions and {} clicks in the durable log; {} labels, {} of them fraud ({:.1} s)",
            count(made.transactions),
            count(made.clicks),
            count(made.labels),
            count(made.frauds),
            took.elapsed().as_secs_f64()
        ));
    }

    section(2, "SQL turns events into online state and an archive");
    let took = Instant::now();
    let project = scratch.open_project().await?;
    {
        let platform = Platform::embedded(project.clone(), scratch.folder())?;
        let done = crate::stream::drain(&platform).await?;
        let events: u64 = done.iter().map(|(_, s)| s.events).sum();
        let seconds = took.elapsed().as_secs_f64();
        let views = project.views.len();
        say(&format!(
            "{} events through {views} feature views in {seconds:.1} s, {} a second",
            count(events),
            count(rate(events, seconds))
        ));
        say(&format!("archived as Parquet in {}", scratch.folder().path().join("offline/archive").display()));
    }

    section(3, "the platform starts, with live traffic");
    let mut platform = platform::Platform::start(&scratch, LIVE)?;
    let fresh = platform.wait_until_fresh(Duration::from_secs(60))?;
    say(&format!(
        "{} is ready after {:.1} s; {} live events are in already, none is waiting",
        platform.url(),
        fresh.seconds,
        count(fresh.events)
    ));

    section(4, "a model asks for its features");
    let request = compare::busy_request(&scratch, &project)?;
    let body = json!({ "rows": [request] });
    say(&format!("POST {}/v1/services/{SERVICE}", platform.url()));
    say(&body.to_string());
    let took = Instant::now();
    let answer = platform.client().post(&format!("/v1/services/{SERVICE}"), &body)?.json()?;
    let profile = if cfg!(debug_assertions) { " (this is an unoptimised build)" } else { "" };
    say(&format!("answer after {:.1} ms{profile}:", took.elapsed().as_secs_f64() * 1e3));
    show_row(&answer);

    section(5, "the training set: every label, with the same features as of its own instant");
    let out = scratch.data.join("fraud_training.parquet");
    let request = Request::Named(TRAINING_SET.into());
    let built = build(&project, &scratch.folder(), &request, &Options::default(), &out).await?;
    say(&format!(
        "{} rows, {} columns, {} in {:.1} s: {}",
        count(built.rows),
        built.columns.len(),
        bytes(built.bytes),
        built.seconds,
        out.display()
    ));

    section(6, "the promise: online and offline give the same values");
    let service = project.services.get(SERVICE).with_context(|| format!("no service {SERVICE}"))?;
    let compared = compare::sample(platform.client(), service, &out, end, SAMPLE)?;
    platform.stop()?;
    say(&format!("{} rows of the training set read online again, as of their label times", count(compared.rows)));
    say(&format!("{} values compared: integers, text and instants equal, doubles bit for bit", count(compared.values)));
    say(&format!(
        "{} older rows were asked for too: their past is no longer online, so the answer is OUTSIDE_RETENTION, not a wrong value",
        count(compared.outside)
    ));
    let statuses: Vec<String> = compared.statuses.iter().map(|(status, n)| format!("{} {status}", count(*n))).collect();
    say(&format!("how the views answered, all rows together: {}", statuses.join(", ")));
    if !compared.mismatches.is_empty() {
        compared.mismatches.iter().for_each(|mismatch| say(mismatch));
        println!(
            "\n{} values differ: that must never happen; please report it with the lines above.",
            count(compared.mismatches.len() as u64)
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("   ✓ no value differs");
    finish(&scratch, started.elapsed());
    Ok(ExitCode::SUCCESS)
}

/// A world that a laptop digests in well under two minutes, unoptimised.
fn scenario() -> Config {
    Config { users: 600, merchants: 200, transactions_per_day: 1_400.0, clicks_per_day: 2_000.0, ..Config::default() }
}

fn section(number: usize, title: &str) {
    println!("{}{number}  {title}", if number == 1 { "" } else { "\n" });
}

fn say(line: &str) {
    println!("   {line}");
}

/// The first row of an answer, three values a line.
fn show_row(answer: &serde_json::Value) {
    let row = answer.get("rows").and_then(|rows| rows.get(0)).and_then(serde_json::Value::as_object);
    let values: Vec<String> = row.into_iter().flatten().map(|(name, value)| format!("{name} {value}")).collect();
    for line in values.chunks(3) {
        let cells: Vec<String> = line.iter().map(|value| format!("{value:<38}")).collect();
        say(&format!("  {}", cells.join(" ").trim_end()));
    }
}

fn finish(scratch: &Settings, took: Duration) {
    let here = std::env::current_dir().unwrap_or_default();
    let features = scratch.features.strip_prefix(here).unwrap_or(&scratch.features).display();
    println!("\nDone in {:.0} s. What next:", took.as_secs_f64());
    println!("   tidemark explain user_spend                      what a view compiles to");
    println!("   tidemark --features {features} up --generate 20");
    println!("                                                    the same platform, to play with");
    println!("   tidemark get fraud_v1 user_id=1 card_id=1 merchant_id=1 amount=12.5");
    println!("   edit a file under features/, then `tidemark check`");
    println!("   (`tidemark` is target/debug/tidemark, or `cargo run --` in its place)");
}
