//! The kinds of endpoints that are no plain webhook: what each service takes, as data (`kinds/*.toml`), and posting it. A body
//! is a template; what it may name is what a webhook would say of the event (`type`, `timestamp`, `data`), and the event in
//! words (`title`, `text`, `priority`, `link`). Absent: what an admin sets of each (see `kind_settings`), when an event is
//! posted, and what becomes of one that was not taken.

use super::{
    client,
    posted::{Post, Posted},
    samples,
    words::Telling,
};
use crate::domain::lifecycle::{AlertFacts, EventTypes, LifecycleEvent};
use futures::FutureExt;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, value::Serde};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use url::Url;

/// By the name in the configuration.
const KINDS: [(&str, &str); 6] = [
    ("json", include_str!("kinds/json.toml")),
    ("mail", include_str!("kinds/mail.toml")),
    ("mattermost", include_str!("kinds/mattermost.toml")),
    ("ntfy", include_str!("kinds/ntfy.toml")),
    ("slack", include_str!("kinds/slack.toml")),
    ("teams", include_str!("kinds/teams.toml")),
];
/// How templates are called: what the engine reads the ending of is escaped as JSON, whatever a template forgets.
const BODY: &str = "body.json";
/// Enough of an answer for any word in it.
const MAX_ANSWER: usize = 4 * 1024;
/// Nobody wants to be left alone for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// How an event goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Posted to an address.
    Http,
    /// Put into the outbox of mails.
    Mail,
}

/// Whether an admin has to set something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    Required,
    Optional,
}

/// What one kind takes.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    pub way: Way,
    /// What is posted where nothing else is configured.
    events: Vec<String>,
    pub content_type: Option<String>,
    /// What a service answers that has taken an event, if any 2xx is not enough.
    pub answer: Option<String>,
    pub body: Option<String>,
    /// Whether something of the ticket may stand in the address.
    #[serde(default)]
    pub fills_address: bool,
    /// Beside those that all endpoints have.
    #[serde(default)]
    pub settings: BTreeMap<String, Need>,
}

impl Kind {
    /// The names that `webhooks.<name>.kind` may have, beside `webhook`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(name, _)| *name)
    }

    /// The kind of this name. Fails if the data that is compiled in cannot be read, which a test would find.
    pub fn read(name: &str) -> Result<Self, String> {
        let known = KINDS.iter().find(|(known, _)| *known == name);
        let (_, text) = known.ok_or_else(|| format!("there is no kind `{name}`"))?;
        toml::from_str(text).map_err(|error| format!("the kind `{name}` is broken: {error}"))
    }

    /// What is posted where nothing else is configured.
    pub fn events(&self) -> EventTypes {
        let named = self.events.iter().filter_map(|word| EventTypes::named(word));
        named.fold(EventTypes::default(), EventTypes::union)
    }
}

/// How a body is made.
#[derive(Clone)]
pub struct Form {
    environment: Environment<'static>,
}

impl Form {
    /// Reads a template. Fails with what is wrong with it, and where.
    pub fn parse(template: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Json);
        // What an event does not have is `null`, and so is all that is below.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.add_filter("mrkdwn", |text: &str| mrkdwn(text));
        environment.add_filter("markdown", |text: &str| markdown(text));
        environment.add_filter("address", |text: &str| address(text));
        let added = environment.add_template_owned(BODY, template.trim().to_owned());
        added.map_err(|error| reason(&error))?;
        Ok(Self { environment })
    }

    /// Tries it on an event of every type.
    pub fn check(&self, topic: Option<&str>) -> Result<(), String> {
        let telling = Telling {
            personal: true,
            pages: None,
            time_zone: jiff::tz::TimeZone::UTC,
        };
        for event in samples::all() {
            let kind = event.kind;
            let body = self.render(&event, &telling, topic);
            let body = body.map_err(|error| format!("fails for an event `{kind}` ({error})"))?;
            serde_json::from_str::<serde::de::IgnoredAny>(&body).map_err(|error| {
                format!("makes no JSON of an event `{kind}` ({error}): write values like `{{{{ title|tojson }}}}`, without quotes around them")
            })?;
        }
        Ok(())
    }

    fn render(&self, event: &LifecycleEvent, telling: &Telling, topic: Option<&str>) -> Result<String, String> {
        let mut view = event.payload(telling.personal);
        let words = telling.words(event);
        view["id"] = event.id.as_str().into();
        view["title"] = words.title.into();
        view["text"] = words.text.into();
        view["priority"] = words.priority.as_str().into();
        view["link"] = words.link.into();
        view["topic"] = topic.into();
        let template = self.environment.get_template(BODY);
        let rendered = template.and_then(|template| template.render(Value::from(Serde(&view))));
        rendered.map_err(|error| reason(&error))
    }
}

