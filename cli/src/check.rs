//! `tidemark check`: every definition read and compiled; all errors of all files in one go.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tidemark_engine::plan::{Project, ProjectError};
use tidemark_engine::sql::Diagnostics;

use crate::console::{counted, print};
use crate::settings::Settings;

pub async fn run(settings: &Settings) -> Result<ExitCode> {
    match Project::load(&settings.root, &settings.features).await {
        Ok(project) if settings.json => {
            print(
                &json!({"ok": true, "errors": [], "warnings": &project.warnings, "definitions": names(&project)})
                    .to_string(),
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(project) => {
            warn(&project.warnings);
            print(&format!("{} … ok", summary(&project)))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(ProjectError::Definitions(errors)) if settings.json => {
            print(&json!({"ok": false, "errors": errors, "warnings": []}).to_string())?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints what is right, but can't run yet or won't for ever.
pub fn warn(warnings: &Diagnostics) {
    for warning in warnings.sorted() {
        let text = warning.to_string();
        eprintln!("warning{}\n", text.strip_prefix("error").unwrap_or(&text));
    }
}

/// Logs what is right, but can't run yet or won't for ever.
pub fn log(warnings: &Diagnostics) {
    for warning in warnings.sorted() {
        tracing::warn!("{}:{}: {}", warning.file.path, warning.span.line, warning.message);
    }
}

fn summary(project: &Project) -> String {
    let kinds = [
        (project.sources.len(), "source"),
        (project.tables.len(), "table"),
        (project.views.len(), "feature view"),
        (project.services.len(), "service"),
        (project.training_sets.len(), "training set"),
    ];
    let said: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| counted(*n, noun)).collect();
    if said.is_empty() { "no definitions".to_owned() } else { said.join(", ") }
}

fn names(project: &Project) -> serde_json::Value {
    json!({
        "sources": project.sources.keys().collect::<Vec<_>>(),
        "tables": project.tables.keys().collect::<Vec<_>>(),
        "views": project.views.keys().collect::<Vec<_>>(),
        "services": project.services.keys().collect::<Vec<_>>(),
        "training_sets": project.training_sets.keys().collect::<Vec<_>>(),
    })
}
