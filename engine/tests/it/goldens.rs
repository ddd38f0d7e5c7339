//! Text goldens: what the compiler says of definitions.
//!
//! `goldens/project` is a project; a case adds the definitions of one `.sql` file to it (split into several files by lines
//! `-- file: NAME`). `rejected/*.txt` are the messages, `accepted/*.txt` the warnings, and the explanation of everything that
//! the case defines. `BLESS=1 cargo test goldens` writes what is said now: read the difference before committing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;
use tidemark_engine::explain;
use tidemark_engine::plan::{Project, ProjectError};
use tidemark_engine::sql::{Definition, SourceFile, Span, load};

#[tokio::test]
async fn rejected_definitions_say_why() {
    let cases = cases("rejected");
    assert!(cases.len() >= 60, "only {} rejected definitions", cases.len());
    let mut wrong = vec![];
    for case in cases {
        let folder = project(Some(&case));
        let said = match Project::load(folder.path(), &folder.path().join("features")).await {
            Err(ProjectError::Definitions(errors)) => errors.to_string(),
            Err(other) => other.to_string(),
            Ok(_) => "accepted".to_owned(),
        };
        compare(&case, &said, folder.path(), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn accepted_definitions_are_explained() {
    let cases = cases("accepted");
    assert!(cases.len() >= 40, "only {} accepted definitions", cases.len());
    let folder = project(None);
    let given = names(&Project::load(folder.path(), &folder.path().join("features")).await.unwrap());
    let mut wrong = vec![];
    for case in cases {
        let folder = project(Some(&case));
        let said = match Project::load(folder.path(), &folder.path().join("features")).await {
            Ok(project) => {
                for name in names(&project) {
                    let json = explain::json(&project, &name).unwrap();
                    assert_eq!(json["name"], name.as_str(), "{json}");
                }
                let warnings = project.warnings.sorted().into_iter().map(|warning| {
                    let text = warning.to_string();
                    format!("warning{}", text.strip_prefix("error").unwrap_or(&text))
                });
                let pages = names(&project);
                let pages = pages.difference(&given);
                let pages = pages.map(|name| explain::text(&project, name).unwrap_or_else(|e| e.to_string()));
                let pages = warnings.chain(pages).collect::<Vec<_>>();
                pages.join("\n\n----\n\n")
            }
            Err(error) => format!("rejected\n{error}"),
        };
        compare(&case, &said, folder.path(), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What follows AS is a query that any SQL engine can run: here DataFusion, without anything of ours.
#[tokio::test]
async fn accepted_queries_are_plain_sql() {
    let mut ran = 0;
    // DataFusion 55 doesn't plan an ASOF JOIN; the parity test holds those against plain SQL.
    let asof = |case: &PathBuf| case.file_name().unwrap().to_string_lossy().starts_with("asof_");
    for case in cases("accepted").into_iter().filter(|case| !asof(case)) {
        let folder = project(Some(&case));
        let project = Project::load(folder.path(), &folder.path().join("features")).await.unwrap();
        let context = SessionContext::new();
        let sources = project.sources.values().map(|s| (&s.name, &s.schema));
        for (name, schema) in sources.chain(project.tables.values().map(|t| (&t.name, &t.schema))) {
            context.register_table(name.as_str(), Arc::new(EmptyTable::new(schema.clone()))).unwrap();
        }
        let (definitions, _) = load(folder.path(), &folder.path().join("features")).unwrap();
        let (mut shared, mut views) = (vec![], vec![]);
        for definition in &definitions {
            match definition {
                Definition::View(d) => shared.push((d.name.value.as_str(), query(&d.file, d.query_span))),
                // DataFusion 55 forgets a named window that is extended: it gets it spelled out. Postgres and DuckDB don't.
                Definition::FeatureView(d) if case.ends_with("window_inheritance.sql") => {
                    views.push((d.name.value.as_str(), d.query.to_string()));
                }
                Definition::FeatureView(d) => views.push((d.name.value.as_str(), query(&d.file, d.query_span))),
                _ => {}
            }
        }
        // Views over views come after them, in whatever order the files have them.
        for _ in 0..shared.len() {
            for (name, sql) in &shared {
                if let (false, Ok(plan)) = (context.table_exist(*name).unwrap(), context.sql(sql).await) {
                    context.register_table(*name, plan.into_view()).unwrap();
                }
            }
        }
        for (name, sql) in views {
            let batches = context.sql(&sql).await.unwrap_or_else(|e| panic!("{}: {e}\n{sql}", case.display()));
            let columns: Vec<String> = batches.schema().fields().iter().map(|f| f.name().clone()).collect();
            let ours: Vec<String> = project.views[name].schema.fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(columns, ours, "{}", case.display());
            batches.collect().await.unwrap_or_else(|e| panic!("{}: {e}\n{sql}", case.display()));
            ran += 1;
        }
    }
    assert!(ran > 100, "{ran}");
}

/// A definition's query as its file has it.
fn query(file: &SourceFile, span: Span) -> String {
    let from = file.text.lines().skip(span.line as usize - 1).collect::<Vec<_>>().join("\n");
    let text: String = from.chars().skip(span.column as usize - 1).collect();
    let (mut quoted, mut comment) = (false, false);
    let end = text.char_indices().find(|(i, c)| {
        comment = if comment { *c != '\n' } else { !quoted && text[*i..].starts_with("--") };
        quoted ^= *c == '\'' && !comment;
        *c == ';' && !quoted && !comment
    });
    end.map_or(text.clone(), |(end, _)| text[..end].to_owned())
}

/// What ships is accepted, and there is something to say about each of it.
#[tokio::test]
async fn shipped_definitions_are_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let project = Project::load(&root, &root.join("features")).await.unwrap_or_else(|e| panic!("{e}"));
    let names = names(&project);
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let page = explain::text(&project, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(&name) && page.contains("Columns") || page.contains("Request plan"), "{page}");
    }
}

/// A name that is nothing is answered with the nearest.
#[tokio::test]
async fn an_unknown_name_has_a_hint() {
    let folder = project(None);
    let project = Project::load(folder.path(), &folder.path().join("features")).await.unwrap();
    let error = explain::text(&project, "spendd").unwrap_err().to_string();
    assert_eq!(error, "nothing is called `spendd`: did you mean `spend`?");
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// The `.sql` files of a folder, by name.
fn cases(folder: &str) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(goldens().join(folder)).unwrap().map(|f| f.unwrap().path());
    files.filter(|f| f.extension().is_some_and(|e| e == "sql")).collect()
}

/// The shared project, and a case's definitions in it.
pub fn project(case: Option<&Path>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&goldens().join("project"), folder.path());
    let Some(case) = case else { return folder };
    let mut files: Vec<(String, String)> = vec![("case.sql".into(), String::new())];
    for line in fs::read_to_string(case).unwrap().split_inclusive('\n') {
        match line.strip_prefix("-- file: ") {
            Some(name) => files.push((name.trim().into(), String::new())),
            None => files.last_mut().unwrap().1.push_str(line),
        }
    }
    for (name, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
        fs::write(folder.path().join("features").join(name), text).unwrap();
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy(&entry, &target) } else { fs::copy(&entry, &target).map(drop).unwrap() }
    }
}

fn names(project: &Project) -> BTreeSet<String> {
    let views =
        project.views.keys().chain(project.shared.keys()).chain(project.sources.keys()).chain(project.tables.keys());
    views.chain(project.services.keys()).chain(project.training_sets.keys()).cloned().collect()
}

/// Compares with the text beside the case, or writes it.
fn compare(case: &Path, said: &str, root: &Path, wrong: &mut Vec<String>) {
    let said = format!("{}\n", said.replace(root.to_str().unwrap(), "<project>").trim_end());
    let golden = case.with_extension("txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&golden, &said).unwrap();
    } else if fs::read_to_string(&golden).unwrap_or_default() != said {
        wrong.push(format!("{} differs; now:\n{said}", golden.display()));
    }
}
