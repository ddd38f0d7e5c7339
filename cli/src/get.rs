//! `tidemark get NAME key=value …`: one row of a service or a view from a running platform.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Map, Value as Json, json};

use crate::client::Client;
use crate::console::print;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A feature service or a feature view
    name: String,
    /// The request's columns, or the view's keys: user_id=1 amount=12.50; a value that is no JSON is text
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
    /// The instant to read at, RFC 3339 [default: now]
    #[arg(long, value_name = "INSTANT")]
    as_of: Option<String>,
    /// The platform [default: where `tidemark up` listens]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let client = Client::new(&url(settings, args.url.as_deref()));
    let name = &args.name;
    let row: Map<String, Json> = args
        .values
        .iter()
        .map(|(key, text)| (key.clone(), serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))))
        .collect();
    let is = |kind: &str| Ok::<bool, anyhow::Error>(client.get(&format!("/v1/catalog/{kind}/{name}"), &[])?.ok());
    let (path, rows) = if is("services")? {
        (format!("/v1/services/{name}"), "rows")
    } else if is("views")? {
        (format!("/v1/views/{name}"), "keys")
    } else {
        bail!("{} serves no service or view `{name}`; hint: `tidemark status` lists what it serves", client.base());
    };
    let mut body = json!({ rows: [row] });
    if let (Some(as_of), Some(body)) = (&args.as_of, body.as_object_mut()) {
        body.insert("as_of".into(), json!(as_of));
    }
    let answer = client.post(&path, &body)?.json()?;
    print(&if settings.json { answer.to_string() } else { page(&answer) })?;
    Ok(ExitCode::SUCCESS)
}

/// The platform's URL: as given, or where the settings say that it listens.
pub fn url(settings: &Settings, given: Option<&str>) -> String {
    let environment = std::env::var("TIDEMARK_LISTEN").ok().and_then(|text| text.parse().ok());
    given.map_or_else(|| format!("http://{}", settings.listen(environment)), str::to_owned)
}

/// The values of the first row, one a line, then how each view answered.
fn page(answer: &Json) -> String {
    let mut lines = vec![];
    let row = answer.get("rows").and_then(|rows| rows.get(0)).and_then(Json::as_object);
    let width = row.into_iter().flat_map(Map::keys).map(String::len).max().unwrap_or(0);
    for (name, value) in row.into_iter().flatten() {
        lines.push(format!("{name:width$}  {value}"));
    }
    // A service answers for several views, a view for itself.
    let own = answer.get("view").and_then(Json::as_str).map(|view| (view, answer));
    let joined = answer.get("views").and_then(Json::as_object).into_iter().flatten();
    for (view, how) in joined.map(|(view, how)| (view.as_str(), how)).chain(own) {
        let first = |key: &str| how.get(key).map(|v| v.get(0).unwrap_or(v));
        let status = first("status").and_then(Json::as_str).unwrap_or("?");
        let age = first("age_seconds").and_then(Json::as_f64);
        let age = age.map(|age| format!(", newest event {age:.1} s old")).unwrap_or_default();
        lines.push(format!("# {view}: {status}{age}"));
    }
    lines.join("\n")
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as user_id=1")?;
    Ok((key.to_owned(), value.to_owned()))
}
