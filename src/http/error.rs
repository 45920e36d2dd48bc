//! Errors as RFC 9457 problem details: the kinds there are, and what each means to whoever reads about it at
//! `/docs/problems`. Absent: which handler answers which.

use super::quota::QuotaFields;
use crate::{domain::json::Fault, store::StoreError};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{Content, Header, Ref, RefOr, ResponseBuilder, response, schema::Object, schema::Type},
};

/// Declares the kinds of problems: the status of each, its name in the `type` URI, and its title. The comment is what
/// `/docs/problems` says about it.
macro_rules! kinds {
    ($($(#[doc = $text:literal])+ $kind:ident = $status:ident $name:literal $title:literal;)+) => {
        /// What is wrong. The `type` of the answer leads to the section about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[doc = $text])+ $kind),+ }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status),+ }
            }

            /// The anchor of its section.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// The `type` of its answers, relative to this service.
            pub const fn uri(self) -> &'static str {
                match self { $(Self::$kind => concat!("/docs/problems#", $name)),+ }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),+ }
            }

            /// What it means and what to do about it.
            pub fn text(self) -> &'static str {
                match self { $(Self::$kind => concat!($($text),+).trim()),+ }
            }
        }
    };
}

kinds! {
    /// The body cannot be parsed as JSON, or an object names a member twice. `detail` says where it breaks off. Send valid
    /// JSON; sending the same again does not help.
    InvalidJson = BAD_REQUEST "invalid-json" "The body is not valid JSON";
    /// The connection broke before the whole body was there. Nothing was stored: send it again.
    IncompleteBody = BAD_REQUEST "incomplete-body" "The body is incomplete";
    /// The file is not UTF-8 from the line that `detail` names (save it as "CSV UTF-8"), or its first line does not name the
    /// columns that are needed. Nothing of it was read.
    InvalidFile = BAD_REQUEST "invalid-file" "The file cannot be read";
    /// The `Idempotency-Key` is empty, too long, not ASCII, or there twice. Send one text of your own for each message, a UUID
    /// for example.
    InvalidKey = BAD_REQUEST "invalid-idempotency-key" "The Idempotency-Key cannot be used";
    /// The request has no token, or none that is valid for this address. Send `Authorization: Bearer <token>`: an intake
    /// token for events, an admin token for everything else.
    Unauthorized = UNAUTHORIZED "unauthorized" "A valid token is needed";
    /// The token is good, but bound to another source than the event names. Use that source's own token, or name the
    /// source that the token is for.
    WrongSource = FORBIDDEN "wrong-source" "The token may not speak for this source";
    /// The signature is missing, or does not fit the configured public address and auth token. The last rejected requests
    /// are at `/v1/receipts/rejected`; `nightbell receipt verify` shows what was signed.
    InvalidSignature = FORBIDDEN "invalid-signature" "The signature is not valid";
    /// A form of the admin pages came without the value that only our own pages know, or without its cookie. Nothing was
    /// changed: reload the page and send it again.
    ForeignForm = FORBIDDEN "foreign-form" "The form is not from one of our pages";
    /// There is nothing at this address, or no thing with this id. Ids are never used again, and an address has no NUL.
    NotFound = NOT_FOUND "not-found" "There is nothing here";
    /// The address is right and the method is not. The `Allow` header lists those that are.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed" "The method is not allowed here";
    /// The link in a message counts for a while only (`acknowledge.link_expires`). Reply to the message, or ask an admin.
    LinkExpired = GONE "link-expired" "The link has expired";
    /// The body did not come in time. Nothing was stored: send it again.
    SlowBody = REQUEST_TIMEOUT "slow-body" "The body did not come in time";
    /// The delivery was handed to the provider, or may have been, or has ended: it cannot be held back any more. Look at
    /// it to see what became of it.
    TooLateToCancel = CONFLICT "too-late-to-cancel" "It is too late to cancel";
    /// The ticket is no longer critical, and nobody had acknowledged it before: there is nothing left to acknowledge.
    AlertClosed = CONFLICT "alert-closed" "The alert is closed";
    /// The message may still arrive by itself, so sending it again could tell the person twice. Wait until its state is
    /// final, or send `{"force": true}`.
    MayStillArrive = CONFLICT "may-still-arrive" "The message may still arrive";
    /// The delivery has no usable phone number, so it cannot be sent, now or later. Correct the number in the helpdesk.
    NoUsableNumber = CONFLICT "no-usable-number" "There is no usable number";
    /// The `Idempotency-Key` belongs to a request for something else. Send a new message with a new key.
    KeyTaken = CONFLICT "idempotency-key-taken" "The Idempotency-Key belongs to another request";
    /// A day can be reported once it is over in the configured time zone.
    DayNotOver = CONFLICT "day-not-over" "The day is not over yet";
    /// The body is larger than `detail` allows. Send less: an event needs a few kilobytes, and a file may be cut in parts.
    TooLarge = PAYLOAD_TOO_LARGE "too-large" "The body is too large";
    /// The `Content-Type` is not what this address takes: JSON, or CSV for files.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The content type is not supported";
    /// Fields of the body, or parameters of the address, are missing or wrong. `errors` names every one of them, by a JSON
    /// pointer (RFC 6901), with what would be right. Nothing was stored; sending the same again does not help.
    InvalidFields = UNPROCESSABLE_ENTITY "invalid-fields" "Fields are missing or wrong";
    /// The form names no message or no status, so it is no status callback.
    NotACallback = UNPROCESSABLE_ENTITY "not-a-status-callback" "This is not a status callback";
    /// The form names no message, or nothing that somebody sent, so it is no incoming message.
    NotAMessage = UNPROCESSABLE_ENTITY "not-an-incoming-message" "This is not an incoming message";
    /// The token sends more than `http.per_second` allows, or this address has sent too many requests without a good token
    /// or signature. Wait as many seconds as `Retry-After` says, then send it again.
    TooManyRequests = TOO_MANY_REQUESTS "too-many-requests" "Too many requests";
    /// This failed inside Nightbell, and nothing was stored. The log has the reason.
    Internal = INTERNAL_SERVER_ERROR "internal" "This failed inside Nightbell";
    /// The database did not take it or did not answer in time. Send it again after as many seconds as `Retry-After` says:
    /// what was stored after all is answered as a duplicate.
    DatabaseUnavailable = SERVICE_UNAVAILABLE "database-unavailable" "The database is unavailable";
}

