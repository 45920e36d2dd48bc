//! Posts an event as a webhook by Standard Webhooks, signed. Taken is what is answered by 2xx in time. What the answer says
//! beside that is not kept. Absent: when a post is tried again.

use super::{client, posted::Posted, secret::Secret, settings::Settings};
use crate::domain::lifecycle::LifecycleEvent;
use jiff::Timestamp;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use std::time::Duration;
use url::Url;

/// An answer is read this far, so that its connection can be used again.
const MOST_OF_AN_ANSWER: usize = 1024;

/// Where webhooks of one endpoint go.
pub struct HttpTarget {
    client: Client,
    /// May hold a token, so it is shown nowhere.
    url: Url,
    /// Two of them during a rotation, the new one first; none: unsigned.
    secrets: Vec<Secret>,
    include_personal: bool,
    allow_private: bool,
    timeout: Duration,
}

impl HttpTarget {
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let client = client::client(settings.timeout, settings.allow_private);
        Ok(Self {
            client: client.map_err(|error| format!("the HTTP client cannot be made: {error}"))?,
            url: settings.url.clone().ok_or("it has no address")?,
            secrets: settings.secrets.clone(),
            include_personal: settings.include_personal,
            allow_private: settings.allow_private,
            timeout: settings.timeout,
        })
    }

    /// Posts an event; it is signed as of `now`.
    pub async fn post(&self, event: &LifecycleEvent, now: Timestamp) -> Posted {
        if let Err(refused) = client::check(&self.url, self.allow_private) {
            return Posted::failed(refused.to_string());
        }
        let body = event.payload(self.include_personal).to_string().into_bytes();
        let seconds = now.as_second();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", seconds);
        if !self.secrets.is_empty() {
            let sign = |secret: &Secret| secret.sign(&event.id, seconds, &body);
            let signatures: Vec<String> = self.secrets.iter().map(sign).collect();
            request = request.header("webhook-signature", signatures.join(" "));
        }
        match request.body(body).send().await {
            Ok(answer) => read(answer, now).await,
            Err(error) => Posted::failed(client::in_words(&error, self.timeout)),
        }
    }
}

/// What an answer means. Its status has said it all; the rest is only taken off the connection.
async fn read(mut answer: Response, now: Timestamp) -> Posted {
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| pause(text, now));
    let mut length = 0;
    while length < MOST_OF_AN_ANSWER
        && let Ok(Some(part)) = answer.chunk().await
    {
        length += part.len();
    }
    if status.is_success() {
        return Posted::Taken {
            status: Some(status.as_u16()),
        };
    }
    Posted::answered(status.as_u16(), refusal(status), retry_after)
}

fn refusal(status: StatusCode) -> String {
    let number = status.as_u16();
    match number {
        300..=399 => format!("it answered {number}: redirects are not followed, so write the final address"),
        401 | 403 => format!("it answered {number}: it does not take our signature, or the token in its address"),
        404 => format!("it answered {number}: there is nothing at its address"),
        410 => format!("it answered {number}: it wants no more events"),
        429 => format!("it answered {number}: it wants fewer events at once"),
        _ => format!("it answered {number}"),
    }
}

/// The pause that a server asks for, in seconds or until a time (RFC 9110, section 10.2.3).
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Duration::try_from(until.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_given_in_seconds_or_as_a_time() {
        let now = "2026-11-22T03:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("120", Some(120)),
            ("Sun, 22 Nov 2026 03:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 02:00:00 GMT", None),
            ("-5", None),
            ("soon", None),
        ] {
            assert_eq!(pause(text, now), wanted.map(Duration::from_secs), "{text}");
        }
    }
}
