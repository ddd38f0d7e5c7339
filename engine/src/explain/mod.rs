//! What a definition compiles to, for people ([`text()`]) and for programs ([`json`]): one set of facts, shown twice.
//!
//! It stands above `plan` and `batch`, whose plans it shows. Those are the ones that run, printed by DataFusion; what
//! stands around them in words is read from the compiled kernel and pipelines, never from the SQL's text.

mod facts;
mod frames;
mod plans;
mod service;
mod source;
mod text;
mod view;

use datafusion::error::DataFusionError;

use crate::plan::Project;
use crate::sql::did_you_mean;
use facts::Facts;

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("nothing is called `{name}`{}", hint.as_ref().map(|h| format!(": {h}")).unwrap_or_default())]
    Unknown { name: String, hint: Option<String> },
    #[error("{name} has no plan: {source}")]
    Plan { name: String, source: DataFusionError },
}

/// A page about a definition.
pub fn text(project: &Project, name: &str) -> Result<String, ExplainError> {
    Ok(text::render(&facts(project, name)?))
}

/// The facts of [`text()`] as an object; durations in microseconds stand beside their words.
pub fn json(project: &Project, name: &str) -> Result<serde_json::Value, ExplainError> {
    serde_json::to_value(facts(project, name)?).map_err(|e| plan_error(name, DataFusionError::External(Box::new(e))))
}

fn facts(project: &Project, name: &str) -> Result<Facts, ExplainError> {
    let failed = |source| plan_error(name, source);
    if let Some(view) = project.views.get(name) {
        return Ok(Facts::FeatureView(Box::new(view::facts(project, view).map_err(failed)?)));
    }
    if let Some(service) = project.services.get(name) {
        return Ok(Facts::FeatureService(Box::new(service::facts(project, service).map_err(failed)?)));
    }
    if let Some(set) = project.training_sets.get(name) {
        return Ok(Facts::TrainingSet(Box::new(service::training_set(project, set).map_err(failed)?)));
    }
    if let Some(source) = project.sources.get(name) {
        return Ok(Facts::Source(Box::new(source::facts(project, source))));
    }
    if let Some(table) = project.tables.get(name) {
        return Ok(Facts::Table(Box::new(source::table(project, table))));
    }
    if let Some(view) = project.shared.get(name) {
        return Ok(Facts::View(Box::new(source::shared(view))));
    }
    let names = project
        .views
        .keys()
        .chain(project.services.keys())
        .chain(project.training_sets.keys())
        .chain(project.sources.keys())
        .chain(project.tables.keys())
        .chain(project.shared.keys());
    Err(ExplainError::Unknown { name: name.to_owned(), hint: did_you_mean(name, names.map(String::as_str)) })
}

fn plan_error(name: &str, source: DataFusionError) -> ExplainError {
    ExplainError::Plan { name: name.to_owned(), source }
}
