//! Reads a request's body within limits of size and time, and as JSON. Absent: what the members mean.

use super::error::{Kind, Problem};
use crate::domain::json;
use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, SchemaType, Type},
    },
};

/// How a body may write an id, which `domain::json::Reader::id` reads.
pub enum Id {}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::String, Type::Integer]))
            .description(Some("A text, or a whole number, which stands for its digits."))
            .examples(["3"]);
        Schema::from(id).into()
    }
}

impl ToSchema for Id {}

/// How much of a body is taken, and how long it may take to come.
#[derive(Clone, Copy)]
pub struct Limits {
    pub size: usize,
    pub wait: Duration,
    /// How much of a body that is too large is still read away, so that the client gets to see the answer.
    pub drain: usize,
}

/// For clients with a good token. Larger than any helpdesk's event: Zammad's, with articles, are tens of kilobytes. A
/// client that has not sent its body by then is stuck.
pub const TRUSTED: Limits = Limits {
    size: 1024 * 1024,
    wait: Duration::from_secs(30),
    drain: 16 * 1024 * 1024,
};

/// For the files that an admin imports: a quarter of a million numbers.
pub const FILE: Limits = Limits {
    size: 16 * 1024 * 1024,
    wait: Duration::from_secs(120),
    drain: 64 * 1024 * 1024,
};

/// The whole body. One that says that it is too large for us to read away is not read at all.
pub async fn read(body: Body, limits: Limits) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(
            Kind::TooLarge,
            format!("the body has more than {} bytes: send less", limits.size),
        )
    };
    let most = limits.drain.max(limits.size);
    if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(too_large().and_close());
    }
    let reading = async {
        let mut stream = body.into_data_stream();
        let (mut bytes, mut seen) = (Vec::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| {
                Problem::new(
                    Kind::IncompleteBody,
                    "the connection broke before the whole body was there",
                )
            })?;
            seen += chunk.len();
            if seen <= limits.size {
                bytes.extend_from_slice(&chunk);
            } else if seen > most {
                return Err(too_large().and_close());
            }
        }
        if seen > limits.size {
            Err(too_large())
        } else {
            Ok(bytes)
        }
    };
    tokio::time::timeout(limits.wait, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(
            Kind::SlowBody,
            format!("the body was not there after {} seconds", limits.wait.as_secs()),
        )
        .and_close())
    })
}

/// The JSON document that is the body of a request with a good token.
pub async fn read_json(headers: &HeaderMap, raw: Body) -> Result<Value, Problem> {
    expect_json(headers)?;
    parse_json(&read(raw, TRUSTED).await?)
}

/// The same where the body may be left out; `None` if it is.
pub async fn read_optional_json(headers: &HeaderMap, raw: Body) -> Result<Option<Value>, Problem> {
    let bytes = read(raw, TRUSTED).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    expect_json(headers)?;
    parse_json(&bytes).map(Some)
}

/// JSON by its content type; none at all passes, since the body will show it.
fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::UnsupportedMediaType,
        "send JSON, with `Content-Type: application/json`",
    ))
}

/// Parses a body; the answer says where it breaks off.
fn parse_json(bytes: &[u8]) -> Result<Value, Problem> {
    json::parse(bytes).map_err(|error| Problem::new(Kind::InvalidJson, format!("the body is not valid JSON: {error}")))
}
