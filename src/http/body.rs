//! Reads a request's body within limits of size and time.

use super::error::Problem;
use axum::{body::Body, http::StatusCode};
use futures::StreamExt;
use std::time::Duration;

/// Larger than any helpdesk's event; Zammad's, with articles, are tens of kilobytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// A client that has not sent its body by then is stuck.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is still read away, so that the client gets to see the answer.
const MAX_DRAIN: usize = 16 * 1024 * 1024;

/// The whole body, at most `MAX_BODY`.
pub async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let reading = async {
        let mut stream = body.into_data_stream();
        let (mut bytes, mut seen) = (Vec::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "the connection broke before the whole body was there",
                )
            })?;
            seen += chunk.len();
            if seen <= MAX_BODY {
                bytes.extend_from_slice(&chunk);
            } else if seen > MAX_DRAIN {
                break;
            }
        }
        if seen > MAX_BODY {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {MAX_BODY} bytes: send less"),
            ));
        }
        Ok(bytes)
    };
    tokio::time::timeout(MAX_WAIT, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not there after {} seconds", MAX_WAIT.as_secs()),
        ))
    })
}
