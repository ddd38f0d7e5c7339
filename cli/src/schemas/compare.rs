//! Each contract against its earlier versions: in git, in the file of the version before, in the registry.

use std::collections::BTreeMap;

use serde::Serialize;
use tidemark_engine::source::validate::{check_change, version};
use tidemark_engine::source::{Contract, RegistryError, SchemaRegistry};
use tidemark_engine::sql::{Diagnostic, Span};

use super::git::Head;
use super::project::{ContractFile, Contracts};

/// What was compared, by contract.
#[derive(Debug, Default)]
pub struct Compared {
    pub contracts: BTreeMap<String, Comparisons>,
    /// Why the registry gave no answer. Nothing is asked of it after that.
    pub failure: Option<RegistryError>,
}

#[derive(Debug, Default, Serialize)]
pub struct Comparisons {
    /// Earlier versions that it was compared with.
    pub with: Vec<String>,
    /// Comparisons that could not be made, and why.
    pub without: Vec<String>,
    pub subjects: Vec<Subject>,
}

/// A subject of the registry, and this contract in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    pub subject: String,
    /// `None` if it isn't registered there, or the registry wasn't asked.
    pub id: Option<u32>,
    pub version: Option<u32>,
}

pub const GIT: &str = "git HEAD";
pub const REGISTRY: &str = "registry";

/// Compares every contract that is one; what is wrong is added to the contracts' problems.
pub fn compare(contracts: &mut Contracts, head: &Head, registry: Option<&SchemaRegistry>) -> Compared {
    let mut compared = Compared::default();
    let mut problems: Vec<Diagnostic> = vec![];
    for file in &contracts.files {
        let Some(contract) = &file.contract else {
            continue;
        };
        let mut found = Comparisons::default();
        if matches!(head, Head::Commit { .. }) {
            match head.text(&file.file.path) {
                Some(text) => against(file, contract, &text, GIT, &mut found, &mut problems),
                None => found.without.push(format!("{GIT} (the file is new)")),
            }
        }
        if let Some(earlier) = version_before(file, &contracts.files) {
            let both_read = !file.sources.is_empty() && !earlier.sources.is_empty();
            if both_read && file.subjects().is_disjoint(&earlier.subjects()) {
                found.without.push(format!("{} (another topic)", earlier.file.path));
            } else {
                against(file, contract, &earlier.file.text, &earlier.file.path, &mut found, &mut problems);
            }
        }
        for subject in file.subjects() {
            let unknown = Subject { subject: subject.clone(), id: None, version: None };
            let asked = match registry.filter(|_| compared.failure.is_none()) {
                Some(registry) => in_registry(file, contract, registry, &subject, &mut found, &mut problems),
                None => Ok(unknown.clone()),
            };
            found.subjects.push(asked.unwrap_or_else(|error| {
                compared.failure = Some(error);
                unknown
            }));
        }
        compared.contracts.insert(file.name.clone(), found);
    }
    // The same break, seen against several earlier versions, is one problem.
    let mut kept: Vec<Diagnostic> = vec![];
    for problem in problems {
        let what = |p: &Diagnostic| p.message.rsplit_once(" (against ").map(|(what, _)| what.to_owned());
        if !kept.iter().any(|k| k.file.path == problem.file.path && k.span == problem.span && what(k) == what(&problem))
        {
            kept.push(problem);
        }
    }
    contracts.problems.extend(kept);
    compared
}

fn in_registry(
    file: &ContractFile,
    contract: &Contract,
    registry: &SchemaRegistry,
    subject: &str,
    found: &mut Comparisons,
    problems: &mut Vec<Diagnostic>,
) -> Result<Subject, RegistryError> {
    let before = problems.len();
    match registry.latest(subject)? {
        Some(latest) => {
            let what = format!("{REGISTRY} {subject} version {}", latest.version);
            against(file, contract, &latest.json, &what, found, problems);
        }
        None => found.without.push(format!("{REGISTRY} {subject} (nothing is registered)")),
    }
    let known = registry.find(subject, contract.json())?;
    // The registry's own rules may be stricter; what it has, it has taken.
    if known.is_none()
        && problems.len() == before
        && let Err(said) = registry.compatible(subject, contract.json())?
    {
        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
        problems.push(
            Diagnostic::new(
                &file.file,
                Span::new(1, 1, 1),
                format!("the registry would refuse it for {subject}{said}"),
            )
            .expected("a schema that the subject's rules of compatibility let through")
            .hint(format!("the rules are the registry's: see its /config/{subject}")),
        );
    }
    let (id, version) = known.map(|known| (known.id, known.version)).unzip();
    Ok(Subject { subject: subject.into(), id, version })
}

fn against(
    file: &ContractFile,
    contract: &Contract,
    earlier: &str,
    what: &str,
    found: &mut Comparisons,
    problems: &mut Vec<Diagnostic>,
) {
    match check_change(&file.file, contract, earlier, what) {
        Ok(breaks) => {
            found.with.push(what.to_owned());
            problems.extend(breaks);
        }
        Err(_) => found.without.push(format!("{what} (it holds no schema)")),
    }
}

/// The file with the next lower version.
fn version_before<'a>(file: &ContractFile, files: &'a [ContractFile]) -> Option<&'a ContractFile> {
    let (name, number) = version(&file.name)?;
    let earlier = |f: &&ContractFile| version(&f.name).is_some_and(|(of, v)| of == name && v < number);
    files.iter().filter(earlier).max_by_key(|f| version(&f.name).map(|(_, v)| v))
}
