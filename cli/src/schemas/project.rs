//! What a project says of its contracts: their files, the sources that use them, and what is wrong with either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tidemark_engine::plan::{Project, ProjectError};
use tidemark_engine::source::Contract;
use tidemark_engine::source::validate::{self, FOLDER};
use tidemark_engine::sql::{self, Connector, Definition, Diagnostic, Diagnostics, SourceFile, Span};

use crate::settings::Settings;

/// The contracts of a project.
#[derive(Debug)]
pub struct Contracts {
    /// In the order of their names, versions as numbers.
    pub files: Vec<ContractFile>,
    /// Of the files, and of the definitions that use them.
    pub problems: Diagnostics,
}

/// One `*.avsc` file.
#[derive(Debug)]
pub struct ContractFile {
    pub file: Arc<SourceFile>,
    pub name: String,
    /// `None` if it is none; why is then a problem.
    pub contract: Option<Contract>,
    /// Sources that name it, and the topic of each.
    pub sources: BTreeMap<String, String>,
}

impl ContractFile {
    /// The registry's names for what the contract's sources read, in its default naming.
    pub fn subjects(&self) -> BTreeSet<String> {
        self.sources.values().map(|topic| format!("{topic}-value")).collect()
    }
}

impl Contracts {
    /// Reads contracts and definitions, and checks both as far as no earlier version is needed.
    pub async fn read(settings: &Settings) -> Result<Self> {
        let mut problems = Diagnostics::new();
        let mut files = vec![];
        let folder = settings.root.join(FOLDER);
        for path in find(&folder).with_context(|| format!("the folder {} can't be read", folder.display()))? {
            let shown = path.strip_prefix(&settings.root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let bytes = fs::read(&path).with_context(|| format!("{shown} can't be read"))?;
            let file = SourceFile::new(shown, String::from_utf8_lossy(&bytes));
            let (contract, found) = if std::str::from_utf8(&bytes).is_ok() {
                validate::validate(&file)
            } else {
                let problem = Diagnostic::new(&file, Span::new(1, 1, 1), "the file isn't UTF-8 text");
                (None, vec![problem.expected("UTF-8").hint("save it as UTF-8 in your editor, or with iconv")])
            };
            problems.extend(found);
            let name = validate::contract_name(&file.path).to_owned();
            files.push(ContractFile { file, name, contract, sources: BTreeMap::new() });
        }
        files.sort_by(|a, b| order(&a.name).cmp(&order(&b.name)));
        let named: Vec<_> = files.iter().filter_map(|f| Some((f.file.clone(), f.contract.clone()?))).collect();
        problems.extend(validate::check_names(&named));

        let (definitions, _) = sql::load(&settings.root, &settings.features)?;
        for definition in &definitions {
            if let Definition::Source(source) = definition
                && let Some(name) = &source.options.schema
                && let Some(used) = files.iter_mut().find(|f| f.name == name.value)
            {
                used.sources.insert(source.name.value.clone(), source.topic().to_owned());
            }
        }
        match Project::load(&settings.root, &settings.features).await {
            Ok(_) => {}
            Err(ProjectError::Definitions(errors)) => {
                let broken: Vec<&ContractFile> = files.iter().filter(|f| f.contract.is_none()).collect();
                problems.extend(errors.into_iter().filter(|error| concerns(error, &definitions, &broken)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self { files, problems })
    }

    /// Whether a file is without a problem, and so are the sources that use it.
    pub fn good(&self, file: &ContractFile) -> bool {
        let at_fault = |p: &&Diagnostic| p.file.path == file.file.path;
        !self.problems.sorted().iter().any(at_fault) && !file.sources.keys().any(|s| self.problems.concern(s))
    }
}

/// Whether an error in a definition says something about contracts: it is in a source or in a view over events, whose
/// columns are a contract's. What a file of a broken contract leads to is said at that file.
fn concerns(error: &Diagnostic, definitions: &[Definition], broken: &[&ContractFile]) -> bool {
    let definition = error.definition.as_ref().and_then(|name| definitions.iter().find(|d| d.name().value == *name));
    match definition {
        Some(Definition::Source(source)) => {
            let echo = source
                .options
                .schema
                .as_ref()
                .is_some_and(|name| broken.iter().any(|f| f.name == name.value) && error.span == name.span);
            source.options.connector == Connector::Kafka && !echo
        }
        Some(Definition::View(_) | Definition::FeatureView(_)) | None => true,
        Some(Definition::Table(_) | Definition::FeatureService(_) | Definition::TrainingSet(_)) => false,
    }
}

/// Versions of one contract follow each other.
fn order(name: &str) -> (&str, u32) {
    validate::version(name).unwrap_or((name, 0))
}

/// Contract files in a folder and below; none if there is no such folder.
fn find(folder: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(find(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "avsc") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
