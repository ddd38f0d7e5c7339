//! `tidemark schemas`: the contracts under `schemas/`, checked against what came before them, and registered.

mod compare;
mod git;
mod project;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::{Value as Json, json};
use tidemark_engine::plan::ProjectError;
use tidemark_engine::source::SchemaRegistry;
use tidemark_engine::source::validate::FOLDER;
use tokio::runtime::Runtime;

use crate::console::{counted, message, print};
use crate::settings::Settings;
use compare::{Compared, Comparisons, GIT, REGISTRY, Subject, compare};
use git::Head;
use project::{ContractFile, Contracts};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Checks every contract: by itself, for the sources that use it, and against its earlier versions
    Validate(Registry),
    /// Registers every contract that a source uses, under <topic>-value; checks all of them first
    Register(Registry),
}

#[derive(Debug, clap::Args)]
struct Registry {
    /// The schema registry; Apicurio's ends with /apis/ccompat/v7
    #[arg(long, value_name = "URL", env = "SCHEMA_REGISTRY_URL", hide_env_values = true)]
    registry: Option<String>,
}

/// Not on the runtime's own thread: talking to the registry and to git blocks.
pub fn run(settings: &Settings, args: &Args, runtime: &Runtime) -> Result<ExitCode> {
    let (Verb::Validate(given) | Verb::Register(given)) = &args.verb;
    let url = given.registry.as_deref().filter(|url| !url.trim().is_empty());
    let registry = url.map(SchemaRegistry::new).transpose()?;
    let register = matches!(args.verb, Verb::Register(_));
    if register && registry.is_none() {
        return Err(anyhow!(
            "no schema registry to register with; expected --registry URL or SCHEMA_REGISTRY_URL; \
             hint: `infra/services start registry` starts one here"
        ));
    }
    let mut contracts = runtime.block_on(Contracts::read(settings))?;
    let head = Head::of(&settings.root);
    let mut compared = compare(&mut contracts, &head, registry.as_ref());
    let good = contracts.problems.is_empty() && compared.failure.is_none();
    if let Some(registry) = registry.as_ref().filter(|_| register && good) {
        enter(&contracts, &mut compared, registry);
    }
    if settings.json {
        let errors = &contracts.problems;
        let failure = compared.failure.as_ref().map(ToString::to_string);
        let all = json!({
            "ok": errors.is_empty() && failure.is_none(), "errors": errors, "registry_error": failure,
            "contracts": contracts.files.iter().map(|f| page(f, &contracts, &compared)).collect::<Vec<_>>(),
            "registry": registry.as_ref().map(SchemaRegistry::url),
            "git": match &head { Head::Commit { .. } => Json::Null, Head::Nothing(why) => json!(why) },
        });
        print(&all.to_string())?;
        let done = errors.is_empty() && compared.failure.is_none();
        return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for file in contracts.files.iter().filter(|f| contracts.good(f)) {
        print(&line(file, &compared, register))?;
    }
    match (compared.failure.take(), contracts.problems.is_empty()) {
        (None, true) => {
            print(&summary(&contracts, &compared, &head, registry.as_ref()))?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(failure), true) => Err(failure.into()),
        (failure, false) => {
            if let Some(failure) = failure {
                eprintln!("{}\n", message(&failure.into()));
            }
            Err(ProjectError::Definitions(contracts.problems).into())
        }
    }
}

/// Registers what isn't yet, lower versions first, so that the highest is its subject's latest.
fn enter(contracts: &Contracts, compared: &mut Compared, registry: &SchemaRegistry) {
    for file in &contracts.files {
        let (Some(contract), Some(found)) = (&file.contract, compared.contracts.get_mut(&file.name)) else {
            continue;
        };
        for subject in found.subjects.iter_mut().filter(|s| s.id.is_none()) {
            let entered = registry.register(&subject.subject, contract).and_then(|id| {
                let known = registry.find(&subject.subject, contract.json())?;
                Ok((id, known.map(|known| known.version)))
            });
            match entered {
                Ok((id, version)) => (subject.id, subject.version) = (Some(id), version),
                Err(error) => {
                    compared.failure = Some(error);
                    return;
                }
            }
        }
    }
}

/// A contract without a problem.
fn line(file: &ContractFile, compared: &Compared, register: bool) -> String {
    let subjects = compared.contracts.get(&file.name).map(|found| found.subjects.as_slice()).unwrap_or_default();
    let said = match (subjects, register) {
        ([], true) if file.sources.is_empty() => "not registered: no source uses it".to_owned(),
        ([], _) => "no source uses it".to_owned(),
        (subjects, _) => subjects.iter().map(words).collect::<Vec<_>>().join(", "),
    };
    format!("{} … ok ({said})", file.file.path)
}

fn words(subject: &Subject) -> String {
    match (subject.id, subject.version) {
        (Some(id), Some(version)) => format!("{}: id {id}, version {version}", subject.subject),
        (Some(id), None) => format!("{}: id {id}", subject.subject),
        (None, _) => subject.subject.clone(),
    }
}

/// Which files, which subjects and ids, what was compared, which registry.
fn summary(contracts: &Contracts, compared: &Compared, head: &Head, registry: Option<&SchemaRegistry>) -> String {
    let each = || compared.contracts.iter();
    let subjects = each().flat_map(|(_, found)| &found.subjects).map(|subject| match subject.id {
        Some(id) => format!("{} (id {id})", subject.subject),
        None if registry.is_some() => format!("{} (not registered)", subject.subject),
        None => subject.subject.clone(),
    });
    let kinds = [(GIT, GIT), ("the version before", FOLDER), ("the registry's latest", REGISTRY)];
    let with = kinds.into_iter().filter_map(|(kind, starts)| {
        let made = |found: &Comparisons| found.with.iter().any(|what| what.starts_with(starts));
        let names: Vec<&str> = each().filter(|(_, found)| made(found)).map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| format!("{kind}: {}", names.join(", ")))
    });
    let no_git = match head {
        Head::Nothing(why) => Some(format!("{GIT} ({why})")),
        Head::Commit { .. } => None,
    };
    // What isn't registered is said of its subject.
    let missing = each().flat_map(|(name, found)| {
        let others = found.without.iter().filter(|what| !what.starts_with(REGISTRY));
        others.map(move |what| format!("{name} with {what}"))
    });
    let without: Vec<String> = no_git.into_iter().chain(missing).collect();
    let without = (!without.is_empty()).then(|| format!("not compared: {}", without.join(", ")));
    let asked = match registry {
        Some(registry) => registry.url().to_owned(),
        None => "not asked; name it with --registry URL or SCHEMA_REGISTRY_URL".to_owned(),
    };
    [
        format!("\ncontracts  {} in {FOLDER}/ … ok", counted(contracts.files.len(), "file")),
        format!("subjects   {}", listed(subjects, ", ")),
        format!("compared   {}", listed(with.chain(without), "; ")),
        format!("registry   {asked}"),
    ]
    .join("\n")
}

fn listed(items: impl Iterator<Item = String>, between: &str) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(between) }
}

fn page(file: &ContractFile, contracts: &Contracts, compared: &Compared) -> Json {
    let found = compared.contracts.get(&file.name);
    json!({
        "file": file.file.path, "contract": file.name, "ok": contracts.good(file),
        "sources": file.sources.keys().collect::<Vec<_>>(),
        "subjects": found.map(|found| &found.subjects),
        "compared": found.map(|found| &found.with),
        "not_compared": found.map(|found| &found.without),
    })
}