/// Declares sets of problems that an endpoint may answer with, for its documentation. No two sets of one endpoint may share
/// a status.
macro_rules! sets {
    ($($(#[$doc:meta])* $set:ident = $($kind:ident),+;)+) => {$(
        $(#[$doc])*
        pub enum $set {}

        impl IntoResponses for $set {
            fn responses() -> BTreeMap<String, RefOr<response::Response>> {
                documented(&[$(Kind::$kind),+])
            }
        }
    )+};
}

sets! {
    /// What every address for admins may answer.
    ForAdmins = Unauthorized, NotFound, TooManyRequests, Internal, DatabaseUnavailable;
    /// Where parameters are read.
    Fields = InvalidFields;
    /// Where a JSON body is read.
    JsonBody = InvalidJson, IncompleteBody, SlowBody, TooLarge, UnsupportedMediaType, InvalidFields;
    /// Where a JSON body is read that may come again.
    KeyedBody = InvalidJson, InvalidKey, IncompleteBody, SlowBody, TooLarge, UnsupportedMediaType, InvalidFields;
    /// Where a file is read.
    FileBody = InvalidFile, IncompleteBody, SlowBody, TooLarge, UnsupportedMediaType;
    ForEvents = Unauthorized, WrongSource, TooManyRequests, Internal, DatabaseUnavailable;
    /// Beside those of events: how a webhook may be wrong.
    ForHooks = InvalidJson, InvalidSignature, NotFound, SlowBody, TooLarge, InvalidFields;
    ForChallenges = NotFound, TooManyRequests;
    ForLinks = NotFound, LinkExpired, TooManyRequests, Internal, DatabaseUnavailable;
    ForCallbacks = IncompleteBody, InvalidSignature, SlowBody, TooLarge, NotACallback, TooManyRequests, Internal,
        DatabaseUnavailable;
    ForAcknowledge = AlertClosed;
    ForMessagesIn = IncompleteBody, InvalidSignature, SlowBody, TooLarge, NotAMessage, TooManyRequests, Internal,
        DatabaseUnavailable;
    ForCancel = TooLateToCancel;
    ForResend = MayStillArrive, NoUsableNumber;
    ForMessages = KeyTaken;
    ForReports = DayNotOver;
}

/// One answer for each status that these have.
fn documented(kinds: &[Kind]) -> BTreeMap<String, RefOr<response::Response>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_u16()).or_default().push(*kind);
    }
    let response = |kinds: &[Kind]| {
        let links: Vec<String> = kinds
            .iter()
            .map(|kind| format!("[{}]({})", kind.title(), kind.uri()))
            .collect();
        let problem = Content::new(Some(Ref::from_schema_name("ProblemDetails")));
        let mut response = ResponseBuilder::new()
            .description(links.join(" · "))
            .content("application/problem+json", problem);
        if kinds.iter().any(|kind| kind.may_pass()) {
            let seconds = Object::with_type(Type::Integer);
            let header = Header::builder()
                .schema(Some(seconds))
                .description(Some("When to send it again, in seconds."));
            response = response.header("Retry-After", header.build());
        }
        response.build().into()
    };
    by_status
        .into_iter()
        .map(|(status, kinds)| (status.to_string(), response(&kinds)))
        .collect()
}

impl Kind {
    /// Whether the same request may be taken later.
    fn may_pass(self) -> bool {
        matches!(
            self.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        )
    }
}

/// An error answer: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Fault>,
    retry_after_s: Option<u64>,
    quota: Option<QuotaFields>,
    is_last: bool,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            quota: None,
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
            ..Self::new(Kind::InvalidFields, detail)
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
        Self::new(Kind::NotFound, detail)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn status(&self) -> StatusCode {
        self.kind.status()
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

    /// Says how much of its quota the token has left.
    pub fn quota(self, quota: QuotaFields) -> Self {
        Self {
            quota: Some(quota),
            ..self
        }
    }

    /// Ends the connection with this answer: what the client still sends is not read.
    pub fn and_close(self) -> Self {
        Self { is_last: true, ..self }
    }
}

/// An error answer (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct ProblemDetails {
    /// The kind of problem: the address of the section about it, relative to this service. Programs decide by this.
    #[schema(format = "uri-reference", examples("/docs/problems#invalid-fields"))]
    r#type: &'static str,
    /// The kind in words.
    #[schema(examples("Fields are missing or wrong"))]
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, examples(422))]
    status: u16,
    /// What is wrong this time, and what to do about it.
    #[schema(examples("one field is wrong; nothing was stored"))]
    detail: String,
    /// Every bad field, where fields are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut headers = HeaderMap::new();
        self.set_headers(&mut headers);
        let details = ProblemDetails {
            r#type: self.kind.uri(),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (status, self.quota, Json(details)).into_response();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "application/problem+json");
        if status == StatusCode::UNAUTHORIZED {
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
        let unavailable = |detail: &str, retry_s| Self::new(Kind::DatabaseUnavailable, detail).retry_after(retry_s);
        let broken = |detail: &str| Self::new(Kind::Internal, detail);
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
