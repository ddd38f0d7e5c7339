//! `tidemark archive verify`: is the archive complete, and what its files' names say?

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Value as Json, json};
use tidemark_engine::catalog::Source;
use tidemark_engine::offline::{Beside, Storage, Verified, dead_letters, verify};
use tidemark_engine::plan::Project;
use tidemark_engine::source::EventLog;
use tidemark_engine::source::kafka::{KafkaConfig, topic_letters};

use crate::console::{count, counted, print};
use crate::services::Connections;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Reads every file of the archive, and says what is missing, there twice, damaged or misnamed; exit code 1 if anything is
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Only this source's archive
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    connections: Connections,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let Verb::Verify(args) = &args.verb;
    let project = settings.project().await?;
    let folder = settings.folder();
    let storage = Storage::open(folder.offline())?;
    let in_kafka = args.connections.has_kafka(settings);
    let log = match in_kafka {
        true => None,
        false => folder.open_log().unwrap_or_else(|error| {
            eprintln!("warning: the event log can't be asked: {error}\nWhat is missing in between can't be told from what was refused.");
            None
        }),
    };
    let mut whole = true;
    for source in sources(&project, args.source.as_deref())? {
        let beside = async || match in_kafka {
            true => beside_kafka(args.connections.client(settings).map_err(|e| e.to_string())?, source).await,
            false => beside_log(&storage, log.as_ref(), source).await,
        };
        let verified = verify(&storage, &source.name, beside).await?;
        whole &= verified.faults.is_empty();
        say(settings, &source.name, &verified)?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sources that have an archive of their own, or the one that is named.
pub fn sources<'a>(project: &'a Project, name: Option<&str>) -> Result<Vec<&'a Arc<Source>>> {
    let archived: BTreeMap<&str, _> =
        project.sources.values().filter(|s| s.contract.is_some()).map(|s| (s.name.as_str(), s)).collect();
    match name {
        None => Ok(archived.into_values().collect()),
        Some(name) => match archived.get(name) {
            Some(source) => Ok(vec![*source]),
            None => {
                let known: Vec<&str> = archived.into_keys().collect();
                bail!("no source `{name}` with an archive of its own; expected one of {}", known.join(", "))
            }
        },
    }
}

async fn beside_log(storage: &Storage, log: Option<&Arc<EventLog>>, source: &Source) -> Result<Beside, String> {
    let mut beside = Beside::default();
    for letter in dead_letters(storage, &source.name).await.map_err(|e| e.to_string())? {
        beside.refused.entry(letter.partition).or_default().insert(letter.offset);
    }
    if let Some(log) = log {
        let mut known = BTreeMap::new();
        for partition in log.partitions(&source.name).map_err(|e| e.to_string())? {
            let begin = log.start_offset(&source.name, partition).map_err(|e| e.to_string())?;
            let end = log.end_offset(&source.name, partition).map_err(|e| e.to_string())?;
            known.insert(partition, (begin, end));
        }
        beside.log = Some(known);
    }
    Ok(beside)
}

async fn beside_kafka(client: KafkaConfig, source: &Source) -> Result<Beside, String> {
    let (client, topic) = (client.with(&source.options.kafka), source.dead_letter_topic());
    let letters =
        tokio::task::spawn_blocking(move || topic_letters(&client, &topic)).await.map_err(|e| e.to_string())?;
    let mut beside = Beside::default();
    for letter in letters.map_err(|e| e.to_string())?.into_iter().filter(|letter| letter.source == source.name) {
        beside.refused.entry(letter.partition).or_default().insert(letter.offset);
    }
    Ok(beside)
}

fn say(settings: &Settings, source: &str, verified: &Verified) -> Result<()> {
    if settings.json {
        let mut line = json!({ "source": source });
        if let (Some(line), Ok(Json::Object(found))) = (line.as_object_mut(), serde_json::to_value(verified)) {
            line.extend(found);
        }
        return print(&line.to_string());
    }
    for found in &verified.partitions {
        let offsets = found.offsets.map_or("none".to_owned(), |(first, last)| format!("{first} to {last}"));
        let mut line = format!(
            "{source}, partition {}: {}, {} events, offsets {offsets}, {} refused",
            found.partition,
            counted(found.files, "file"),
            count(found.events),
            count(found.refused),
        );
        if found.removed > 0 {
            line += &format!(", {} removed by retention", count(found.removed));
        }
        if found.holes > 0 {
            line += &format!(", {} without a dead letter: refused, or holes of Kafka's", count(found.holes));
        }
        print(&line)?;
    }
    if let Some(before) = &verified.removed_before {
        let still = match verified.below {
            0 => String::new(),
            files => {
                format!("; {} of them still there, a later `tidemark compact` removes them", counted(files, "file"))
            }
        };
        print(&format!("{source}: retention removed events before {before}{still}"))?;
    }
    if verified.covered > 0 {
        let covered = counted(verified.covered, "file");
        print(&format!("{source}: {covered} more, compacted since; a later `tidemark compact` removes them"))?;
    }
    for fault in &verified.faults {
        let offsets = match fault.offsets {
            Some((first, last)) if first == last => format!("offset {first}: "),
            Some((first, last)) => format!("offsets {first} to {last}: "),
            None => String::new(),
        };
        print(&format!("{}: {offsets}{}", fault.path, fault.cause))?;
    }
    let outcome = match verified.faults.len() {
        0 => "complete".to_owned(),
        faults => counted(faults, "fault"),
    };
    print(&format!("{source}: {outcome}"))
}
