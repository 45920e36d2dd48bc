//! `POST /twilio/status`: status callbacks. The signature is checked over the configured address, never over what the
//! request says of itself. Kept means committed; what could not be stored is never answered with 2xx.

use super::{Office, SharedOffice, body, connections::Connection, error::Problem, in_time, now};
use crate::{
    carrier::twilio::{
        receipt,
        signature::{self, Signed},
    },
    store::Recorded,
};
use axum::{
    body::Body,
    extract::{ConnectInfo, Extension, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Nobody can be told from Twilio before the body is there, so little is taken, and nothing is read away. Receipts have a
/// few hundred bytes.
const BODY: body::Limits = body::Limits {
    size: 64 * 1024,
    wait: Duration::from_secs(10),
    drain: 0,
};
/// How many rejected receipts are kept for a look.
const KEPT: usize = 100;

/// The last rejected receipts, redacted. In memory: they help to find a wrong setting and prove nothing.
#[derive(Default)]
pub struct Rejected(Mutex<(u64, VecDeque<RejectedReceipt>)>);

/// A receipt that was turned away: when, why, and what it looked like; no values.
#[derive(Clone)]
pub struct RejectedReceipt {
    pub at: Timestamp,
    pub why: String,
    pub fields: Vec<String>,
}

impl Rejected {
    fn add(&self, receipt: RejectedReceipt) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        if kept.1.len() == KEPT {
            kept.1.pop_front();
        }
        kept.1.push_back(receipt);
    }

    /// How many were rejected since the start, and the last of them, newest first.
    pub fn list(&self) -> (u64, Vec<RejectedReceipt>) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.0, kept.1.iter().rev().cloned().collect())
    }
}

pub async fn post_twilio(
    State(office): SharedOffice,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    raw: Body,
) -> Result<StatusCode, Problem> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let refused = "the signature is missing or not valid";
    let signature = text("x-twilio-signature");
    if signature.is_empty() {
        let why = "it has no `X-Twilio-Signature` header".to_owned();
        let problem = Problem::new(StatusCode::FORBIDDEN, refused);
        return Err(reject(&office, &headers, peer.ip(), why, &[], problem));
    }
    let bytes = match connection.while_waiting(body::read(raw, BODY)).await {
        Ok(bytes) => bytes,
        Err(problem) => {
            return Err(reject(
                &office,
                &headers,
                peer.ip(),
                problem.detail().to_owned(),
                &[],
                problem,
            ));
        }
    };
    let query = query.unwrap_or_default();
    let verdict = match &office.status_callback_url {
        None => Err("`public_url` is not set, so nothing can be checked".to_owned()),
        Some(address) => {
            let address = address.as_str().split(['?', '#']).next().unwrap_or_default();
            let url = if query.is_empty() {
                address.to_owned()
            } else {
                format!("{address}?{query}")
            };
            let signed = Signed {
                url: &url,
                content_type: text(header::CONTENT_TYPE.as_str()),
                body: &bytes,
                signature,
            };
            signature::verify(signed, &office.twilio_tokens).map_err(|invalid| invalid.to_string())
        }
    };
    if let Err(why) = verdict {
        let problem = Problem::new(StatusCode::FORBIDDEN, refused);
        return Err(reject(&office, &headers, peer.ip(), why, &bytes, problem));
    }

    let Some(receipt) = receipt::read(&query, &bytes) else {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this names no message or no status: it is no status callback",
        ));
    };
    let recording = office.store.record_receipt(receipt.clone(), office.poll_after, now());
    let recorded = in_time(
        recording,
        "the database did not answer in time; it may or may not have been stored, so send it again",
    )
    .await?;
    match recorded {
        Recorded::Applied(state) => {
            tracing::debug!(message.id = %receipt.message_id, status = %receipt.status, %state, "receipt recorded")
        }
        Recorded::Waiting => {
            tracing::info!(message.id = %receipt.message_id, status = %receipt.status, "receipt kept for a message that is not known yet")
        }
        Recorded::Repeat => {
            tracing::debug!(message.id = %receipt.message_id, status = %receipt.status, "receipt repeated")
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Notes why a receipt is turned away, and what it looked like; no values.
fn reject(office: &Office, headers: &HeaderMap, peer: IpAddr, why: String, body: &[u8], problem: Problem) -> Problem {
    tracing::warn!(
        why,
        "rejected a receipt; if Twilio sent it, compare `public_url` with the address set there, or try `nightbell receipt verify`"
    );
    let fields = url::form_urlencoded::parse(body)
        .map(|(name, _)| crate::domain::text::clean_line(&name, 40))
        .take(40)
        .collect();
    office.rejected.add(RejectedReceipt { at: now(), why, fields });
    office.doorkeeper.refuse_stranger(headers, peer, problem)
}
