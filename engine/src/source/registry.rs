//! A client of a schema registry: the REST interface that Confluent's, Apicurio's and Karapace's registries share.
//!
//! Guarantees: what a registry says is either an answer or an error that names the registry and what to do; "there is no
//! such schema" is only believed of an answer that says so in the registry's own terms, never of any other 404. Every
//! call ends within ten seconds. A password in the URL is in no error and in no debug output.
//!
//! Calls block: not to be made on a thread that drives futures.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::contract::Contract;
use super::decode::WriterSchemas;
use super::framing::WriterId;

/// One schema registry.
pub struct SchemaRegistry {
    agent: Agent,
    /// Without credentials, without a slash at its end.
    url: String,
    authorization: Option<String>,
    /// By id. An id never gets another schema, so they stay.
    schemas: Mutex<HashMap<u32, String>>,
}

/// A schema of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub id: u32,
    pub version: u32,
    pub json: String,
}

/// Why a registry gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "schema registry {registry}: not a URL of one; expected http://host:port or https://…; \
         hint: Apicurio's ends with /apis/ccompat/v7"
    )]
    Url { registry: String },
    #[error("schema registry {registry}: no answer: {cause}; expected one within {} seconds; hint: {hint}", CALL.as_secs())]
    Unreachable { registry: String, cause: String, hint: &'static str },
    #[error(
        "schema registry {registry}: {asked} is not allowed (status {status}); \
         hint: put the user and password into the URL: https://user:password@host"
    )]
    NotAllowed { registry: String, asked: String, status: u16 },
    #[error("schema registry {registry}: it refuses {subject}: {cause}; hint: {hint}")]
    Refused { registry: String, subject: String, cause: String, hint: &'static str },
    #[error("schema registry {registry}: {asked} was answered with {answer}; expected {expected}; hint: {hint}")]
    Answer { registry: String, asked: String, answer: String, expected: &'static str, hint: &'static str },
}

const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(10);
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Answers that are larger are refused.
const BODY_LIMIT: u64 = 16 << 20;
/// The registry's own words for "no such subject", "no such version", "no such schema", "the subject was deleted".
const NO_SUBJECT: i64 = 40401;
const NO_VERSION: i64 = 40402;
const NO_SCHEMA: i64 = 40403;
const DELETED: i64 = 40404;

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry").field("url", &self.url).finish_non_exhaustive()
    }
}

