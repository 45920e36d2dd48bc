//! What an admin sets of an endpoint that is no plain webhook, beside what all endpoints have:
//! `webhooks.<name>.template`, `.headers`, `.content_type`, `.topic`, `.token`, `.to`. Absent: what each kind takes (see `kind`).

use super::kind::{Address, Form, Kind, Need, Posting, Way};
use crate::{config::Reader, domain::lifecycle::EventTypes};
use lettre::message::Mailboxes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// What an endpoint of such a kind needs.
#[derive(Clone)]
pub struct KindSettings {
    /// What is posted where nothing else is configured.
    pub events: EventTypes,
    pub to: Destination,
}

/// Where its events go.
#[derive(Clone)]
pub enum Destination {
    Post(Box<Posting>),
    /// To these people; `None`: to whom all mails go.
    Mail(Option<Mailboxes>),
}

/// Reads the settings of one kind, by the need that its data says.
struct Settings<'a> {
    reader: &'a mut Reader,
    name: &'a str,
    kind: &'a Kind,
}

impl KindSettings {
    /// Reads what belongs to the kind. `url`: as it is set, if it is. `None` if something is wrong, which is said.
    pub fn read(reader: &mut Reader, name: &str, kind_name: &str, url: Option<&SecretString>) -> Option<Self> {
        let kind = Kind::read(kind_name);
        let kind = kind
            .inspect_err(|problem| reader.fault(&format!("webhooks.{name}.kind"), problem))
            .ok()?;
        let mut settings = Settings {
            reader,
            name,
            kind: &kind,
        };
        let to = match kind.way {
            Way::Http => settings
                .posting(kind_name, url)
                .map(|posting| Destination::Post(Box::new(posting))),
            Way::Mail => settings.mail(),
        };
        Some(Self {
            events: kind.events(),
            to: to?,
        })
    }
}

