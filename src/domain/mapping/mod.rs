//! Makes an event out of a helpdesk's own document. Where each value stands is configuration; what is missing and needed is
//! named with every place that was tried. Absent: what an event means (see `event`), and how a document came.

mod rule;

pub use rule::{Miss, Rule};

use super::json::Fault;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields that an event cannot do without.
const NEEDED: [&str; 2] = ["ticket.id", "ticket.urgency"];
/// Fields of an event that are one value.
const FIELDS: [&str; 14] = [
    "id",
    "type",
    "occurred_at",
    "ticket.id",
    "ticket.number",
    "ticket.subject",
    "ticket.urgency",
    "ticket.status",
    "ticket.url",
    "ticket.group",
    "ticket.estimated_hours",
    "ticket.confidence_percent",
    "client.name",
    "client.organisation",
];
/// Fields of a person.
const PERSON: [&str; 7] = ["staff_id", "login", "email", "name", "phone", "role", "region"];
/// Where the people of a list stand; their fields are read below each of them.
const EACH: &str = "each";
/// How helpdesks write that nobody is there.
const NOBODY: [&str; 3] = ["-", "nobody", "none"];

/// How a source's documents become events.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    fields: BTreeMap<String, Vec<Rule>>,
    /// By the role that each has, unless its own `role` says otherwise.
    people: BTreeMap<String, BTreeMap<String, Vec<Rule>>>,
    /// Statuses of tickets that nobody has to work on any more, in lower case.
    closed: Vec<String>,
}

/// What a document became.
#[derive(Debug)]
pub struct Mapped {
    /// An event (product, section 2).
    pub event: Value,
    /// Every field that was found, with the rule that found it.
    pub found: Vec<(String, String)>,
    /// Every field that was not, with all that was tried.
    pub missing: Vec<(String, Vec<Miss>)>,
}

impl Mapping {
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Sets where a field stands. Fails with what is wrong, which reads on after the setting's key.
    pub fn set(&mut self, field: &str, rules: Vec<Rule>) -> Result<(), String> {
        if FIELDS.contains(&field) {
            self.fields.insert(field.to_owned(), rules);
            return Ok(());
        }
        let person = field.strip_prefix("recipients.").and_then(|rest| rest.rsplit_once('.'));
        if let Some((role, member)) = person
            && (PERSON.contains(&member) || member == EACH)
        {
            self.people
                .entry(role.to_owned())
                .or_default()
                .insert(member.to_owned(), rules);
            return Ok(());
        }
        Err(format!(
            "is no field of an event: use one of {}, or `recipients.<role>.` with one of {}, {EACH}",
            FIELDS.join(", "),
            PERSON.join(", ")
        ))
    }

    /// Sets which statuses mean that a ticket is closed.
    pub fn set_closed(&mut self, statuses: impl IntoIterator<Item = String>) {
        self.closed = statuses
            .into_iter()
            .map(|status| status.trim().to_lowercase())
            .collect();
    }

    /// Whether something needed is nowhere to be found, as the configuration stands.
    pub fn lacks(&self) -> impl Iterator<Item = &'static str> {
        NEEDED.into_iter().filter(|field| !self.fields.contains_key(*field))
    }

    /// Reads a document. The urgency is the helpdesk's own word still.
    pub fn apply(&self, document: &Value) -> Mapped {
        let mut mapped = Mapped {
            event: json!({}),
            found: Vec::new(),
            missing: Vec::new(),
        };
        for (field, rules) in &self.fields {
            if let Some(text) = mapped.find(field, rules, document) {
                self.put(&mut mapped.event, field, text);
            }
        }
        let mut recipients = Vec::new();
        for (role, members) in &self.people {
            let people = match members.get(EACH) {
                None => vec![document],
                Some(rules) => rules
                    .iter()
                    .map(|rule| rule.items(document))
                    .find(|items| !items.is_empty())
                    .unwrap_or_default(),
            };
            for person in people {
                recipients.extend(mapped.person(role, members, person));
            }
        }
        if !recipients.is_empty() {
            mapped.event["recipients"] = recipients.into();
        }
        mapped
    }

    /// Writes a value where it belongs in an event, as what it is there. What an event can do without and cannot be read is
    /// left out: a ticket must not be missed for a link.
    fn put(&self, event: &mut Value, field: &str, text: String) {
        match field {
            "occurred_at" => event["occurred_at"] = read_time(&text).unwrap_or(text).into(),
            "ticket.status" => {
                if self.closed.contains(&text.to_lowercase()) {
                    event["type"] = "ticket.closed".into();
                }
            }
            // What the status says goes before the helpdesk's own word for what has happened.
            "type" if event["type"].is_string() => {}
            "ticket.estimated_hours" => event["ticket"]["estimated_hours"] = number(&text),
            "ticket.confidence_percent" => event["ticket"]["ai"] = json!({ "confidence_percent": number(&text) }),
            "ticket.url" => event["ticket"]["url"] = read_url(&text).into(),
            _ => match field.split_once('.') {
                Some((object, member)) => event[object][member] = text.into(),
                None => event[field] = text.into(),
            },
        }
    }
}

