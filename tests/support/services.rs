//! Team services on loopback: each takes what the real one takes, refuses what that refuses, and answers as it does (Slack and
//! Mattermost: incoming webhooks; Microsoft Teams: a workflow's webhook; ntfy: JSON at the root; anything under `/json/`).

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// What ntfy asks for.
pub const NTFY_TOKEN: &str = "tk_story";

/// Something that a service has taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// As it came, nothing decoded.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

#[derive(Default)]
struct Seen {
    taken: Vec<Taken>,
    /// How the next are refused, in order: path, status, body, `Retry-After`.
    refusals: Vec<(String, u16, &'static str, Option<&'static str>)>,
    refused: usize,
    /// What was wrong with what came, in words.
    faults: Vec<String>,
}

#[derive(Clone)]
pub struct Services {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Services {
    pub async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let router = Router::new().fallback(take).with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen }
    }

    /// Refuses the next that comes to this path.
    pub fn refuse(&self, path: &str, status: u16, body: &'static str, retry_after: Option<&'static str>) {
        let mut seen = self.seen.lock().unwrap();
        seen.refusals.push((path.to_owned(), status, body, retry_after));
    }

    /// How many were refused because it was said so.
    pub fn refused(&self) -> usize {
        self.seen.lock().unwrap().refused
    }

    /// What was taken at paths that begin so. Fails if anything came that the service does not take.
    pub fn taken(&self, path: &str) -> Vec<Taken> {
        let seen = self.seen.lock().unwrap();
        assert!(seen.faults.is_empty(), "{:#?}", seen.faults);
        seen.taken
            .iter()
            .filter(|taken| taken.path.starts_with(path))
            .cloned()
            .collect()
    }

    /// Waits for so many there.
    pub async fn receives(&self, path: &str, count: usize) -> Vec<Taken> {
        super::eventually(&format!("{count} at {path}"), async || {
            let taken = self.taken(path);
            if taken.len() >= count { Ok(taken) } else { Err(taken) }
        })
        .await
    }
}

async fn take(State(seen): State<Arc<Mutex<Seen>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path_and_query().unwrap().to_string();
    let mut seen = seen.lock().unwrap();
    if let Some(place) = seen.refusals.iter().position(|(refused, ..)| *refused == path) {
        let (_, status, body, retry_after) = seen.refusals.remove(place);
        seen.refused += 1;
        let status = StatusCode::from_u16(status).unwrap();
        return match retry_after {
            Some(pause) => (status, [("retry-after", pause)], body).into_response(),
            None => (status, body).into_response(),
        };
    }
    let is_json = headers
        .get("content-type")
        .is_some_and(|kind| kind.to_str().unwrap().contains("json"));
    let read: Result<Value, _> = serde_json::from_slice(&body);
    let answer = match (&read, path.as_str()) {
        (Ok(body), "/slack") if is_json => slack(body),
        (_, "/slack") => Err((400, "invalid_payload".to_owned())),
        (Ok(body), "/mattermost") if is_json => mattermost(body),
        (Ok(value), "/teams") if is_json => teams(value, body.len()),
        (Ok(body), "/") => ntfy(body, &headers),
        (Ok(_), path) if path.starts_with("/json/") && is_json => Ok((201, "{}".to_owned())),
        _ => Err((400, "Bad Request".to_owned())),
    };
    match answer {
        Ok((status, answer)) => {
            let body = read.unwrap();
            seen.taken.push(Taken { path, headers, body });
            (StatusCode::from_u16(status).unwrap(), answer).into_response()
        }
        Err((status, answer)) => {
            let body = String::from_utf8_lossy(&body);
            seen.faults.push(format!("{path} answered {status} {answer} to {body}"));
            (StatusCode::from_u16(status).unwrap(), answer).into_response()
        }
    }
}

type Answer = Result<(u16, String), (u16, String)>;

fn slack(body: &Value) -> Answer {
    match body["text"].as_str() {
        None | Some("") => Err((400, "no_text".to_owned())),
        // Anything else in angle brackets than a link calls somebody.
        Some(text) if text.contains("<!") || text.contains("<@") => Err((400, "somebody is called".to_owned())),
        Some(_) => Ok((200, "ok".to_owned())),
    }
}

fn mattermost(body: &Value) -> Answer {
    match body["text"].as_str() {
        None | Some("") => Err((
            400,
            json!({"id": "web.incoming_webhook.text.app_error", "status_code": 400}).to_string(),
        )),
        Some(text) if text.chars().count() > 16_383 => Err((413, "too long".to_owned())),
        Some(text) if text.contains("@all") || text.contains("@channel") => Err((400, "somebody is called".to_owned())),
        Some(_) => Ok((200, "ok".to_owned())),
    }
}

fn teams(body: &Value, size: usize) -> Answer {
    let attachment = &body["attachments"][0];
    let card = &attachment["content"];
    let is_block = |block: &Value| {
        let is_run =
            |run: &Value| run["type"] == "TextRun" && run["text"].as_str().is_some_and(|text| !text.contains('\n'));
        block["type"] == "RichTextBlock" && block["inlines"].as_array().is_some_and(|runs| runs.iter().all(is_run))
    };
    let is_action = |action: &Value| {
        action["type"] == "Action.OpenUrl" && action["url"].as_str().is_some_and(|url| url.starts_with("http"))
    };
    let is_good = body["type"] == "message"
        && attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        && card["type"] == "AdaptiveCard"
        && card["version"].is_string()
        && card["body"]
            .as_array()
            .is_some_and(|blocks| !blocks.is_empty() && blocks.iter().all(is_block))
        && card
            .get("actions")
            .is_none_or(|actions| actions.as_array().unwrap().iter().all(is_action))
        && size <= 28 * 1024;
    if is_good {
        Ok((202, String::new()))
    } else {
        Err((400, "BadRequest".to_owned()))
    }
}

fn ntfy(body: &Value, headers: &HeaderMap) -> Answer {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {NTFY_TOKEN}")) {
        return Err((
            401,
            json!({"code": 40101, "http": 401, "error": "unauthorized"}).to_string(),
        ));
    }
    let is_topic =
        |topic: &str| topic.len() <= 64 && topic.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let is_good = body["topic"].as_str().is_some_and(is_topic)
        && body["message"].as_str().is_some_and(|text| text.len() <= 4_096)
        && body["title"].is_string()
        && body["priority"]
            .as_i64()
            .is_some_and(|priority| (1..=5).contains(&priority))
        && body["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().all(Value::is_string))
        && body
            .get("click")
            .is_none_or(|url| url.as_str().unwrap().starts_with("http"));
    if is_good {
        Ok((
            200,
            json!({"id": "abc", "event": "message", "topic": body["topic"]}).to_string(),
        ))
    } else {
        Err((
            400,
            json!({"code": 40017, "http": 400, "error": "invalid request"}).to_string(),
        ))
    }
}
