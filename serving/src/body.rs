//! A request's body, read under its limit, and JSON answers.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tidemark_engine::sql::did_you_mean;

use crate::app::App;
use crate::json_in::found;
use crate::problem::{FieldErrors, Problem};

/// A JSON object whose members are all known.
#[derive(Debug)]
pub struct Body(Map<String, Json>);

/// The media type, in lower case and without parameters; `None` where the request names none.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    Some(text.split(';').next().unwrap_or_default().trim().to_lowercase())
}

/// Whether a media type is JSON. A request that names none is taken to be.
pub fn is_json(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|t| t == "application/json" || (t.starts_with("application/") && t.ends_with("+json")))
}

/// The bytes of the body.
pub async fn bytes(app: &App, request: Request) -> Result<Bytes, Problem> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::too_large(format!("the body is longer than {} bytes; send less in one call", app.config.max_body))
        }
        _ => Problem::malformed(format!("the body can't be read: {}", rejection.body_text())),
    })
}

/// The body as a JSON object with none but these members.
pub async fn object(app: &App, request: Request, members: &[&str]) -> Result<Body, Problem> {
    let media_type = media_type(request.headers());
    if !is_json(media_type.as_deref()) {
        return Err(Problem::media_type(media_type.as_deref().unwrap_or_default(), "application/json"));
    }
    parse(&bytes(app, request).await?, members)
}

/// Bytes as a JSON object with none but these members.
pub fn parse(bytes: &[u8], members: &[&str]) -> Result<Body, Problem> {
    let json = serde_json::from_slice(bytes)
        .map_err(|e| Problem::malformed(format!("the body is not JSON: {}", syntax(&e))))?;
    let Json::Object(object) = json else {
        let expected = members.iter().map(|m| format!("\"{m}\": …")).collect::<Vec<_>>().join(", ");
        let mut errors = FieldErrors::default();
        errors.push("", format!("expected an object {{{expected}}}, found {}", found(&json)), None);
        return Err(errors.into());
    };
    let mut errors = FieldErrors::default();
    for name in object.keys().filter(|name| !members.contains(&name.as_str())) {
        let hint = did_you_mean(name, members.iter().copied());
        errors.push(name, format!("unknown member; expected {}", members.join(", ")), hint);
    }
    Ok(Body(errors.or(object)?))
}

/// A syntax error, its place first.
fn syntax(error: &serde_json::Error) -> String {
    format!("line {}, column {}: {}", error.line(), error.column(), cause(error))
}

/// What serde_json says of a syntax error, without the place.
pub fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

impl Body {
    pub fn get(&self, member: &str) -> Option<&Json> {
        self.0.get(member)
    }

    /// A member that must be there and be an array of at most `limit` items.
    pub fn array(&mut self, member: &str, limit: usize) -> Result<Vec<Json>, Problem> {
        let mut errors = FieldErrors::default();
        match self.0.remove(member) {
            Some(Json::Array(items)) => return within(items.len(), member, limit).map(|()| items),
            Some(other) => errors.push(member, format!("expected an array, found {}", found(&other)), None),
            None => errors.push(member, "missing; expected an array of objects", None),
        }
        Err(errors.into())
    }
}

/// Refuses more items than a call may have.
pub fn within(items: usize, what: &str, limit: usize) -> Result<(), Problem> {
    if items > limit {
        return Err(Problem::too_large(format!("{items} {what}; one call takes at most {limit}: split it")));
    }
    Ok(())
}

/// A JSON answer.
pub fn json(status: StatusCode, answer: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_vec(answer).map_err(|e| Problem::internal(&e))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], text).into_response())
}