impl SchemaRegistry {
    /// The registry at a URL, which may have a user and a password (`https://user:password@host/path`).
    pub fn new(url: &str) -> Result<SchemaRegistry, RegistryError> {
        let (url, credentials) = split_credentials(url.trim());
        let url = url.trim_end_matches('/').to_owned();
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let whole = |host: &str| !host.is_empty() && !host.starts_with(['/', ':']);
        if !host.is_some_and(whole) || url.contains(|c: char| c.is_whitespace() || c == '?' || c == '#') {
            return Err(RegistryError::Url { registry: url });
        }
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(CALL))
            .tls_config(tls)
            .build();
        let authorization = credentials.map(|credentials| format!("Basic {}", BASE64.encode(credentials)));
        Ok(SchemaRegistry { agent: config.new_agent(), url, authorization, schemas: Mutex::default() })
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The schema with this id, if there is one. Each is asked for once.
    pub fn schema(&self, id: u32) -> Result<Option<String>, RegistryError> {
        if let Some(known) = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(known.clone()));
        }
        let answer = self.get(&format!("/schemas/ids/{id}"))?;
        if answer.says(&[NO_SCHEMA]) {
            return Ok(None);
        }
        let json = answer.text("schema")?;
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner).insert(id, json.clone());
        Ok(Some(json))
    }

    /// Registers a contract under a subject, and returns its id: the same one however often.
    pub fn register(&self, subject: &str, contract: &Contract) -> Result<u32, RegistryError> {
        let answer = self.post(&format!("/subjects/{}/versions", escaped(subject)), contract.json())?;
        let refused = |hint| RegistryError::Refused {
            registry: self.url.clone(),
            subject: subject.into(),
            cause: answer.said(),
            hint,
        };
        match answer.status {
            409 => Err(refused("it is incompatible with an earlier version of the subject, by the registry's rules")),
            422 => Err(refused("the registry does not take it as an Avro schema")),
            _ => answer.number("id"),
        }
    }

    /// The newest version of a subject, if it has one.
    pub fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        let answer = self.get(&format!("/subjects/{}/versions/latest", escaped(subject)))?;
        self.registered(answer, &[NO_SUBJECT, NO_VERSION, DELETED])
    }

    /// The version of a subject that has this very schema, if one has.
    pub fn find(&self, subject: &str, json: &str) -> Result<Option<Registered>, RegistryError> {
        let answer = self.post(&format!("/subjects/{}", escaped(subject)), json)?;
        self.registered(answer, &[NO_SUBJECT, NO_VERSION, NO_SCHEMA, DELETED])
    }

    /// Whether the registry's own rules for a subject let this schema follow its newest version; else what it says is
    /// wrong, which may be nothing. A subject without a version takes any.
    pub fn compatible(&self, subject: &str, json: &str) -> Result<Result<(), Vec<String>>, RegistryError> {
        let path = format!("/compatibility/subjects/{}/versions/latest?verbose=true", escaped(subject));
        let answer = self.post(&path, json)?;
        if answer.says(&[NO_SUBJECT, NO_VERSION, DELETED]) {
            return Ok(Ok(()));
        }
        let body = answer.body()?;
        match body.get("is_compatible").and_then(Json::as_bool) {
            Some(true) => Ok(Ok(())),
            Some(false) => {
                let messages = body.get("messages").and_then(Json::as_array).into_iter().flatten();
                Ok(Err(messages.filter_map(Json::as_str).map(str::to_owned).collect()))
            }
            None => Err(answer.unexpected("whether the schemas are compatible")),
        }
    }

    fn registered(&self, answer: Answer, none: &[i64]) -> Result<Option<Registered>, RegistryError> {
        if answer.says(none) {
            return Ok(None);
        }
        let (id, version, json) = (answer.number("id")?, answer.number("version")?, answer.text("schema")?);
        Ok(Some(Registered { id, version, json }))
    }

    fn get(&self, path: &str) -> Result<Answer, RegistryError> {
        let mut request = self.agent.get(format!("{}{path}", self.url)).header("Accept", CONTENT_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        self.answer(format!("GET {path}"), request.call())
    }

    /// Posts a schema; without the file's line breaks, so that only what the schema says makes it another one.
    fn post(&self, path: &str, schema: &str) -> Result<Answer, RegistryError> {
        let schema = serde_json::from_str(schema).map_or_else(|_| schema.to_owned(), |json: Json| json.to_string());
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("Accept", CONTENT_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let body = json!({ "schema": schema }).to_string();
        self.answer(format!("POST {path}"), request.content_type(CONTENT_TYPE).send(body))
    }

    fn answer(
        &self,
        asked: String,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, RegistryError> {
        let unreachable = |e: ureq::Error| {
            let cause = e.to_string();
            let hint = match cause.contains("certificate") {
                true => "the variable SSL_CERT_FILE names the file of an authority that this machine doesn't know",
                false => "is it running there?",
            };
            RegistryError::Unreachable { registry: self.url.clone(), cause, hint }
        };
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(BODY_LIMIT).read_to_string().map_err(unreachable)?;
        let registry = self.url.clone();
        if matches!(status, 401 | 403) {
            return Err(RegistryError::NotAllowed { registry, asked, status });
        }
        Ok(Answer { registry, asked, status, text })
    }
}

impl WriterSchemas for SchemaRegistry {
    fn schema(&self, writer: WriterId) -> Result<Option<String>, String> {
        match writer {
            WriterId::Registry(id) => self.schema(id).map_err(|e| e.to_string()),
            WriterId::Rabin(_) => Ok(None),
        }
    }
}

struct Answer {
    registry: String,
    asked: String,
    status: u16,
    text: String,
}

impl Answer {
    /// Whether the registry says, in its own terms, one of these.
    fn says(&self, codes: &[i64]) -> bool {
        let body: Json = serde_json::from_str(&self.text).unwrap_or_default();
        self.status == 404 && body.get("error_code").and_then(Json::as_i64).is_some_and(|code| codes.contains(&code))
    }

    fn body(&self) -> Result<Json, RegistryError> {
        match serde_json::from_str(&self.text) {
            Ok(body) if (200..300).contains(&self.status) => Ok(body),
            _ => Err(self.unexpected("an answer of a schema registry")),
        }
    }

    fn text(&self, key: &str) -> Result<String, RegistryError> {
        let body = self.body()?;
        body.get(key).and_then(Json::as_str).map(str::to_owned).ok_or_else(|| self.unexpected("a schema"))
    }

    fn number(&self, key: &str) -> Result<u32, RegistryError> {
        let number = self.body()?.get(key).and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.unexpected("an id and a version"))
    }

    /// The registry's message, or the body as it came, cut short.
    fn said(&self) -> String {
        let body: Json = serde_json::from_str(&self.text).unwrap_or_default();
        let said = body.get("message").and_then(Json::as_str).unwrap_or(self.text.trim());
        said.chars().take(500).collect()
    }

    fn unexpected(&self, expected: &'static str) -> RegistryError {
        let hint = match self.status {
            404 => "is the URL the registry's? Apicurio's ends with /apis/ccompat/v7",
            500.. => "the registry itself has a problem: see its log",
            _ => "is this a schema registry?",
        };
        let answer = match self.said() {
            said if said.is_empty() => format!("status {}", self.status),
            said => format!("status {}: {said}", self.status),
        };
        RegistryError::Answer { registry: self.registry.clone(), asked: self.asked.clone(), answer, expected, hint }
    }
}

/// A URL without its credentials, and these as `user:password`.
fn split_credentials(url: &str) -> (String, Option<Vec<u8>>) {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (&url[..scheme.len() + 3], rest));
    // A password may hold any sign; a host holds no @.
    match rest.rsplit_once('@') {
        Some((credentials, host)) => (format!("{scheme}{host}"), Some(unescaped(credentials))),
        None => (url.to_owned(), None),
    }
}

/// `%40` is `@`; what is no such escape stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = match (first, after) {
            (b'%', [a, b, ..]) => hex(*a).zip(hex(*b)).map(|(a, b)| a << 4 | b),
            _ => None,
        };
        bytes.push(escape.unwrap_or(*first));
        rest = after.get(if escape.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// A subject as one part of a path.
fn escaped(subject: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    subject.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
