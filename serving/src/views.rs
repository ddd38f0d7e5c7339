//! `/v1/views/{view}`: a feature view's values.
//!
//! * `GET ?user_id=42&as_of=…` reads one key: `{"view", "row": {…}, "status", "age_seconds", "as_of"}`.
//! * `POST {"keys": [{"user_id": 42}, …], "as_of": …}` reads many:
//!   `{"view", "rows": [{…}, …], "status": […], "age_seconds": […], "as_of": […]}`.
//!
//! A row has the view's columns, keys and features, in the order of its SELECT. A key has every key column of the view.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tidemark_engine::plan::FeatureView;
use tidemark_engine::request::Answer;
use tidemark_engine::sql::did_you_mean;

use crate::app::{App, Names};
use crate::body;
use crate::instant::{self, Instant, as_of};
use crate::json_in;
use crate::json_out::{Row, Rows};
use crate::problem::{FieldErrors, Problem};
use crate::services::{Freshness, count};
use crate::types::sql_type;

pub const ROUTE: &str = "/v1/views/{view}";
const AS_OF: &str = "as_of";

#[derive(Serialize)]
struct One<'a> {
    view: &'a str,
    row: Row<'a>,
    status: Option<&'static str>,
    age_seconds: Option<f64>,
    as_of: Instant,
}

#[derive(Serialize)]
struct Many<'a> {
    view: &'a str,
    rows: Rows<'a>,
    #[serde(flatten)]
    freshness: Freshness,
    as_of: Vec<Instant>,
}

pub(crate) async fn read_one(
    State(app): State<Arc<App>>,
    Names(name): Names<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let view = app.view(&name)?;
    app.filled(view)?;
    let now = app.now();
    let (key, instant) = key_of_query(view, &uri, now)?;
    let answer = read(&app, view, &[key], &[instant], &|_| String::new()).await?;
    let (status, age_seconds) = freshness(&answer).first();
    let one = One { view: &view.name, row: Row(&answer.values, 0), status, age_seconds, as_of: Instant(instant) };
    body::json(StatusCode::OK, &one)
}

pub(crate) async fn read_many(
    State(app): State<Arc<App>>,
    Names(name): Names<String>,
    request: Request,
) -> Result<Response, Problem> {
    let view = app.view(&name)?;
    app.filled(view)?;
    let mut body = body::object(&app, request, &["keys", AS_OF]).await?;
    let keys = body.array("keys", app.config.max_rows)?;
    let instants = as_of(body.get(AS_OF), keys.len(), app.now())?;
    let answer = read(&app, view, &keys, &instants, &|i| format!("keys[{i}]")).await?;
    let as_of = instants.into_iter().map(Instant).collect();
    let many = Many { view: &view.name, rows: Rows(&answer.values), freshness: freshness(&answer), as_of };
    body::json(StatusCode::OK, &many)
}

/// Reads keys that are still JSON; `path` is what the request calls the n-th.
async fn read(
    app: &App,
    view: &FeatureView,
    keys: &[Json],
    instants: &[i64],
    path: &(dyn Fn(usize) -> String + Sync),
) -> Result<Answer, Problem> {
    let keys = json_in::rows(&Schema::new(view.keys.clone()), keys, path)?;
    let answer = app.reader.view(view, keys.columns(), instants).await?;
    count(app, &answer.views);
    Ok(answer)
}

fn freshness(answer: &Answer) -> Freshness {
    answer.views.first().map_or_else(|| Freshness { status: vec![], age_seconds: vec![] }, Freshness::from)
}

/// The key and the instant of a query string: every key column once, `as_of` at most once, nothing else.
fn key_of_query(view: &FeatureView, uri: &Uri, now: i64) -> Result<(Json, i64), Problem> {
    let Query(parameters): Query<Vec<(String, String)>> = Query::try_from_uri(uri)
        .map_err(|e| Problem::malformed(format!("the query string can't be read: {}", e.body_text())))?;
    let mut errors = FieldErrors::default();
    let mut key = Map::new();
    let mut instant = None;
    let mut known: Vec<&str> = view.keys.iter().map(|k| k.name().as_str()).collect();
    known.push(AS_OF);
    for (name, text) in &parameters {
        let field = view.keys.iter().find(|k| k.name() == name);
        let twice = match field {
            Some(field) => key.insert(name.clone(), typed(field.data_type(), text)).is_some(),
            None if name == AS_OF => {
                let parsed = instant::parse_query(text).map_err(|hint| {
                    errors.push(AS_OF, format!("expected {}, found \"{text}\"", instant::EXPECTED), hint);
                });
                instant.replace(parsed.unwrap_or(now)).is_some()
            }
            None => {
                errors.push(
                    name,
                    format!("unknown parameter; expected {}", known.join(", ")),
                    did_you_mean(name, known.iter().copied()),
                );
                false
            }
        };
        if twice {
            errors.push(name, "given twice", Some("POST reads many keys in one call".to_owned()));
        }
    }
    for field in view.keys.iter().filter(|k| !key.contains_key(k.name())) {
        let example = format!("?{}=…", field.name());
        errors.push(
            field.name(),
            format!("missing; expected {}", sql_type(field.data_type())),
            Some(format!("add {example} to the path")),
        );
    }
    Ok(errors.or((Json::Object(key), instant.unwrap_or(now)))?)
}

/// A parameter's text as the JSON that its type wants: text where it is nothing else, and refused later.
fn typed(data_type: &DataType, text: &str) -> Json {
    let plain = matches!(data_type, DataType::Boolean)
        || data_type.is_integer()
        || matches!(data_type, DataType::Timestamp(_, _));
    let parsed = plain.then(|| serde_json::from_str::<Json>(text).ok()).flatten();
    parsed.filter(|json| json.is_number() || json.is_boolean()).unwrap_or_else(|| Json::String(text.to_owned()))
}
