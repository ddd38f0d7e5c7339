//! A client of the REST interface.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value as Json;
use ureq::Agent;

/// Answers that are larger than this are refused.
const BODY_LIMIT: u64 = 256 << 20;

/// Talks to one platform.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// What became of pushed events.
#[derive(Debug)]
pub struct Pushed {
    pub refused: u64,
    /// Why the first was refused.
    pub reason: Option<String>,
}

impl Client {
    pub fn new(base: &str) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build();
        Self { agent: config.new_agent(), base: base.trim_end_matches('/').to_owned() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str, query: &[(String, String)]) -> Result<Answer> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (key, value) in query {
            request = request.query(key, value);
        }
        self.answer(request.call())
    }

    pub fn post(&self, path: &str, body: &Json) -> Result<Answer> {
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        self.answer(request.send(body.to_string()))
    }

    /// Pushes events: `{"events": […]}`.
    pub fn push(&self, source: &str, body: &Json) -> Result<Pushed> {
        let answer = self.post(&format!("/v1/sources/{source}/events"), body)?;
        let json: Json = serde_json::from_str(&answer.text).unwrap_or_default();
        let Some(refused) = json.get("refused").and_then(Json::as_array) else {
            bail!("{}", answer.problem());
        };
        let reason = refused.first().and_then(|r| r.get("reason")).and_then(Json::as_str).map(str::to_owned);
        Ok(Pushed { refused: refused.len() as u64, reason })
    }

    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer> {
        let mut response =
            response.map_err(|e| anyhow!("{}: {e}; hint: is `tidemark up` running there?", self.base))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(BODY_LIMIT)
            .read_to_string()
            .with_context(|| format!("{}: the answer broke off", self.base))?;
        Ok(Answer { status, text })
    }
}

impl Answer {
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, or what the platform says is wrong.
    pub fn json(&self) -> Result<Json> {
        if !self.ok() {
            bail!("{}", self.problem());
        }
        serde_json::from_str(&self.text).with_context(|| format!("the answer is no JSON: {}", self.text))
    }

    /// An `application/problem+json` as a person reads it.
    fn problem(&self) -> String {
        let json: Json = serde_json::from_str(&self.text).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        let mut said = match (text("title"), text("detail")) {
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => format!("status {}: {}", self.status, self.text.trim()),
        };
        for error in json.get("errors").and_then(Json::as_array).into_iter().flatten() {
            let text = |key: &str| error.get(key).and_then(Json::as_str);
            said.push_str(&format!(
                "\n  {}: {}",
                text("field").unwrap_or("request"),
                text("message").unwrap_or("wrong")
            ));
            if let Some(hint) = text("hint") {
                said.push_str(&format!("; hint: {hint}"));
            }
        }
        said
    }
}

/// One sample of a Prometheus text: `name{label="value"} number`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

/// The samples of a metric. Label values of Tidemark's metrics are names: they hold no quotes and no commas.
pub fn samples(text: &str, metric: &str) -> Vec<Sample> {
    let sample = |line: &str| -> Option<Sample> {
        let rest = line.strip_prefix(metric)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
        Some(Sample {
            labels: labels.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_their_whole_name() {
        let text = "# HELP a_total x\na_total{source=\"s\",partition=\"0\"} 3\na_total_more 9\na_total 4.5\n";
        let found = samples(text, "a_total");
        assert_eq!(found.iter().map(|s| s.value).collect::<Vec<_>>(), [3.0, 4.5]);
        assert_eq!((found[0].label("source"), found[0].label("partition"), found[1].label("source")), ("s", "0", ""));
    }

    #[test]
    fn a_problem_names_its_fields() {
        let text = r#"{"title": "Bad request", "detail": "1 error", "errors": [{"field": "rows[0].amount", "message": "expected DOUBLE", "hint": "a number"}]}"#;
        let answer = Answer { status: 422, text: text.into() };
        let said = answer.json().unwrap_err().to_string();
        assert_eq!(said, "Bad request: 1 error\n  rows[0].amount: expected DOUBLE; hint: a number");
        let bare = Answer { status: 502, text: "gone".into() };
        assert_eq!(bare.json().unwrap_err().to_string(), "status 502: gone");
    }
}