impl Settings<'_> {
    fn key(&self, member: &str) -> String {
        format!("webhooks.{}.{member}", self.name)
    }

    /// Whether the kind has such a setting. One that it has not is left to be said as unknown.
    fn has(&self, member: &str) -> bool {
        self.kind.settings.contains_key(member)
    }

    /// Says that a setting is missing without which the kind cannot be.
    fn miss(&mut self, member: &str, remedy: &str) {
        let key = self.key(member);
        let is_required = self.kind.settings.get(member) == Some(&Need::Required);
        if is_required && !self.reader.has_fault(&key) && !self.reader.has_fault(&format!("{key}_file")) {
            self.reader.fault_secret(&key, &format!("is not set: {remedy}"));
        }
    }

    /// All of them are read, so that all that is wrong is said at once.
    fn posting(&mut self, kind_name: &str, url: Option<&SecretString>) -> Option<Posting> {
        let address = self.address(kind_name, url);
        let topic = self.topic();
        let form = self.form(topic.as_deref());
        let headers = self.headers();
        if self.has("topic") && topic.is_none() {
            return None;
        }
        Some(Posting {
            address: address?,
            form: form?,
            headers: headers?,
            answer: self.kind.answer.clone(),
            topic,
        })
    }

    fn address(&mut self, kind_name: &str, url: Option<&SecretString>) -> Option<Address> {
        let key = self.key("url");
        let Some(url) = url else {
            if !self.reader.has_fault(&key) && !self.reader.has_fault(&format!("{key}_file")) {
                let problem = format!(
                    "is not set: set it to the address to which events are posted, as `{kind_name}` has given it"
                );
                self.reader.fault_secret(&key, &problem);
            }
            return None;
        };
        let address = Address::parse(url.expose_secret(), self.kind.fills_address);
        let Some(address) = address else {
            let holes = match self.kind.fills_address {
                true => "; `{ticket_id}` and `{ticket_number}` may stand behind the host",
                false => "",
            };
            let problem = format!("is no web address: write it like `https://example.com/hooks/abc`{holes}");
            self.reader.fault_secret(&key, &problem);
            return None;
        };
        // ntfy takes JSON at its root only; below, it would show the JSON itself.
        if self.has("topic") && matches!(&address, Address::Fixed(url) if url.path() != "/") {
            self.reader.fault_secret(
                &key,
                "names more than the server: write it like `https://ntfy.sh/`, and the topic as `topic`",
            );
            return None;
        }
        Some(address)
    }

    fn topic(&mut self) -> Option<String> {
        if !self.has("topic") {
            return None;
        }
        let key = self.key("topic");
        let wanted = "a topic: up to 64 letters, digits, `-` and `_`";
        let topic = self.reader.optional(&key, wanted, |text| {
            let is_topic = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            is_topic.then(|| text.to_owned())
        });
        if topic.is_none() {
            self.miss("topic", "set it to the topic that the phones subscribe to");
        }
        topic
    }

    /// The template, its own or the kind's; tried on an event of every type.
    fn form(&mut self, topic: Option<&str>) -> Option<Form> {
        if let Some(body) = &self.kind.body {
            return Form::parse(body).ok();
        }
        let key = self.key("template");
        let Some(template) = self.reader.secret(&key) else {
            self.miss(
                "template",
                "write the JSON to post, like `{\"text\": {{ title|tojson }}}`, or the path of a file that holds it",
            );
            return None;
        };
        let template = template.expose_secret();
        let template = match template.starts_with(['{', '[']) {
            true => Ok(template.to_owned()),
            false => std::fs::read_to_string(template),
        };
        let form = match template {
            Err(error) => Err(format!(
                "is neither JSON, which begins with `{{` or `[`, nor the path of a file that can be read ({error})"
            )),
            Ok(template) => Form::parse(&template)
                .map_err(|problem| format!("cannot be read ({problem})"))
                .and_then(|form| form.check(topic).map(|()| form)),
        };
        form.inspect_err(|problem| self.reader.fault_secret(&key, problem)).ok()
    }

    fn headers(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let content_type = self.content_type()?;
        headers.insert(CONTENT_TYPE, content_type);
        let mut is_good = true;
        for (key, header) in self.own_headers() {
            let Some(value) = self.reader.secret(&key) else {
                continue;
            };
            let name = HeaderName::from_bytes(header.as_bytes()).ok();
            let name = name.filter(|name| {
                !matches!(
                    name.as_str(),
                    "content-type" | "content-length" | "host" | "transfer-encoding"
                )
            });
            match (name, secret_value(value.expose_secret())) {
                (Some(name), Some(value)) => drop(headers.insert(name, value)),
                (None, _) => {
                    is_good = false;
                    self.reader.fault_secret(
                        &key,
                        "is not a header that can be set: for the type of what is posted there is `content_type`",
                    );
                }
                (_, None) => {
                    is_good = false;
                    self.reader.fault_secret(
                        &key,
                        "has a character that no header has: write it on one line, in plain letters",
                    );
                }
            }
        }
        if self.has("token") {
            let key = self.key("token");
            if let Some(token) = self.reader.secret(&key) {
                match secret_value(&format!("Bearer {}", token.expose_secret())) {
                    Some(token) => drop(headers.insert(AUTHORIZATION, token)),
                    None => {
                        is_good = false;
                        self.reader
                            .fault_secret(&key, "has a character that no token has: copy it again");
                    }
                }
            }
        }
        is_good.then_some(headers)
    }

    /// The keys of the admin's own headers, each with its header's name. A value may stand in a file.
    fn own_headers(&mut self) -> Vec<(String, String)> {
        if !self.has("headers") {
            return Vec::new();
        }
        let below = self.key("headers");
        let names = self.reader.names_below(&below);
        let mut headers: Vec<String> = names
            .iter()
            .map(|name| name.strip_suffix("_file").unwrap_or(name).to_owned())
            .collect();
        headers.dedup();
        headers
            .into_iter()
            .map(|header| (format!("{below}.{header}"), header))
            .collect()
    }

    fn content_type(&mut self) -> Option<HeaderValue> {
        let default = self
            .kind
            .content_type
            .clone()
            .unwrap_or_else(|| "application/json".to_owned());
        let text = match self.has("content_type") {
            true => self.reader.parsed_with(
                &self.key("content_type"),
                &default,
                "a type of JSON like `application/json`",
                |text| {
                    let kind = text.split(';').next().unwrap_or_default().trim();
                    let is_json =
                        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
                    (is_json && HeaderValue::from_str(text).is_ok()).then(|| text.to_owned())
                },
            ),
            false => default,
        };
        HeaderValue::from_str(&text).ok()
    }

    fn mail(&mut self) -> Option<Destination> {
        let key = self.key("to");
        let text = self.reader.joined(&key);
        let read = |text: String| {
            text.parse::<Mailboxes>()
                .ok()
                .filter(|list| list.iter().next().is_some())
        };
        let to = text.map(read);
        if to == Some(None) {
            let problem = "is not a mail address: write it like `duty@example.com` or `Duty <duty@example.com>`, several with commas between";
            self.reader.fault(&key, problem);
            return None;
        }
        Some(Destination::Mail(to.flatten()))
    }
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text.trim()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of an endpoint `x`, and the settings at fault.
    fn read(kind: &str, url: Option<&str>, settings: &[(&str, &str)]) -> (Option<KindSettings>, Vec<String>) {
        let settings: Vec<(String, &str)> = settings
            .iter()
            .map(|(name, value)| (format!("WEBHOOKS__X__{name}"), *value))
            .collect();
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut reader = Reader::with(&settings);
        let url = url.map(|url| SecretString::from(url.to_owned()));
        let read = KindSettings::read(&mut reader, "x", kind, url.as_ref());
        (read, reader.fault_keys())
    }

    fn posting(kind: &str, url: &str, settings: &[(&str, &str)]) -> Posting {
        let (read, faults) = read(kind, Some(url), settings);
        assert_eq!(faults, [""; 0]);
        match read.unwrap().to {
            Destination::Post(posting) => *posting,
            Destination::Mail(_) => panic!("it is posted"),
        }
    }

    #[test]
    fn an_address_is_all_that_most_kinds_need() {
        for kind in ["slack", "mattermost", "teams"] {
            let posting = posting(kind, "https://hooks.example.com/T0/B0/secret", &[]);
            assert_eq!(posting.headers[CONTENT_TYPE], "application/json", "{kind}");
        }
        let ntfy = posting(
            "ntfy",
            "https://ntfy.sh",
            &[("TOPIC", "night-bell_1"), ("TOKEN", "tk_secret")],
        );
        assert_eq!(
            (ntfy.topic.as_deref(), &ntfy.headers[AUTHORIZATION]),
            (Some("night-bell_1"), &HeaderValue::from_static("Bearer tk_secret"))
        );
        assert!(ntfy.headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let faults = |kind, url, settings: &[(&str, &str)]| read(kind, url, settings).1;
        let key = |member: &str| format!("webhooks.x.{member}");

        assert_eq!(faults("slack", None, &[]), [key("url")]);
        assert_eq!(faults("slack", Some("hooks.example.com"), &[]), [key("url")]);
        assert_eq!(
            faults("ntfy", Some("https://ntfy.sh/alerts"), &[]),
            [key("url"), key("topic")]
        );
        assert_eq!(
            faults("ntfy", Some("https://ntfy.sh/"), &[("TOPIC", "a b")]),
            [key("topic")]
        );
        assert_eq!(faults("json", None, &[]), [key("url"), key("template")]);
        assert_eq!(faults("pigeon", None, &[]), [key("kind")]);
        assert_eq!(faults("mail", None, &[("TO", "nobody")]), [key("to")]);
        let wrong = [
            ("TEMPLATE", "{\"a\": \"{{ title }}\"}"),
            ("CONTENT_TYPE", "text/plain"),
            ("HEADERS__HOST", "example.com"),
            ("TOKEN", "a\nb"),
        ];
        let mut found = faults("json", Some("https://{ticket_id}.example.com"), &wrong);
        found.sort();
        assert_eq!(
            found,
            ["content_type", "headers.host", "template", "token", "url"].map(key)
        );
    }

    #[test]
    fn a_template_is_written_in_place_or_in_a_file() {
        let template = "{\"a\": {{ title|tojson }}}";
        let path = std::env::temp_dir().join(format!("nightbell-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&path, template).unwrap();
        let url = "https://help.example.com/{ticket_id}";
        for settings in [
            ("TEMPLATE", template),
            ("TEMPLATE", path.to_str().unwrap()),
            ("TEMPLATE_FILE", path.to_str().unwrap()),
        ] {
            let own = [
                settings,
                ("HEADERS__X_KEY", "hush"),
                ("CONTENT_TYPE", "application/vnd.api+json; charset=utf-8"),
            ];
            let posting = posting("json", url, &own);
            assert!(posting.headers["x_key"].is_sensitive());
            assert!(matches!(posting.address, Address::Filled(_)));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            read("json", Some(url), &[("TEMPLATE", path.to_str().unwrap())]).1,
            ["webhooks.x.template"]
        );
    }

    #[test]
    fn mails_go_to_several_or_to_whom_all_go() {
        let to = |settings: &[(&str, &str)]| match read("mail", None, settings).0.unwrap().to {
            Destination::Mail(to) => to.map(|to| to.iter().count()),
            Destination::Post(_) => panic!("it is mailed"),
        };
        assert_eq!(to(&[]), None);
        assert_eq!(to(&[("TO", "Duty <duty@example.com>, boss@example.com")]), Some(2));
    }
}
