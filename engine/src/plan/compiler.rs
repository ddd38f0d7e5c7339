//! Definitions into a project, one after the other: what names a broken one is not blamed for it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{Query, visit_relations};

use super::content::load_tables;
use super::fingerprint::fingerprint;
use super::locate::{Failure, Located, statement_text};
use super::planner::{Planner, Relation};
use super::problem::Problem;
use super::service::{self, FeatureService, REQUEST};
use super::view::{self, FeatureView, Surroundings, ViewOptions};
use crate::catalog::{Histories, History, Source, Table, table_columns};
use crate::source::files;
use crate::sql::{Definition, FeatureServiceDef, FeatureViewDef, FileFormat, SourceDef, TableDef, ViewDef};
use crate::sql::{Diagnostic, Diagnostics, SourceFile, Span};

use super::project::{Project, SharedView};

mod training_set;

/// How long past its longest frame a view keeps events unless its definition says otherwise: an hour.
const DEFAULT_LATENESS: i64 = 3_600_000_000;

pub(super) struct Compiler {
    pub project: Project,
    pub diagnostics: Diagnostics,
    /// Definitions with an error: what names them is not blamed for it.
    broken: BTreeSet<String>,
    /// Sources, tables and shared views: what a feature view may read.
    rows: Planner,
    /// Tables, and shared views over tables alone: what has no event time.
    constants: Planner,
    histories: Histories,
}

impl Compiler {
    pub fn new(root: &Path, diagnostics: Diagnostics, histories: Histories) -> Self {
        Self {
            project: Project { root: root.to_owned(), ..Project::default() },
            broken: BTreeSet::new(),
            diagnostics,
            rows: Planner::default(),
            constants: Planner::default(),
            histories,
        }
    }

    pub async fn compile(&mut self, definitions: &[Definition]) {
        for definition in definitions {
            match definition {
                Definition::Source(d) => {
                    let resolved = self.source(d).await.map(Arc::new);
                    if let Some(source) = self.note(&d.name.value, resolved) {
                        self.rows.insert(&source.name, Relation::Rows(source.schema.clone()));
                        self.project.sources.insert(source.name.clone(), source);
                    }
                }
                Definition::Table(d) => {
                    let resolved = self.table(d).await;
                    if let Some(table) = self.note(&d.name.value, resolved) {
                        self.rows.insert(&table.name, Relation::Rows(table.schema.clone()));
                        self.constants.insert(&table.name, Relation::Rows(table.schema.clone()));
                        self.project.tables.insert(table.name.clone(), Arc::new(table));
                    }
                }
                Definition::FeatureView(d) => {
                    self.rows.refuse(&d.name.value, "is a feature view: it can be joined in a feature service only");
                    self.constants
                        .refuse(&d.name.value, "is a feature view: it can be joined in a feature service only");
                }
                Definition::FeatureService(d) => {
                    self.rows.refuse(&d.name.value, "is a feature service: nothing reads FROM it");
                    self.constants.refuse(&d.name.value, "is a feature service: nothing reads FROM it");
                }
                Definition::View(_) | Definition::TrainingSet(_) => {}
            }
        }
        for name in self.project.sources.keys() {
            self.constants.refuse(name, "is a stream of events: make a feature view of it, and join that in a service");
        }
        self.shared_views(definitions.iter().filter_map(|d| match d {
            Definition::View(d) => Some(d),
            _ => None,
        }));
        for definition in definitions {
            if let Definition::FeatureView(d) = definition {
                let compiled = self.view(d).await;
                if let Some(Some(view)) = self.note(&d.name.value, compiled) {
                    self.project.views.insert(view.name.clone(), Arc::new(view));
                }
            }
        }
        for definition in definitions {
            if let Definition::FeatureService(d) = definition {
                let compiled = self.service(d).await;
                if let Some(Some(service)) = self.note(&d.name.value, compiled) {
                    self.project.services.insert(service.name.clone(), Arc::new(service));
                }
            }
        }
        for definition in definitions {
            if let Definition::TrainingSet(d) = definition {
                let compiled = self.training_set(d);
                if let Some(Some(set)) = self.note(&d.name.value, compiled) {
                    self.project.training_sets.insert(set.name.clone(), Arc::new(set));
                }
            }
        }
    }

    /// Keeps what compiled; of what didn't, the errors and the name.
    fn note<T>(&mut self, name: &str, compiled: Result<T, Vec<Diagnostic>>) -> Option<T> {
        compiled
            .map_err(|diagnostics| {
                self.broken.insert(name.to_owned());
                self.diagnostics.extend(diagnostics.into_iter().map(|d| d.definition(name)));
            })
            .ok()
    }