/// What is wrong with a template, on one line.
fn reason(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{line}{}{detail}", error.kind())
}

/// Text in Slack's markup.
fn mrkdwn(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text in Markdown, so that nothing of it is markup, and no `@all` calls everybody.
fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '#' | '|' | '~' | '<' | '>' | '!'
        ) {
            escaped.push('\\');
        }
        escaped.push(c);
        if c == '@' {
            escaped.push('\u{200B}');
        }
    }
    escaped
}

/// A link that ends where it ends in any markup.
fn address(link: &str) -> String {
    let is_safe =
        |c: char| !c.is_whitespace() && !matches!(c, '<' | '>' | '|' | '"' | '(' | ')' | '[' | ']' | '\\' | '`');
    let mut safe = String::with_capacity(link.len());
    for c in link.chars() {
        match c.is_ascii() && !is_safe(c) {
            true => safe.push_str(&format!("%{:02X}", u32::from(c))),
            false => safe.push(c),
        }
    }
    safe
}

/// Where events go; something of the ticket may stand in it.
#[derive(Clone)]
pub enum Address {
    Fixed(Url),
    /// As it is written, with the holes that are filled.
    Filled(String),
}

const TICKET_ID: &str = "{ticket_id}";
const TICKET_NUMBER: &str = "{ticket_number}";
/// What may stand in one part of an address as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Address {
    /// Reads an address; one with holes only where they are filled, and behind the host.
    pub fn parse(text: &str, is_filled: bool) -> Option<Self> {
        let read = |text: &str| {
            Url::parse(text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"))
        };
        if !is_filled || ![TICKET_ID, TICKET_NUMBER].iter().any(|hole| text.contains(hole)) {
            return read(text).filter(Url::has_host).map(Self::Fixed);
        }
        let with = |value: &str| read(&text.replace(TICKET_ID, value).replace(TICKET_NUMBER, value));
        let (one, other) = (with("a")?, with("b")?);
        let is_below = one.has_host() && one.origin() == other.origin() && one.username() == other.username();
        (is_below && one.password() == other.password()).then(|| Self::Filled(text.to_owned()))
    }

    /// The address for this alert. `None` if there is nothing to fill it with.
    fn of(&self, alert: Option<&AlertFacts>) -> Option<Url> {
        let text = match self {
            Self::Fixed(url) => return Some(url.clone()),
            Self::Filled(text) => text,
        };
        let alert = alert?;
        let mut filled = text.clone();
        for (hole, value) in [
            (TICKET_ID, Some(&alert.ticket_id)),
            (TICKET_NUMBER, alert.ticket_number.as_ref()),
        ] {
            if !text.contains(hole) {
                continue;
            }
            // These lead to another place, however they are written.
            let value = value.filter(|value| !matches!(value.as_str(), "" | "." | ".."))?;
            filled = filled.replace(hole, &utf8_percent_encode(value, PLAIN).to_string());
        }
        Url::parse(&filled).ok()
    }
}

/// All that posting to one address needs.
#[derive(Clone)]
pub struct Posting {
    pub address: Address,
    pub form: Form,
    pub headers: HeaderMap,
    pub answer: Option<String>,
    pub topic: Option<String>,
}

/// Makes what posts events so.
pub fn open(posting: &Posting, telling: Telling, timeout: Duration, allow_private: bool) -> Result<Post, String> {
    let http =
        client::client(timeout, allow_private).map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
    let posting = Arc::new(posting.clone());
    Ok(Arc::new(move |event| {
        let (http, posting, telling) = (http.clone(), Arc::clone(&posting), telling.clone());
        async move {
            match posting.ask(&http, &event, &telling, allow_private) {
                Err(posted) => posted,
                Ok(request) => match request.send().await {
                    Ok(reply) => posting.understand(reply, timeout).await,
                    Err(error) => failed(None, client::in_words(&error, timeout)),
                },
            }
        }
        .boxed()
    }))
}

impl Posting {
    /// The request that posts an event; or what comes of it without one.
    fn ask(
        &self,
        http: &reqwest::Client,
        event: &LifecycleEvent,
        telling: &Telling,
        allow_private: bool,
    ) -> Result<reqwest::RequestBuilder, Posted> {
        let url = self.address.of(event.alert.as_ref()).ok_or(Posted::Skipped)?;
        client::check(&url, allow_private).map_err(|refused| failed(None, refused.to_string()))?;
        let body = self.form.render(event, telling, self.topic.as_deref());
        let body = body.map_err(|error| failed(None, format!("its template failed ({error})")))?;
        Ok(http.post(url).headers(self.headers.clone()).body(body))
    }

