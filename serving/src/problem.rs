//! What goes wrong, as `application/problem+json` (RFC 9457).
//!
//! `type` is `urn:tidemark:problem:<kind>`, for programs; `title` says the kind in words; `detail` says what is wrong
//! this time and what to do; `errors` names the fields of a request that is wrong: `[{field, message, hint}]`.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use datafusion::error::DataFusionError;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use tidemark_engine::kernel::KernelError;
use tidemark_engine::plan::failure::Failure;
use tidemark_engine::platform::PlatformError;
use tidemark_engine::request::ReadError;
use tidemark_engine::sql::did_you_mean;

/// Field errors that an answer lists; the rest are counted.
const LISTED: usize = 20;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// Members beside the standard ones.
    more: Map<String, Json>,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Its path: `rows[3].amount`.
    pub field: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All that is wrong with the fields of a request.
#[derive(Debug, Default)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    unlisted: usize,
}

impl FieldErrors {
    pub fn push(&mut self, field: impl Into<String>, message: impl Into<String>, hint: Option<String>) {
        if self.listed.len() < LISTED {
            self.listed.push(FieldError { field: field.into(), message: message.into(), hint });
        } else {
            self.unlisted += 1;
        }
    }

    /// A value, unless there are errors.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.listed.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.listed.first() else { return Ok(()) };
        write!(f, "{}: {}", first.field, first.message)?;
        match self.listed.len() + self.unlisted {
            1 => Ok(()),
            n => write!(f, " (and {} more)", n - 1),
        }
    }
}

impl From<FieldErrors> for Problem {
    fn from(errors: FieldErrors) -> Self {
        let detail = errors.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request does not fit the definition", detail)
            .with("errors", json!(errors.listed))
    }
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), more: Map::new() }
    }

    /// A member beside the standard ones.
    pub fn with(mut self, name: &str, value: Json) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    #[cfg(test)]
    pub(crate) fn member(&self, name: &str) -> &Json {
        self.more.get(name).unwrap_or(&Json::Null)
    }

    /// No route at this path.
    pub fn no_route(path: &str, nearest: Option<String>) -> Self {
        let hint = nearest.map_or(String::new(), |route| format!("; did you mean {route}?"));
        Self::new(StatusCode::NOT_FOUND, "unknown-route", "No such route", format!("nothing is served at {path}{hint}"))
    }

    /// No definition of this name.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a String>) -> Self {
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        let hint = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| match known.len() {
            0 => format!("this project defines no {what}"),
            1..=10 => format!("there is {}", known.join(", ")),
            _ => "GET /v1/catalog lists what there is".to_owned(),
        });
        Self::new(StatusCode::NOT_FOUND, "unknown-name", "No such definition", format!("no {what} `{name}`; {hint}"))
    }

    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let detail = format!("{path} does not take {method}; the Allow header says what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed", detail)
    }

    /// A body or query string that is not even of the right form.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Request too large", detail)
    }

    pub fn media_type(found: &str, expected: &str) -> Self {
        let detail = format!("content type {found}; expected {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported media type", detail)
    }

    /// Something that passes by itself.
    pub fn unavailable(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail)
    }

    pub fn timed_out(seconds: f64) -> Self {
        Self::unavailable("timeout", "Timed out", format!("no answer within {seconds} seconds"))
    }

    /// Our own fault: logged in full, answered without.
    pub fn internal(error: &dyn fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        let detail = "the server failed on this request; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    /// Values that the definition can't compute from this data.
    fn evaluation(failure: Failure) -> Self {
        let Failure { feature, cause, hint } = failure;
        let detail = match &feature {
            Some(feature) => format!("{feature}: {cause}"),
            None => cause.clone(),
        };
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "evaluation", "A feature can't be computed", detail);
        match feature {
            Some(field) => {
                problem.with("errors", json!([FieldError { field, message: cause, hint: hint.map(str::to_owned) }]))
            }
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut members = self.more;
        members.insert("type".into(), format!("urn:tidemark:problem:{}", self.kind).into());
        members.insert("title".into(), self.title.into());
        members.insert("status".into(), self.status.as_u16().into());
        members.insert("detail".into(), self.detail.into());
        let mut response = (self.status, Json::Object(members).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Store(_) => {
                tracing::error!(%error, "online store failed");
                Self::unavailable(
                    "store",
                    "Online store unavailable",
                    "the online store can't be read at the moment; try again",
                )
            }
            ReadError::NotLoaded { .. } => Self::unavailable("not-loaded", "View can't be read yet", error.to_string()),
            ReadError::Evaluate(cause) => of_evaluation(cause).unwrap_or_else(|| Self::internal(&error)),
            ReadError::Kernel { view, source } => match source {
                KernelError::Overflow { aggregate, message } => {
                    let feature = Some(format!("{view}.{aggregate}"));
                    Self::evaluation(Failure { feature, cause: message.clone(), hint: None })
                }
                KernelError::DataFusion(cause) => of_evaluation(cause).unwrap_or_else(|| Self::internal(&error)),
                _ => Self::internal(&error),
            },
            ReadError::State { .. } => Self::internal(&error),
        }
    }
}

impl From<PlatformError> for Problem {
    fn from(error: PlatformError) -> Self {
        match &error {
            PlatformError::NotPushable(_) => {
                Self::new(StatusCode::CONFLICT, "not-pushable", "Source takes no events", error.to_string())
            }
            PlatformError::Log(_) => {
                tracing::error!(%error, "event log failed");
                let detail = "the event log can't be written at the moment; some of the events may be in it: sending them again is safe if the source names an event_id";
                Self::unavailable("log", "Event log unavailable", detail)
            }
            _ => Self::internal(&error),
        }
    }
}

/// An expression that failed on the data that it was given. `None` for anything else: that is our fault.
fn of_evaluation(error: &DataFusionError) -> Option<Problem> {
    Failure::of(error).map(Problem::evaluation)
}