    /// Whether a query names something whose own error is already reported. It is then broken itself, silently.
    fn rests_on_broken(&mut self, name: &str, query: &Query) -> bool {
        let broken = relations(query).iter().any(|r| self.is_broken(r));
        if broken {
            self.broken.insert(name.to_owned());
        }
        broken
    }

    fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name) || self.diagnostics.concern(name)
    }

    async fn source(&self, d: &SourceDef) -> Result<Source, Vec<Diagnostic>> {
        let mut source = Source::resolve(&self.project.root, d)?;
        source.find_history(&self.project.root, &d.file, &self.histories).await.map_err(|e| vec![e])?;
        Ok(source)
    }

    async fn table(&self, d: &TableDef) -> Result<Table, Vec<Diagnostic>> {
        let location = crate::catalog::resolve_path(&self.project.root, &d.location.value);
        let options = d.options.iter().map(|option| (option.key.value.clone(), option.value.clone())).collect();
        let schema = if d.columns.is_empty() {
            // Options of text say what its columns are.
            let by_options = !d.options.is_empty() && matches!(d.file_type, FileFormat::Csv | FileFormat::Ndjson);
            let inferred = match by_options {
                true => table_columns(&location, d.file_type, &options).await.map_err(|e| Problem::from(e).message),
                false => files::infer(&d.name.value, &location, Some(crate::catalog::read_as(d.file_type)))
                    .map_err(|e| e.to_string().replacen("source", "table", 1)),
            };
            let hint = "state the columns, CREATE EXTERNAL TABLE name (column TYPE, …), if the files come later";
            let inferred =
                inferred.map_err(|e| vec![crate::catalog::diagnostic(&d.file, d.location.span, &e).hint(hint)])?;
            Arc::new(inferred)
        } else {
            let mut fields = vec![];
            let mut problems = vec![];
            for column in &d.columns {
                match self.rows.data_type(&column.data_type) {
                    Ok(t) => fields.push(Field::new(&column.name.value, t, column.nullable)),
                    Err(e) => problems.push(Diagnostic::new(&d.file, column.name.span, Problem::from(e).message)),
                }
            }
            if !problems.is_empty() {
                return Err(problems);
            }
            Arc::new(Schema::new(fields))
        };
        let history = History::resolve(d, &schema)?;
        let (name, format, description) = (d.name.value.clone(), d.file_type, d.doc.clone());
        Ok(Table { name, schema, format, options, location, history, description })
    }

    fn shared_views<'a>(&mut self, views: impl Iterator<Item = &'a ViewDef>) {
        let mut pending: Vec<&ViewDef> = views.collect();
        while !pending.is_empty() {
            let names: BTreeSet<String> = pending.iter().map(|d| d.name.value.clone()).collect();
            let (ready, waiting): (Vec<&ViewDef>, Vec<&ViewDef>) =
                pending.iter().copied().partition(|d| relations(&d.query).iter().all(|r| !names.contains(r)));
            if ready.is_empty() {
                for d in &waiting {
                    self.broken.insert(d.name.value.clone());
                    self.diagnostics.push(
                        Diagnostic::new(&d.file, d.name.span, format!("view `{}` reads itself", d.name.value))
                            .expected("views that form no circle"),
                    );
                }
            }
            for d in &ready {
                if self.rests_on_broken(&d.name.value, &d.query) {
                    continue;
                }
                let located = Located { file: &d.file, query: &d.query, query_span: d.query_span };
                let planned = located.plan(&self.rows).map_err(Vec::from);
                if let Some(plan) = self.note(&d.name.value, planned) {
                    let constant = super::pipeline::scans(&plan).iter().all(|r| self.project.tables.contains_key(r));
                    if constant {
                        self.constants.insert(&d.name.value, Relation::Inlined(plan.clone()));
                    } else {
                        self.constants.refuse(
                            &d.name.value,
                            "reads a stream of events: make a feature view of it, and join that in a service",
                        );
                    }
                    let shared =
                        SharedView { name: d.name.value.clone(), plan: plan.clone(), description: d.doc.clone() };
                    self.project.shared.insert(d.name.value.clone(), Arc::new(shared));
                    self.rows.insert(&d.name.value, Relation::Inlined(plan));
                }
            }
            pending = if ready.is_empty() { vec![] } else { waiting };
        }
    }

    async fn view(&mut self, d: &FeatureViewDef) -> Result<Option<FeatureView>, Vec<Diagnostic>> {
        if self.rests_on_broken(&d.name.value, &d.query) {
            return Ok(None);
        }
        let located = Located { file: &d.file, query: &d.query, query_span: d.query_span };
        let planned = located.plan(&self.rows);
        let options = ViewOptions {
            description: d.options.description.clone().or_else(|| d.doc.clone()),
            owner: d.options.owner.clone(),
            tile: d.options.tile.as_ref().map(|t| t.value),
            lateness: d.options.lateness.as_ref().map_or(DEFAULT_LATENESS, |l| l.value),
        };
        let project = &self.project;
        let around = Surroundings {
            name: &d.name.value,
            kind: &|name| project.kind(name),
            source: &|name| project.sources.get(name).cloned(),
            options,
            docs: d.column_docs.clone(),
            sql: statement_text(&d.file, d.span),
            star: located.has_star(),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(Failure { mut diagnostics, rest }) => {
                if let Some((plan, columns)) = rest
                    && let Err(problems) = view::compile(&plan, around)
                {
                    // What is wrong with the whole may be wrong because columns are missing from it.
                    let of_column =
                        |p: Problem| p.column.and_then(|i| columns.get(i).copied()).map(|i| p.at_column(Some(i)));
                    diagnostics.extend(located.diagnostics(problems.into_iter().filter_map(of_column).collect()));
                }
                return Err(diagnostics);
            }
        };
        let mut view = view::compile(&plan, around).map_err(|p| located.diagnostics(p))?;
        let loaded = load_tables(&mut view.row_stage, &project.tables).await;
        let loaded = loaded.map_err(|e| vec![unloadable(&d.file, d.name.span, e)])?;
        if let Some(missing) = loaded {
            self.project.warnings.push(Diagnostic::new(
                &d.file,
                d.name.span,
                format!("view `{}` can't run yet: {missing}", d.name.value),
            ));
        }
        for warning in located.diagnostics(view.against_retention().into_iter().collect()) {
            self.project.warnings.push(warning);
        }
        view.fingerprint =
            fingerprint(&view).map_err(|e| vec![Diagnostic::new(&d.file, d.name.span, e.to_string())])?;
        Ok(Some(view))
    }

    async fn service(&mut self, d: &FeatureServiceDef) -> Result<Option<FeatureService>, Vec<Diagnostic>> {
        let mut fields = vec![];
        let mut problems = vec![];
        for column in &d.signature {
            match self.rows.data_type(&column.data_type) {
                Ok(t) => fields.push(Field::new(&column.name.value, t, true)),
                // A type that isn't known is reported by the parser already.
                Err(_) if self.diagnostics.concern(&d.name.value) => return Ok(None),
                Err(e) => problems.push(Diagnostic::new(&d.file, column.span, Problem::from(e).message)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if self.rests_on_broken(&d.name.value, &d.query) {
            return Ok(None);
        }
        let signature: SchemaRef = Arc::new(Schema::new(fields));
        let request = service::request(&signature, &d.query);
        let mut planner = self.constants.clone().with(REQUEST, Relation::Rows(request.clone()));
        for view in self.project.views.values() {
            planner.insert(&view.name, Relation::Rows(view.schema.clone()));
        }
        let located = Located { file: &d.file, query: &d.query, query_span: d.query_span };
        let plan = located.plan(&planner)?;
        let project = &self.project;
        let (mut pipeline, schema) =
            service::compile(&plan, &|name| project.kind(name)).map_err(|p| located.diagnostics(p))?;
        let loaded = load_tables(&mut pipeline, &project.tables).await;
        let loaded = loaded.map_err(|e| vec![unloadable(&d.file, d.name.span, e)])?;
        if let Some(missing) = loaded {
            self.project.warnings.push(Diagnostic::new(
                &d.file,
                d.name.span,
                format!("service `{}` can't run yet: {missing}", d.name.value),
            ));
        }
        Ok(Some(FeatureService {
            name: d.name.value.clone(),
            signature,
            request,
            schema,
            pipeline,
            plan,
            description: d.options.description.clone().or_else(|| d.doc.clone()),
            owner: d.options.owner.clone(),
            docs: d.column_docs.clone(),
            sql: statement_text(&d.file, d.span),
        }))
    }
}

/// A dimension table whose rows can't be looked up.
fn unloadable(file: &Arc<SourceFile>, span: Span, error: DataFusionError) -> Diagnostic {
    crate::catalog::diagnostic(file, span, &Problem::from(error).message)
}

/// The relations that a query names, as DataFusion normalises them.
fn relations(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let _ = visit_relations(query, |name| {
        if let [part] = name.0.as_slice()
            && let Some(ident) = part.as_ident()
        {
            names.insert(if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() });
        }
        ControlFlow::<()>::Continue(())
    });
    names
}