    async fn understand(&self, mut reply: Response, timeout: Duration) -> Posted {
        let status = reply.status();
        let retry_after = reply.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after
            .and_then(|value| value.trim().parse().ok())
            .map(Duration::from_secs);
        let mut answer = Vec::new();
        loop {
            match reply.chunk().await {
                Ok(Some(chunk)) if answer.len() < MAX_ANSWER => answer.extend_from_slice(&chunk),
                Ok(_) => break,
                // What cannot be read may not have been taken, unless the status is all that counts.
                Err(error) if self.answer.is_some() => return failed(Some(status), client::in_words(&error, timeout)),
                Err(_) => break,
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim().to_owned();
        let is_wanted = self.answer.as_ref().is_none_or(|wanted| *wanted == answer);
        if status.is_success() && is_wanted {
            return Posted::Taken {
                status: Some(status.as_u16()),
            };
        }
        let retry_after = retry_after.map(|pause| pause.min(LONGEST_PAUSE));
        Posted::answered(status.as_u16(), refused(status, &answer), retry_after)
    }
}

fn failed(status: Option<StatusCode>, why: String) -> Posted {
    match status {
        Some(status) => Posted::answered(status.as_u16(), why, None),
        None => Posted::failed(why),
    }
}

/// Why an endpoint has not taken an event, for an admin. Of what it says only a plain word is shown: anything else may quote
/// what it was sent.
fn refused(status: StatusCode, answer: &str) -> String {
    let is_word = (2..=40).contains(&answer.len()) && answer.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let word = if is_word { format!(" `{answer}`") } else { String::new() };
    let code = status.as_u16();
    let meaning = match code {
        200..=299 => ", which is not what a service of this kind says: check that `url` is the address of its webhook",
        300..=399 => ", a redirection, which is not followed: set `url` to where it leads",
        400 | 413 | 415 | 422 => ": it does not take what is posted",
        401 | 403 | 404 | 410 => ": the address or its token is not valid, or no longer",
        429 => ": it wants fewer messages",
        _ => "",
    };
    format!("it answered {code}{word}{meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lifecycle::EventType;
    use serde_json::Value as Json;

    fn telling() -> Telling {
        Telling {
            personal: true,
            pages: None,
            time_zone: jiff::tz::TimeZone::UTC,
        }
    }

    /// The body of a kind for an event, which must be JSON.
    fn body(kind: &str, event: &LifecycleEvent) -> Json {
        let form = Form::parse(&Kind::read(kind).unwrap().body.unwrap()).unwrap();
        serde_json::from_str(&form.render(event, &telling(), Some("alerts")).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_can_be_read_and_makes_json_of_every_event() {
        for name in Kind::names() {
            let kind = Kind::read(name).unwrap();
            assert!(!kind.events().is_empty(), "{name}");
            assert!(
                kind.events.iter().all(|word| EventType::parse(word).is_some()),
                "{name}"
            );
            let Some(body) = &kind.body else { continue };
            Form::parse(body)
                .unwrap()
                .check(Some("alerts"))
                .unwrap_or_else(|error| panic!("{name} {error}"));
        }
        assert!(Kind::read("pigeon").is_err());
    }

    #[test]
    fn each_service_gets_its_form_with_nothing_in_it_that_it_takes_for_markup() {
        let event = samples::full(EventType::AlertCreated);

        let slack = body("slack", &event);
        let text = slack["text"].as_str().unwrap();
        assert!(text.starts_with("*Critical ticket: #108749 Checkout \"500\""), "{text}");
        assert!(text.contains("&lt;!channel&gt; &amp; {{ 7 * 7 }}"), "{text}");
        assert!(text.ends_with("number=108749&amp;a=%22b%22|Open>"), "{text}");

        let mattermost = body("mattermost", &event);
        let text = mattermost["text"].as_str().unwrap();
        assert!(
            text.contains("\\*page\\* @\u{200B}all") && text.contains("\\#108749"),
            "{text}"
        );
        assert!(
            text.ends_with("[Open](https://tickets.example.com/scp/tickets.php?number=108749&a=%22b%22)"),
            "{text}"
        );

        let teams = body("teams", &event);
        let card = &teams["attachments"][0]["content"];
        assert_eq!(
            teams["attachments"][0]["contentType"],
            "application/vnd.microsoft.card.adaptive"
        );
        assert_eq!(
            (&card["type"], card["body"].as_array().unwrap().len()),
            (&"AdaptiveCard".into(), 3)
        );
        assert_eq!(card["body"][1]["inlines"][0]["text"], "2 people are being told.");
        assert_eq!(card["actions"][0]["type"], "Action.OpenUrl");
        assert_eq!(
            body("teams", &samples::bare(EventType::Test))["attachments"][0]["content"]["actions"],
            Json::Null
        );

        let ntfy = body("ntfy", &event);
        assert_eq!((&ntfy["topic"], &ntfy["priority"]), (&"alerts".into(), &4.into()));
        assert_eq!(ntfy["tags"], serde_json::json!(["warning"]));
        assert!(
            ntfy["click"]
                .as_str()
                .unwrap()
                .starts_with("https://tickets.example.com/")
        );
        assert_eq!(
            body("ntfy", &samples::bare(EventType::OptOutRemoved))["tags"],
            serde_json::json!([])
        );
    }

    #[test]
    fn without_include_personal_no_kind_posts_personal_data() {
        let telling = Telling {
            personal: false,
            ..telling()
        };
        for (name, body) in Kind::names().filter_map(|name| Some((name, Kind::read(name).unwrap().body?))) {
            let form = Form::parse(&body).unwrap();
            for event in samples::all() {
                let text = form.render(&event, &telling, Some("alerts")).unwrap();
                for secret in ["Checkout", "Grace", "Bo Client", "On my way", "4155550101"] {
                    assert!(!text.contains(secret), "{name}: {secret} is in {text}");
                }
            }
        }
    }

    #[test]
    fn a_template_that_makes_no_json_is_found_at_once() {
        let wrong = |template: &str| Form::parse(template).and_then(|form| form.check(None)).unwrap_err();

        // The first value with a quote in it would have broken this much later.
        let quoted = wrong(r#"{"summary": "{{ title }}"}"#);
        assert!(
            quoted.contains("`alert.created`") && quoted.contains("|tojson"),
            "{quoted}"
        );
        assert!(wrong(r#"{"a": {{ title "#).contains("line 1"));
        assert!(wrong(r#"{"a": {{ title|shout }}}"#).contains("shout"));
        assert!(wrong("{\"a\": 1,}").contains("makes no JSON"));

        for right in [
            r#"{"summary": {{ title }}, "text": {{ text|tojson }}, "who": {{ data.delivery.recipient.role }}}"#,
            r#"{"all": {{ data }}, "id": {{ id }}, "type": {{ type }}, "at": {{ timestamp }}, "url": {{ link }}}"#,
        ] {
            Form::parse(right).unwrap().check(None).unwrap();
        }
    }

    #[test]
    fn a_ticket_in_an_address_is_one_part_of_it() {
        let address = Address::parse("https://help.example.com/api/{ticket_id}/notes?n={ticket_number}", true).unwrap();
        let mut alert = samples::full(EventType::AlertCreated).alert.unwrap();
        assert_eq!(
            address.of(Some(&alert)).unwrap().as_str(),
            "https://help.example.com/api/3%2F4%3F5/notes?n=108749"
        );
        assert!(address.of(None).is_none());
        for outside in ["..", ".", ""] {
            alert.ticket_id = outside.into();
            assert!(address.of(Some(&alert)).is_none(), "{outside}");
        }
        alert.ticket_id = "../../admin#x".into();
        let url = address.of(Some(&alert)).unwrap();
        assert_eq!(url.path(), "/api/..%2F..%2Fadmin%23x/notes");

        for wrong in [
            "https://{ticket_id}/",
            "https://a{ticket_id}.example.com/",
            "https://u:{ticket_id}@example.com/",
            "{ticket_id}",
        ] {
            assert!(Address::parse(wrong, true).is_none(), "{wrong}");
        }
        assert!(matches!(
            Address::parse("https://x.example.com/{ticket_id}", false),
            Some(Address::Fixed(_))
        ));
        assert!(Address::parse("mailto:a@example.com", true).is_none());
    }

    #[test]
    fn an_answer_is_explained_without_what_it_quotes() {
        let of = |code: u16, answer: &str| refused(StatusCode::from_u16(code).unwrap(), answer);

        assert!(of(400, "invalid_payload").starts_with("it answered 400 `invalid_payload`: "));
        assert!(of(200, "<html>").contains("not what a service of this kind says"));
        assert!(!of(400, "no field named Grace").contains("Grace"));
        assert_eq!(of(503, ""), "it answered 503");
    }
}
