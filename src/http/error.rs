//! Errors as RFC 9457 problem details. Absent: which errors there are; each handler says.

use crate::{domain::json::Fault, store::StoreError};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// An error answer: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<Fault>,
    retry_after_s: Option<u64>,
    is_last: bool,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            is_last: false,
        }
    }

    /// 422 with every bad field.
    pub fn fields(errors: Vec<Fault>) -> Self {
        let detail = match errors.len() {
            1 => "one field is wrong; nothing was stored".to_owned(),
            count => format!("{count} fields are wrong; nothing was stored"),
        };
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    /// 422 with one bad field.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        Self::fields(vec![Fault {
            pointer: pointer.to_owned(),
            detail: detail.into(),
        }])
    }

    /// 404 for a thing that is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong, for a person: the faults of the fields where there are some.
    pub fn message(&self) -> String {
        if self.errors.is_empty() {
            return self.detail.clone();
        }
        let faults: Vec<&str> = self.errors.iter().map(|fault| fault.detail.as_str()).collect();
        faults.join("; ")
    }

    /// Says in the headers of its answer what holds for every kind of answer.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        if self.is_last {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
    }

    /// Says when to send it again, in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }

    /// Ends the connection with this answer: what the client still sends is not read.
    pub fn and_close(self) -> Self {
        Self { is_last: true, ..self }
    }
}

/// The shape of every error answer (RFC 9457).
#[derive(Serialize)]
pub struct ProblemDetails {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        self.set_headers(&mut headers);
        let details = ProblemDetails {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (self.status, Json(details)).into_response();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "application/problem+json");
        if self.status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, "Bearer");
        }
        response.headers_mut().extend(headers);
        response
    }
}

/// The database did not take it, so nothing was stored: the caller must send it again.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request failed in the database");
        let unavailable =
            |detail: &str, retry_s| Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry_s);
        let broken = |detail: &str| Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
        match error {
            StoreError::Busy => unavailable(
                "the database has more to do than it can; nothing was stored, so send it again",
                1,
            ),
            StoreError::Database(_) => unavailable(
                "the database cannot be written now; nothing was stored, so send it again",
                5,
            ),
            StoreError::Unreadable { .. } => {
                broken("the database holds something that this version cannot read; see the log")
            }
            StoreError::Broken => broken("this failed inside Nightbell and nothing was stored; see the log"),
        }
    }
}
