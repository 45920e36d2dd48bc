//! Reads a request's body within limits of size and time.

use super::error::Problem;
use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
};
use futures::StreamExt;
use std::time::Duration;

/// How much of a body is taken, and how long it may take to come.
#[derive(Clone, Copy)]
pub struct Limits {
    pub size: usize,
    pub wait: Duration,
    /// How much of a body that is too large is still read away, so that the client gets to see the answer.
    pub drain: usize,
}

/// For who has shown a good token. Larger than any helpdesk's event: Zammad's, with articles, are tens of kilobytes. A
/// client that has not sent its body by then is stuck.
pub const TRUSTED: Limits = Limits {
    size: 1024 * 1024,
    wait: Duration::from_secs(30),
    drain: 16 * 1024 * 1024,
};

/// The whole body. One that says that it is too large for us to read away is not read at all.
pub async fn read(body: Body, limits: Limits) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
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
                    StatusCode::BAD_REQUEST,
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
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not there after {} seconds", limits.wait.as_secs()),
        )
        .and_close())
    })
}