impl Mapped {
    fn find(&mut self, field: &str, rules: &[Rule], document: &Value) -> Option<String> {
        let mut misses = Vec::new();
        for rule in rules {
            match rule.text(document) {
                Ok(text) => {
                    self.found.push((field.to_owned(), rule.text.clone()));
                    return Some(text);
                }
                Err(miss) => misses.push(miss),
            }
        }
        self.missing.push((field.to_owned(), misses));
        None
    }

    /// A person, if anybody is named.
    fn person(&mut self, role: &str, members: &BTreeMap<String, Vec<Rule>>, document: &Value) -> Option<Value> {
        let mut person = Map::new();
        for (member, rules) in members.iter().filter(|(member, _)| *member != EACH) {
            let found = self.find(&format!("recipients.{role}.{member}"), rules, document);
            if let Some(text) = found.filter(|text| !NOBODY.contains(&text.to_lowercase().as_str())) {
                person.insert(member.clone(), text.into());
            }
        }
        // An id alone may be that of nobody, as Zammad's 1; it takes more to be a person where more was asked for.
        let is_named = person
            .keys()
            .any(|member| !matches!(member.as_str(), "staff_id" | "role" | "region"));
        let only_ids = members
            .keys()
            .all(|member| matches!(member.as_str(), "staff_id" | "role" | "region" | EACH));
        if !(is_named || only_ids && person.contains_key("staff_id")) {
            return None;
        }
        person.entry("role").or_insert_with(|| role.into());
        Some(person.into())
    }

    /// What is needed and was not found: where it was looked for, and what stands there.
    pub fn faults(&self) -> Vec<Fault> {
        let is_over = self.event["type"] == "ticket.closed";
        let needed = |field: &str| match field {
            "ticket.urgency" => !is_over,
            other => NEEDED.contains(&other),
        };
        let missing = self.missing.iter().filter(|(field, _)| needed(field));
        missing.map(|(field, misses)| fault(field, misses)).collect()
    }

    /// Why a field of the event is not there, if a rule was to find it.
    pub fn explain(&self, field: &str) -> Option<Fault> {
        let missing = self.missing.iter().find(|(missing, _)| missing == field);
        missing.map(|(field, misses)| fault(field, misses))
    }
}

fn fault(field: &str, misses: &[Miss]) -> Fault {
    let tried: Vec<String> = misses
        .iter()
        .map(|miss| format!("{} at `{}`", miss.found, miss.place))
        .collect();
    Fault {
        pointer: misses.first().map(|miss| miss.place.clone()).unwrap_or_default(),
        detail: format!(
            "`{field}` is mapped from here and was not found: there is {}; correct `map.{field}` of this source, or what the helpdesk sends",
            tried.join(", ")
        ),
    }
}

