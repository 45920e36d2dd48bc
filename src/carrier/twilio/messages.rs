//! Calls Twilio's Messages API, once for each attempt: follows no redirect, retries nothing, and says of every outcome
//! what the caller may do next. Knows nothing of the database: callers record what it returns.

use super::{
    answer, codes, receipt,
    settings::{Account, Settings},
};
use crate::{
    carrier::driver::{Address, Capabilities, Driver, Outgoing, Reading},
    config::Reader,
    domain::{
        answer::{Answer, ProbeAnswer, Reachability},
        clock::Stamp,
        report::Explanation,
        route::{Channel, ProviderName, Route},
        search::{Listed, Listing},
    },
};
use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use url::Url;

/// Twilio's replies are a few kilobytes; more than this is not Twilio.
const MAX_REPLY: usize = 256 * 1024;
/// A page of a list: entries have about 1.5 KB and a text of up to 1,600 characters.
const MAX_PAGE: usize = 8 * 1024 * 1024;
/// Twilio gives at most 1,000 (Messages list resource, "PageSize"); half as many fit into `MAX_PAGE` however long they are.
const PAGE_SIZE: &str = "500";
/// A number with more messages than this is not searched to the end; then nobody can tell.
const MAX_PAGES: usize = 40;
/// Idle connections are dropped before Twilio's side drops them, so that a send does not meet a dead one.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Receipts are worth repeating for as long as Twilio allows: five retries, on every kind of failure
/// (webhooks/connection-overrides, "rc" and "rp").
const CALLBACK_OVERRIDES: &str = "rc=5&rp=all";

/// What trial accounts put before every text (twilio.com/docs/usage/tutorials/how-to-use-your-free-trial-account).
const TRIAL_PREFIX: &str = "Sent from your Twilio trial account - ";

/// A connection pool to Twilio, for one account and sender.
pub struct Messages {
    http: reqwest::Client,
    account: Account,
    messages_url: Url,
    route: Arc<Route>,
    /// What Twilio's clock read in its latest good reply.
    clock: Mutex<Option<Stamp>>,
    calls: Calls,
}

/// What came of the calls since somebody last asked.
#[derive(Default)]
struct Calls {
    answered: AtomicBool,
    failed: AtomicBool,
}

impl Driver for Messages {
    const CHANNEL: Channel = Channel::Sms;
    const PROVIDER: ProviderName = ProviderName::Twilio;
    const CAPABILITIES: Capabilities = Capabilities {
        searches_lists: true,
        looks_up_by_id: true,
    };
    type Settings = Settings;

    fn read(reader: &mut Reader, reading: Reading<'_>) -> Settings {
        Settings::read(reader, reading)
    }

    fn open(settings: &Settings, timeout: Duration) -> anyhow::Result<Self> {
        let account = settings
            .account()
            .context("the Twilio settings are not complete: run `nightbell config check`")?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("nightbell/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(timeout)
            .connect_timeout(timeout)
            .pool_idle_timeout(POOL_IDLE)
            .build()
            .context("the HTTP client for Twilio cannot be made")?;
        let messages_url = Url::parse(&format!(
            "{}/2010-04-01/Accounts/{}/Messages.json",
            account.base_url.as_str().trim_end_matches('/'),
            account.account_sid
        ))
        .context("`twilio.base_url` and the account make no address")?;
        let route = Route::new(Self::CHANNEL, Self::PROVIDER, &account.account_sid, &account.sender.1);
        Ok(Self {
            http,
            route: Arc::new(route),
            account,
            messages_url,
            clock: Mutex::default(),
            calls: Calls::default(),
        })
    }

    fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Posts one message.
    async fn send(&self, message: &Outgoing<'_>) -> Answer {
        let Address::Phone(to) = message.to;
        let (sender_field, sender) = &self.account.sender;
        let callback = self.callback(message);
        let validity = self.account.validity_period.as_secs().to_string();
        let mut form = vec![
            ("To", to.as_e164()),
            ("Body", message.text),
            ("ValidityPeriod", &validity),
            ("RiskCheck", "disable"),
            (sender_field, sender),
        ];
        if let Some(callback) = &callback {
            form.push(("StatusCallback", callback));
        }
        let sent = Instant::now();
        match self.call(self.http.post(self.messages_url.clone()).form(&form)).await {
            Err(error) => answer::of_failure(&error),
            Ok(reply) => {
                self.read_clock(&reply, sent);
                let status = reply.status().as_u16();
                let retry_after = reply.headers().get("retry-after");
                let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
                let body = read_limited(reply, MAX_REPLY).await;
                answer::of_reply(status, seconds.map(SignedDuration::from_secs), body.as_deref())
            }
        }
    }

    /// Asks for one message of the account: answered with 200 only if it may use the API.
    async fn probe(&self) -> ProbeAnswer {
        let request = self.http.get(self.messages_url.clone()).query(&[("PageSize", "1")]);
        match self.call(request).await {
            Ok(reply) => answer::of_probe(reply.status().as_u16()),
            Err(_) => ProbeAnswer::Unclear,
        }
    }

    fn take_reachability(&self) -> Option<Reachability> {
        let failed = self.calls.failed.swap(false, Ordering::Relaxed);
        let answered = self.calls.answered.swap(false, Ordering::Relaxed);
        match (answered, failed) {
            (true, _) => Some(Reachability::Reachable),
            (false, true) => Some(Reachability::Unreachable),
            (false, false) => None,
        }
    }

    /// Lists every message to `to`, following all pages. `None` unless the list is complete and every entry readable.
    async fn search(&self, to: Address<'_>, since: Option<Timestamp>) -> Option<Listing> {
        let Address::Phone(to) = to;
        let mut url = self.messages_url.clone();
        url.query_pairs_mut()
            .append_pair("To", to.as_e164())
            .append_pair("PageSize", PAGE_SIZE);
        if let Some(since) = since {
            // The name really ends in `>`; the value is a day of GMT (Messages list resource, "DateSent").
            url.query_pairs_mut()
                .append_pair("DateSent>", &since.strftime("%F").to_string());
        }
        let (mut messages, mut stamps) = (Vec::new(), Vec::new());
        for _ in 0..MAX_PAGES {
            let (page, stamp): (MessagePage, _) = self.get(url).await?;
            stamps.extend(stamp);
            for message in page.messages {
                if message.to.as_deref().is_none_or(|theirs| theirs == to.as_e164()) {
                    messages.push(message.read()?);
                }
            }
            let Some(next) = page.next_page_uri else {
                return Some(Listing { messages, stamps });
            };
            // Relative to the host; its token must not be built by hand.
            url = self.account.base_url.join(&next).ok()?;
            // Our credentials go to no other host, whatever a reply says.
            if url.origin() != self.account.base_url.origin() {
                return None;
            }
        }
        None
    }

    /// Fetches one message.
    async fn look_up(&self, message_id: &str) -> Option<Listed> {
        let mut url = self.account.base_url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend([
            "2010-04-01",
            "Accounts",
            &self.account.account_sid,
            "Messages",
            &format!("{message_id}.json"),
        ]);
        self.get::<MessageEntry>(url).await?.0.read()
    }

    fn clock(&self) -> Option<Stamp> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn explain(code: i64) -> Option<Explanation> {
        Some(codes::explain(code))
    }
}

impl Messages {
    /// Reads Twilio's clock off a good reply. Other replies may be a proxy's.
    fn read_clock(&self, reply: &reqwest::Response, sent: Instant) -> Option<Stamp> {
        let date = reply.headers().get(reqwest::header::DATE)?.to_str().ok()?;
        let stamp = Stamp::of_reply(date, sent, Instant::now()).filter(|_| reply.status().is_success())?;
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        Some(stamp)
    }

