//! A spine and a service into a training set.

use super::Compiler;
use crate::catalog::sql_type;
use crate::plan::fit::may_fit;
use crate::plan::locate::{Located, statement_text};
use crate::plan::problem::Problem;
use crate::plan::project::TrainingSet;
use crate::plan::{asof, timestamp_type};
use crate::sql::{Diagnostic, TrainingSetDef, did_you_mean};

impl Compiler {
    /// None if something that it names is broken.
    pub(super) fn training_set(&mut self, d: &TrainingSetDef) -> Result<Option<TrainingSet>, Vec<Diagnostic>> {
        let asked = &d.options.service;
        if self.is_broken(&asked.value) || self.rests_on_broken(&d.name.value, &d.query) {
            self.broken.insert(d.name.value.clone());
            return Ok(None);
        }
        let located = Located { file: &d.file, query: &d.query, query_span: d.query_span };
        let service = self.project.services.get(&asked.value).cloned().ok_or_else(|| {
            let names = || self.project.services.keys().map(String::as_str);
            vec![
                Diagnostic::new(&d.file, asked.span, format!("unknown feature service `{}`", asked.value))
                    .expected(format!("one of {}", names().collect::<Vec<_>>().join(", ")))
                    .maybe_hint(did_you_mean(&asked.value, names())),
            ]
        });
        let (service, spine) = match (service, located.plan(&self.constants).map_err(Vec::from)) {
            (Ok(service), Ok(spine)) => (service, spine),
            (service, spine) => return Err([service.err(), spine.err()].into_iter().flatten().flatten().collect()),
        };
        if asof::stands_in(&spine) {
            let problem = Problem::new("a spine has no instant yet: an ASOF JOIN has no meaning in it");
            let problem = problem.hint(format!("join the table in service `{}`", service.name)).at_name("asof");
            return Err(located.diagnostics(vec![problem]));
        }
        let schema = spine.schema();
        let names = || schema.fields().iter().map(|f| f.name().as_str());
        let mut problems = vec![];
        let timestamp = &d.options.timestamp;
        match schema.fields().iter().find(|f| *f.name() == timestamp.value) {
            None => problems.push(
                Diagnostic::new(&d.file, timestamp.span, format!("the spine has no column `{}`", timestamp.value))
                    .expected(format!("one of {}", names().collect::<Vec<_>>().join(", ")))
                    .maybe_hint(did_you_mean(&timestamp.value, names())),
            ),
            Some(field) if !may_fit(field.data_type(), &timestamp_type()) => problems.push(
                Diagnostic::new(
                    &d.file,
                    timestamp.span,
                    format!("column `{}` is {}", timestamp.value, sql_type(field.data_type())),
                )
                .expected("a timestamp, a date or RFC 3339 text"),
            ),
            Some(_) => {}
        }
        for wanted in service.signature.fields() {
            match schema.fields().iter().find(|f| f.name() == wanted.name()) {
                None => problems.push(
                    Diagnostic::new(
                        &d.file,
                        d.query_span,
                        format!(
                            "the spine has no column `{}`, which service `{}` asks for",
                            wanted.name(),
                            service.name
                        ),
                    )
                    .expected(format!("a column `{}` of type {}", wanted.name(), sql_type(wanted.data_type())))
                    .maybe_hint(did_you_mean(wanted.name(), names())),
                ),
                Some(found) if !may_fit(found.data_type(), wanted.data_type()) => problems.push(
                    Diagnostic::new(
                        &d.file,
                        d.query_span,
                        format!("column `{}` of the spine is {}", wanted.name(), sql_type(found.data_type())),
                    )
                    .expected(format!(
                        "{}, as service `{}` asks for",
                        sql_type(wanted.data_type()),
                        service.name
                    )),
                ),
                Some(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Some(TrainingSet {
            name: d.name.value.clone(),
            service,
            timestamp: timestamp.value.clone(),
            spine,
            description: d.options.description.clone().or_else(|| d.doc.clone()),
            owner: d.options.owner.clone(),
            sql: statement_text(&d.file, d.span),
        }))
    }
}
