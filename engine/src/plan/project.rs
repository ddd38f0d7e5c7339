//! A project: every definition under its `features/` folder, compiled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::logical_expr::LogicalPlan;

use super::compiler::Compiler;
use super::pipeline::Kind;
use super::service::{FeatureService, REQUEST};
use super::view::FeatureView;
use crate::catalog::{Histories, Source, Table};
use crate::sql::{self, Diagnostics};

/// Every definition, compiled and checked.
#[derive(Debug, Default)]
pub struct Project {
    /// The project folder: relative paths in definitions start here.
    pub root: PathBuf,
    /// The folder of definitions.
    pub features: PathBuf,
    pub sources: BTreeMap<String, Arc<Source>>,
    pub tables: BTreeMap<String, Arc<Table>>,
    pub views: BTreeMap<String, Arc<FeatureView>>,
    pub services: BTreeMap<String, Arc<FeatureService>>,
    pub training_sets: BTreeMap<String, Arc<TrainingSet>>,
    /// `CREATE VIEW`s: inlined where they are named.
    pub shared: BTreeMap<String, Arc<SharedView>>,
    /// Definitions that are right, but can't run yet (a dimension table whose files are missing), or not beside each other for ever (a
    /// retention, and a view that needs all events).
    pub warnings: Diagnostics,
}

/// A spine and the service to evaluate over it.
#[derive(Debug)]
pub struct TrainingSet {
    pub name: String,
    pub service: Arc<FeatureService>,
    /// The spine's column with the instant to evaluate at.
    pub timestamp: String,
    /// The spine's rows: reads tables only.
    pub spine: LogicalPlan,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub sql: String,
}

/// A `CREATE VIEW`: a row-level query that others are built on.
#[derive(Debug)]
pub struct SharedView {
    pub name: String,
    pub plan: LogicalPlan,
    pub description: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(transparent)]
    Load(#[from] sql::LoadError),
    #[error("{0}")]
    Definitions(Diagnostics),
}

impl Project {
    /// Reads and compiles all definitions; every error of every file comes in one go. Touches no service: a view over a source with a
    /// history has no fingerprint then, and can't run.
    pub async fn load(root: &Path, features: &Path) -> Result<Self, ProjectError> {
        Self::compile(root, features, Histories::Unknown).await
    }

    /// As [`Project::load`], and looks up the files of sources' histories.
    pub async fn open(root: &Path, features: &Path) -> Result<Self, ProjectError> {
        Self::compile(root, features, Histories::Opened).await
    }

    /// As [`Project::load`], with what is known of sources' histories.
    pub async fn compile(root: &Path, features: &Path, histories: Histories) -> Result<Self, ProjectError> {
        let (definitions, diagnostics) = sql::load(root, features)?;
        let mut compiler = Compiler::new(root, diagnostics, histories);
        compiler.compile(&definitions).await;
        if !compiler.diagnostics.is_empty() {
            return Err(ProjectError::Definitions(compiler.diagnostics));
        }
        Ok(Self { features: features.to_owned(), ..compiler.project })
    }

    /// Views over a source.
    pub fn views_of(&self, source: &str) -> Vec<Arc<FeatureView>> {
        self.views.values().filter(|v| v.source.name == source).cloned().collect()
    }

    /// The columns that a source's archive is ordered by: its time, then the key of a view that has one among its columns.
    pub fn clustering(&self, source: &Source) -> Vec<String> {
        let mut columns = vec![source.timestamp.clone()];
        let has = |key: &FieldRef| source.schema.column_with_name(key.name()).is_some();
        let views = self.views.values().filter(|view| view.source.name == source.name);
        let keys = views.map(|view| &view.keys).find(|keys| keys.iter().all(has));
        columns.extend(keys.into_iter().flatten().map(|key| key.name().clone()));
        columns
    }

    /// What a relation is. The planner has refused names that are nothing.
    pub fn kind(&self, name: &str) -> Kind {
        if name == REQUEST {
            return Kind::Request;
        }
        match self.views.get(name) {
            Some(view) => Kind::View(view.clone()),
            None if self.sources.contains_key(name) => Kind::Source,
            None => Kind::Table(self.tables.get(name).and_then(|table| table.history.clone())),
        }
    }
}
