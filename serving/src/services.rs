//! `POST /v1/services/{service}`: a feature service's values for request rows.
//!
//! Request: `{"rows": [{…}, …], "as_of": …}`. A row has every column of the service's signature and nothing else (NULL
//! is `null`). `as_of` is one instant for all rows or an array with one for each; without it all rows are read now.
//!
//! Answer: `{"service", "rows": [{feature: value, …}, …], "views": {view: {"status": […], "age_seconds": […]}}, "as_of": […]}`,
//! every array in the order of the request's rows. `age_seconds` is how long before the instant the key's newest event
//! was. A view is named as in the catalogue, or by its alias where the service joins it more than once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Serialize, Serializer};
use tidemark_engine::plan::FeatureService;
use tidemark_engine::request::ViewAnswer;

use crate::app::{App, Names};
use crate::body;
use crate::instant::{Instant, as_of};
use crate::json_in;
use crate::json_out::Rows;
use crate::problem::Problem;

pub const ROUTE: &str = "/v1/services/{service}";

#[derive(Serialize)]
struct Answer<'a> {
    service: &'a str,
    rows: Rows<'a>,
    #[serde(serialize_with = "as_object")]
    views: Vec<(&'a str, Freshness)>,
    as_of: Vec<Instant>,
}

/// How a view answered, row by row.
#[derive(Debug, Serialize)]
pub(crate) struct Freshness {
    pub status: Vec<&'static str>,
    pub age_seconds: Vec<Option<f64>>,
}

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Names(name): Names<String>,
    request: Request,
) -> Result<Response, Problem> {
    let service = app.service(&name)?;
    for (view, _) in service.views() {
        app.filled(view)?;
    }
    let mut body = body::object(&app, request, &["rows", "as_of"]).await?;
    let rows = body.array("rows", app.config.max_rows)?;
    let batch = json_in::rows(&service.signature, &rows, &|i| format!("rows[{i}]"))?;
    let instants = as_of(body.get("as_of"), rows.len(), app.now())?;
    let answer = app.reader.service(service, batch, &instants).await?;
    count(&app, &answer.views);
    let views =
        names(service).into_iter().zip(&answer.views).map(|(name, view)| (name, Freshness::from(view))).collect();
    let as_of = instants.into_iter().map(Instant).collect();
    body::json(StatusCode::OK, &Answer { service: &service.name, rows: Rows(&answer.values), views, as_of })
}

/// What each of the service's joins is called in an answer.
fn names(service: &FeatureService) -> Vec<&str> {
    let joins: Vec<_> = service.pipeline.view_joins().collect();
    let times = |view: &str| joins.iter().filter(|j| j.view.name == view).count();
    joins.iter().map(|j| if times(&j.view.name) == 1 { j.view.name.as_str() } else { j.alias.as_str() }).collect()
}

/// Counts the rows that views answered, by status.
pub(crate) fn count(app: &App, views: &[ViewAnswer]) {
    for view in views {
        for status in &view.status {
            app.http.reads.with_label_values(&[view.view.as_str(), status.as_str()]).inc();
        }
    }
}

impl From<&ViewAnswer> for Freshness {
    fn from(view: &ViewAnswer) -> Self {
        Self {
            status: view.status.iter().map(|s| s.as_str()).collect(),
            age_seconds: view.age.iter().map(|age| age.map(|micros| micros as f64 / 1e6)).collect(),
        }
    }
}

impl Freshness {
    /// Of the first row, for an answer that has only one.
    pub fn first(&self) -> (Option<&'static str>, Option<f64>) {
        (self.status.first().copied(), self.age_seconds.first().copied().flatten())
    }
}

fn as_object<S: Serializer>(views: &[(&str, Freshness)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(views.iter().map(|(name, view)| (name, view)))
}
