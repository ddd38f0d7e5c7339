//! `tidemark dead-letters list|replay`: events that could not be taken.

use std::process::ExitCode;

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tidemark_engine::catalog::Source;
use tidemark_engine::offline::{Storage, dead_letters};
use tidemark_engine::plan::Project;
use tidemark_engine::source::kafka::{KafkaConfig, Replayed, TopicLetter, replay, topic_letters};

use crate::console::{count, print};
use crate::services::Connections;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Shows them: where each was, and what is wrong with it
    List(Which),
    /// Sends them to their topic again, once what was wrong is mended; what was sent is no longer listed
    Replay(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The source whose events they are
    source: String,
    /// Only those whose reason contains this
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    connections: Connections,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.project().await?;
    match &args.verb {
        Verb::List(which) => list(settings, &project, which).await,
        Verb::Replay(which) => send_again(settings, &project, which).await,
    }
}

async fn list(settings: &Settings, project: &Project, which: &Which) -> Result<ExitCode> {
    let letters = letters(settings, source(project, &which.source)?, which).await?;
    for letter in &letters {
        let TopicLetter { partition, offset, time, reason, payload, .. } = letter;
        if settings.json {
            let payload = BASE64.encode(payload);
            let line = json!({"source": which.source, "partition": partition, "offset": offset, "time": time, "reason": reason, "payload": payload});
            print(&line.to_string())?;
        } else {
            print(&format!("{partition}/{offset}  {time}  {} bytes  {reason}", payload.len()))?;
        }
    }
    if !settings.json {
        eprintln!("{} dead letters of {}", count(letters.len() as u64), which.source);
    }
    Ok(ExitCode::SUCCESS)
}

async fn send_again(settings: &Settings, project: &Project, which: &Which) -> Result<ExitCode> {
    let source = source(project, &which.source)?;
    if !reads_topic(settings, source, which) {
        bail!("only dead letters in a topic are sent again; hint: push the mended events to the platform");
    }
    let letters = letters(settings, source, which).await?;
    let client = client(settings, source, which)?;
    let replayed = replay(&client, source.topic(), &source.dead_letter_topic(), letters).await?;
    let Replayed { sent, kept } = replayed;
    if settings.json {
        print(&json!({"sent": sent, "kept": kept}).to_string())?;
    } else {
        print(&format!("{} sent to topic {}", count(sent), source.topic()))?;
        if kept > 0 {
            print(&format!(
                "{} kept: they were taken, and failed in a view (mend the view), or are too long for a letter",
                count(kept)
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn letters(settings: &Settings, source: &Source, which: &Which) -> Result<Vec<TopicLetter>> {
    let mut letters = if reads_topic(settings, source, which) {
        let (client, topic) = (client(settings, source, which)?, source.dead_letter_topic());
        tokio::task::spawn_blocking(move || topic_letters(&client, &topic)).await??
    } else {
        let storage = Storage::open(settings.folder().offline())?;
        let letters = dead_letters(&storage, &source.name).await?.into_iter().map(|letter| TopicLetter {
            payload: letter.bytes().unwrap_or_default().into(),
            source: source.name.clone(),
            topic: String::new(),
            partition: letter.partition,
            offset: letter.offset,
            time: letter.time,
            reason: letter.reason,
            truncated: false,
        });
        letters.collect()
    };
    letters.retain(|letter| letter.source == source.name);
    if let Some(part) = &which.reason {
        letters.retain(|letter| letter.reason.contains(part));
    }
    Ok(letters)
}

fn reads_topic(settings: &Settings, source: &Source, which: &Which) -> bool {
    source.contract.is_some() && which.connections.has_kafka(settings)
}

fn client(settings: &Settings, source: &Source, which: &Which) -> Result<KafkaConfig> {
    Ok(which.connections.client(settings)?.with(&source.options.kafka))
}

fn source<'a>(project: &'a Project, name: &str) -> Result<&'a Source> {
    match project.sources.get(name) {
        Some(source) => Ok(source),
        None => {
            let known: Vec<&str> = project.sources.keys().map(String::as_str).collect();
            bail!("no source `{name}`; expected one of {}", known.join(", "))
        }
    }
}