/// A number, from JSON or text; anything else is left out.
fn number(text: &str) -> Value {
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// A link; helpdesks leave out the scheme (Zendesk's `ticket.url` does). `None` where it is none.
fn read_url(text: &str) -> Option<String> {
    let is_web =
        |text: &str| url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if is_web(text) {
        return Some(text.to_owned());
    }
    let with_scheme = format!("https://{text}");
    let host = text.split('/').next().unwrap_or_default();
    (host.contains('.') && !text.contains([':', ' ']) && is_web(&with_scheme)).then_some(with_scheme)
}

/// Times that are not written by RFC 3339: seconds or milliseconds since 1970 (Jira), and local notations, which are taken
/// for UTC (Roundup's has a dot between day and time). `None` where it is none of these.
fn read_time(text: &str) -> Option<String> {
    let at = if let Ok(number) = text.parse::<i64>() {
        // Milliseconds since 1973, or seconds until 5138.
        if number.unsigned_abs() >= 100_000_000_000 {
            Timestamp::from_millisecond(number).ok()
        } else {
            Timestamp::from_second(number).ok()
        }
    } else {
        let formats = ["%Y-%m-%d.%H:%M:%S", "%Y-%m-%d %H:%M:%S"];
        let read = |format: &&str| DateTime::strptime(format, text).ok();
        let local = formats.iter().find_map(read)?;
        local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    at.map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(rules: &[(&str, &[&str])]) -> Mapping {
        let mut mapping = Mapping::default();
        for (field, rules) in rules {
            let rules = rules
                .iter()
                .map(|rule| Rule::parse(rule, Some("https://h.example")).unwrap());
            mapping.set(field, rules.collect()).unwrap();
        }
        mapping
    }

    #[test]
    fn a_document_becomes_an_event() {
        let mut mapping = mapping(&[
            ("ticket.id", &["/t/id"]),
            ("ticket.urgency", &["/t/prio"]),
            ("ticket.status", &["/t/status"]),
            ("ticket.url", &["{base_url}/t/{/t/id}"]),
            ("ticket.estimated_hours", &["/t/hours"]),
            ("ticket.confidence_percent", &["/t/sure"]),
            ("client.organisation", &["/t/org", "{/t/first} {/t/last}"]),
            ("occurred_at", &["/at"]),
            ("recipients.assignee.phone", &["/t/owner/mobile", "/t/owner/phone"]),
            ("recipients.assignee.name", &["/t/owner/name"]),
            ("recipients.manager.each", &["/managers"]),
            ("recipients.manager.login", &["/id"]),
        ]);
        mapping.set_closed(["Solved".to_owned()]);
        let document = json!({"at": 1_763_630_678_123_i64, "t": {"id": 7, "prio": "3 high", "status": "open", "hours": "4.5", "sure": 93, "first": "Bo", "last": "Client",
            "owner": {"name": "Grace", "mobile": "", "phone": "+14155550101"}}, "managers": [{"id": "mona"}, {"id": "-"}, {"x": 1}]});

        let mapped = mapping.apply(&document);

        assert_eq!(
            mapped.event,
            json!({"occurred_at": "2025-11-20T09:24:38.123Z",
                "ticket": {"id": "7", "urgency": "3 high", "url": "https://h.example/t/7", "estimated_hours": 4.5, "ai": {"confidence_percent": 93.0}},
                "client": {"organisation": "Bo Client"},
                "recipients": [{"name": "Grace", "phone": "+14155550101", "role": "assignee"}, {"login": "mona", "role": "manager"}]})
        );
        assert!(mapped.faults().is_empty());
        let closed = json!({"t": {"id": 7, "prio": "3 high", "status": "solved"}});
        assert_eq!(mapping.apply(&closed).event["type"], "ticket.closed");
    }

    #[test]
    fn what_is_needed_and_missing_is_named_with_all_that_was_tried() {
        let mapping = mapping(&[("ticket.id", &["/id", "$.ticket.id"]), ("ticket.urgency", &["/prio"])]);

        let mapped = mapping.apply(&json!({"id": {"x": 1}, "ticket": {}, "prio": null}));

        let faults = mapped.faults();
        assert_eq!(faults.len(), 2);
        assert_eq!(faults[0].pointer, "/id");
        assert!(
            faults[0].detail.contains("`ticket.id`")
                && faults[0]
                    .detail
                    .contains("an object at `/id`, nothing at `$.ticket.id`"),
            "{}",
            faults[0].detail
        );
        assert!(faults[1].detail.contains("`null` at `/prio`"), "{}", faults[1].detail);
    }

    #[test]
    fn nobody_is_no_person() {
        let mapping = mapping(&[
            ("recipients.assignee.staff_id", &["/owner/id"]),
            ("recipients.assignee.login", &["/owner/login"]),
        ]);

        for (document, count) in [
            (json!({"owner": {"id": 1, "login": "-"}}), 0),
            (json!({"owner": {"id": 6, "login": "Nobody"}}), 0),
            (json!({"owner": null}), 0),
            (json!({"owner": {"id": 3, "login": "grace"}}), 1),
        ] {
            let event = mapping.apply(&document).event;
            assert_eq!(event["recipients"].as_array().map_or(0, Vec::len), count, "{document}");
        }
    }

    #[test]
    fn times_and_links_are_read_in_the_ways_that_helpdesks_write_them() {
        for (text, read) in [
            ("1763630678", Some("2025-11-20T09:24:38Z")),
            ("1763630678123", Some("2025-11-20T09:24:38.123Z")),
            ("2026-11-20.09:34:55", Some("2026-11-20T09:34:55Z")),
            ("2026-11-20 09:34:55", Some("2026-11-20T09:34:55Z")),
            ("February 3, 2025", None),
            ("2014-02-26T14:57:13.139-0500", None),
        ] {
            assert_eq!(read_time(text).as_deref(), read, "{text}");
        }
        for (text, read) in [
            ("https://a.example/1", Some("https://a.example/1")),
            (
                "acme.zendesk.com/agent/tickets/7",
                Some("https://acme.zendesk.com/agent/tickets/7"),
            ),
            ("javascript:alert(1)", None),
            ("see the ticket", None),
        ] {
            assert_eq!(read_url(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn a_field_that_no_event_has_is_refused() {
        let error = Mapping::default().set("ticket.color", Vec::new()).unwrap_err();
        assert!(
            error.contains("ticket.subject") && error.contains("recipients.<role>."),
            "{error}"
        );
        assert!(Mapping::default().set("recipients.assignee.shoe", Vec::new()).is_err());
    }
}