    /// One reply of 200, read as `T`, and what Twilio's clock read.
    async fn get<T: serde::de::DeserializeOwned>(&self, url: Url) -> Option<(T, Option<Stamp>)> {
        let sent = Instant::now();
        let reply = self.call(self.http.get(url)).await.ok()?;
        if reply.status() != reqwest::StatusCode::OK {
            return None;
        }
        let stamp = self.read_clock(&reply, sent);
        let read = serde_json::from_slice(&read_limited(reply, MAX_PAGE).await?).ok()?;
        Some((read, stamp))
    }

    /// Makes one call, and notes whether it was answered: any status is an answer.
    async fn call(&self, request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
        let password = self.account.password.expose_secret();
        let reply = request.basic_auth(&self.account.user, Some(password)).send().await;
        let outcome = match &reply {
            Ok(_) => &self.calls.answered,
            Err(_) => &self.calls.failed,
        };
        outcome.store(true, Ordering::Relaxed);
        reply
    }

    /// The callback address with our own ids, so that a receipt proves which attempt was accepted even if the answer
    /// was lost.
    fn callback(&self, message: &Outgoing<'_>) -> Option<String> {
        let mut url = self.account.status_callback.clone()?;
        url.query_pairs_mut()
            .append_pair("d", message.delivery_id)
            .append_pair("a", &message.attempt.to_string());
        if url.fragment().is_none() {
            url.set_fragment(Some(CALLBACK_OVERRIDES));
        }
        Some(url.into())
    }
}

/// The body, or `None` if it broke off, came too late, or is too large to be Twilio's.
async fn read_limited(mut reply: reqwest::Response, max: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > max {
            return None;
        }
    }
    Some(body)
}

#[derive(Deserialize)]
struct MessagePage {
    messages: Vec<MessageEntry>,
    next_page_uri: Option<String>,
}

/// A message as the list and its own resource show it.
#[derive(Deserialize)]
struct MessageEntry {
    sid: String,
    status: Option<String>,
    to: Option<String>,
    body: Option<String>,
    date_created: Option<String>,
    error_code: Option<i64>,
}

impl MessageEntry {
    fn read(self) -> Option<Listed> {
        let created_at = self
            .date_created
            .as_deref()
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let word = self.status.unwrap_or_else(|| "accepted".into());
        let status = receipt::status(&word);
        (!self.sid.is_empty()).then_some(Listed {
            message_id: self.sid,
            word,
            status,
            error_code: self.error_code,
            opted_out: self.error_code == Some(codes::OPTED_OUT),
            // What a trial account put before it is not ours.
            text: self.body.map(|text| match text.strip_prefix(TRIAL_PREFIX) {
                Some(own) => own.to_owned(),
                None => text,
            }),
            created_at: created_at.map(|date| date.timestamp()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_account_does_not_change_the_text() {
        let read = |body: &str| {
            let entry: MessageEntry = serde_json::from_value(serde_json::json!({"sid": "SM1", "body": body})).unwrap();
            entry.read().unwrap().text
        };

        assert_eq!(read("🚨 Fire").as_deref(), Some("🚨 Fire"));
        assert_eq!(read(&format!("{TRIAL_PREFIX}🚨 Fire")).as_deref(), Some("🚨 Fire"));
    }
}
