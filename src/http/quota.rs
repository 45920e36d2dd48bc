//! What a token has left of its quota, as answers say it (draft-ietf-httpapi-ratelimit-headers-10). Absent: counting (see
//! `auth`).

use axum::{
    http::HeaderValue,
    response::{IntoResponseParts, ResponseParts},
};
use governor::Quota;
use std::convert::Infallible;

/// The quota of a token, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaFields {
    requests: u32,
    window_s: u64,
    left: u32,
}

impl QuotaFields {
    pub fn new(quota: Quota, left: u32) -> Self {
        Self {
            requests: quota.burst_size().get(),
            window_s: quota.burst_size_replenished_in().as_secs().max(1),
            left,
        }
    }
}

impl IntoResponseParts for QuotaFields {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let Self {
            requests,
            window_s,
            left,
        } = self;
        for (name, value) in [
            ("ratelimit-policy", format!("\"token\";q={requests};w={window_s}")),
            ("ratelimit", format!("\"token\";r={left};t={window_s}")),
        ] {
            let value = HeaderValue::try_from(value).ok();
            parts.headers_mut().extend(value.map(|value| {
                let name = axum::http::HeaderName::from_static(name);
                (name, value)
            }));
        }
        Ok(parts)
    }
}
