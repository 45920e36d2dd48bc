//! What a helpdesk says about a ticket: read once, as it comes in, every bad field named. Absent: mappings of particular
//! helpdesks, and whether the ticket is known already (the store knows).

use super::{
    json::{Fault, Reader},
    phone::{PhoneNumber, Region},
    text::clean_line,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The source of events that name none.
pub const DEFAULT_SOURCE: &str = "default";
const MAX_RECIPIENTS: usize = 100;
const MAX_ID: usize = 200;
const MAX_LINE: usize = 1_000;
const MAX_NAME: usize = 200;
/// Browsers and Twilio's link handling stop about here; a longer "link" is a mistake.
const MAX_URL: usize = 2_000;
/// An event older than this is a helpdesk with a wrong clock.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(366 * 24);
/// A time zone taken for another moves a time by at most 14 hours.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// What a source says about a ticket, once.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: Option<String>,
    pub source: String,
    pub kind: Option<String>,
    pub meaning: Meaning,
    /// When it happened; the arrival time where the event says nothing usable.
    pub occurred_at: Timestamp,
    /// Whether the event says when it happened.
    pub is_dated: bool,
    pub ticket: Ticket,
    pub client: Client,
    pub recipients: Vec<Recipient>,
}

/// What an event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The ticket is critical: tell people.
    Critical,
    /// The ticket is resolved, closed or lowered: an alert of it is over.
    Over,
    /// The urgency is a known one below critical: an alert of it is over, and without one there is nothing to do.
    Lower,
    /// The urgency is none that Nightbell knows.
    UnknownUrgency(String),
}

#[derive(Clone, Debug)]
pub struct Ticket {
    pub id: String,
    pub number: Option<String>,
    pub subject: String,
    pub url: Option<String>,
    pub estimated_hours: Option<f64>,
    pub confidence_percent: Option<f64>,
    /// The queue, department, team or group that the ticket is in: its managers stand in the staff directory.
    pub group: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Client {
    pub name: Option<String>,
    pub organisation: Option<String>,
}

/// A person to be told, as the source names them. The phone is not judged yet: an unusable one gets a visible delivery.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Recipient {
    pub staff_id: Option<String>,
    pub login: Option<String>,
    pub email: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    pub phone: Option<String>,
    pub region: Option<Region>,
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // People are never printed, not even by accident.
        out.debug_struct("Recipient")
            .field("staff_id", &self.staff_id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Recipient {
    /// Reads the phone, once. `region` is the source's, for numbers that bring none of their own. Fails with the text that
    /// cannot be read as a number, if any was given.
    pub fn read_phone(&self, region: Region) -> Result<PhoneNumber, Option<String>> {
        let Some(raw) = self.phone.as_deref().map(str::trim).filter(|raw| !raw.is_empty()) else {
            return Err(None);
        };
        PhoneNumber::parse(raw, self.region.unwrap_or(region)).ok_or_else(|| Some(clean_line(raw, 40)))
    }
}

/// Reads one event that came at `received_at`. Returns every fault at once; nothing is guessed but the time.
pub fn parse(document: &Value, received_at: Timestamp) -> Result<Event, Vec<Fault>> {
    let root = Reader::root(document);
    let mut faults = Vec::new();
    if !document.is_object() {
        root.expect_object(&mut faults);
        return Err(faults);
    }
    let kind = line(&root.member("type"), &mut faults, MAX_NAME);
    let source = line(&root.member("source"), &mut faults, MAX_ID).unwrap_or_else(|| DEFAULT_SOURCE.to_owned());
    let ticket = root.member("ticket");
    ticket.expect_object(&mut faults);
    let meaning = read_meaning(&ticket, kind.as_deref(), &mut faults);
    let said_at = read_time(root.member("occurred_at").text(&mut Vec::new()), received_at);
    let event = Event {
        id: id(&root.member("id"), &mut faults),
        occurred_at: said_at.unwrap_or(received_at),
        is_dated: said_at.is_some(),
        ticket: read_ticket(&ticket, meaning.as_ref(), &mut faults),
        client: read_client(&root.member("client"), &mut faults),
        recipients: root
            .member("recipients")
            .items(&mut faults, MAX_RECIPIENTS)
            .iter()
            .map(|item| read_recipient(item, &mut faults))
            .collect(),
        source,
        kind,
        meaning: meaning.unwrap_or(Meaning::Lower),
    };
    if faults.is_empty() { Ok(event) } else { Err(faults) }
}

/// What the type and the urgency together ask for; `None` where the urgency is missing or unreadable.
fn read_meaning(ticket: &Reader<'_>, kind: Option<&str>, faults: &mut Vec<Fault>) -> Option<Meaning> {
    let urgency = ticket.member("urgency");
    let word = urgency.text(faults);
    if let Some("ticket.resolved" | "ticket.closed" | "ticket.urgency_lowered") = kind {
        return Some(Meaning::Over);
    }
    let is_blank = word.is_some_and(|word| word.trim().is_empty());
    if !urgency.is_present() || is_blank {
        urgency.fault(faults, "this is missing: send `critical`, `high`, `normal` or `low`");
    }
    let word = clean_line(word.filter(|_| !is_blank)?, MAX_NAME);
    Some(match word.to_ascii_lowercase().as_str() {
        "critical" => Meaning::Critical,
        "high" | "medium" | "normal" | "low" => Meaning::Lower,
        _ => Meaning::UnknownUrgency(word),
    })
}

fn read_ticket(ticket: &Reader<'_>, meaning: Option<&Meaning>, faults: &mut Vec<Fault>) -> Ticket {
    let ticket_id = ticket.member("id");
    let before = faults.len();
    let known_id = id(&ticket_id, faults);
    if known_id.is_none() && faults.len() == before {
        ticket_id.fault(faults, "this is missing: send the helpdesk's own id of the ticket");
    }

    let subject = ticket.member("subject");
    if !subject.is_present() && meaning == Some(&Meaning::Critical) {
        subject.fault(faults, "this is missing: a critical event needs the ticket's subject");
    }

    let ai = ticket.member("ai");
    ai.expect_object(faults);
    Ticket {
        id: known_id.unwrap_or_default(),
        number: id(&ticket.member("number"), faults),
        subject: line(&subject, faults, MAX_LINE).unwrap_or_default(),
        url: read_url(&ticket.member("url"), faults),
        estimated_hours: ticket.member("estimated_hours").number(faults, 100_000.0),
        confidence_percent: ai.member("confidence_percent").number(faults, 100.0),
        group: line(&ticket.member("group"), faults, MAX_NAME),
    }
}

fn read_url(place: &Reader<'_>, faults: &mut Vec<Fault>) -> Option<String> {
    let raw = place.text(faults)?.trim();
    if raw.is_empty() {
        return None;
    }
    let is_web = url::Url::parse(raw).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_web || raw.chars().any(char::is_control) {
        let detail = "this is no web address: send one that begins with `https://` or `http://`";
        place.fault(faults, detail);
        return None;
    }
    at_most(MAX_URL, raw.to_owned(), place, faults)
}

fn read_client(client: &Reader<'_>, faults: &mut Vec<Fault>) -> Client {
    client.expect_object(faults);
    Client {
        name: line(&client.member("name"), faults, MAX_NAME),
        organisation: line(&client.member("organisation"), faults, MAX_NAME),
    }
}

fn read_recipient(recipient: &Reader<'_>, faults: &mut Vec<Fault>) -> Recipient {
    recipient.expect_object(faults);
    Recipient {
        staff_id: id(&recipient.member("staff_id"), faults),
        login: line(&recipient.member("login"), faults, MAX_NAME),
        email: line(&recipient.member("email"), faults, MAX_NAME),
        role: line(&recipient.member("role"), faults, MAX_NAME),
        name: line(&recipient.member("name"), faults, MAX_NAME),
        // As it is: the reader of numbers cleans it by its own rules, and a number that was cut would be another one.
        phone: recipient.member("phone").text(faults).map(str::to_owned),
        // A region nobody knows must not cost an alert: most numbers bring their country code. The others are not read by
        // some other region.
        region: line(&recipient.member("region"), faults, MAX_NAME)
            .map(|name| Region::parse(&name).unwrap_or(Region::UNKNOWN)),
    }
}

/// A cleaned line; blank counts as absent.
fn line(place: &Reader<'_>, faults: &mut Vec<Fault>, max: usize) -> Option<String> {
    Some(clean_line(place.text(faults)?, max)).filter(|line| !line.is_empty())
}

/// A cleaned id; blank counts as absent. A long one is refused, not cut: two tickets must not become one.
pub fn id(place: &Reader<'_>, faults: &mut Vec<Fault>) -> Option<String> {
    let id = clean_line(&place.id(faults)?, usize::MAX);
    at_most(MAX_ID, id, place, faults).filter(|id| !id.is_empty())
}

/// A text that must not be cut.
fn at_most(max: usize, text: String, place: &Reader<'_>, faults: &mut Vec<Fault>) -> Option<String> {
    let count = text.chars().count();
    if count > max {
        place.fault(faults, format!("this has {count} characters: send at most {max}"));
        return None;
    }
    Some(text)
}

/// Reads RFC 3339, with or without a colon in the offset. `None` if it cannot be read or is absurd.
fn read_time(raw: Option<&str>, received_at: Timestamp) -> Option<Timestamp> {
    let raw = raw?.trim();
    let without_colon = |_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", raw);
    let at = raw.parse::<Timestamp>().or_else(without_colon).ok()?;
    let age = received_at.duration_since(at);
    (-MAX_AHEAD..=MAX_AGE).contains(&age).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-20T09:30:00Z".parse().unwrap()
    }

    fn pointers(document: Value) -> Vec<String> {
        parse(&document, now())
            .unwrap_err()
            .into_iter()
            .map(|fault| fault.pointer)
            .collect()
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let document = json!({"type": 5, "ticket": {"id": true, "subject": ["x"], "urgency": "critical", "url": "javascript:alert(1)",
            "estimated_hours": "many", "ai": {"confidence_percent": 150}}, "client": "Bo", "recipients": [{"phone": "+14155550101"}, {"phone": 7}]});

        assert_eq!(
            pointers(document),
            [
                "/type",
                "/ticket/id",
                "/ticket/subject",
                "/ticket/url",
                "/ticket/estimated_hours",
                "/ticket/ai/confidence_percent",
                "/client",
                "/recipients/1/phone"
            ]
        );
    }

    #[test]
    fn what_is_required_depends_on_what_is_said() {
        assert_eq!(pointers(json!({})), ["/ticket/urgency", "/ticket/id"]);
        assert_eq!(
            pointers(json!({"ticket": {"urgency": "critical"}})),
            ["/ticket/id", "/ticket/subject"]
        );
        assert_eq!(pointers(json!([])), [""]);
        for (document, meaning) in [
            (json!({"type": "ticket.closed", "ticket": {"id": 3}}), Meaning::Over),
            (json!({"ticket": {"id": 3, "urgency": "low"}}), Meaning::Lower),
            (
                json!({"ticket": {"id": 3, "urgency": "Purple"}}),
                Meaning::UnknownUrgency("Purple".into()),
            ),
        ] {
            assert_eq!(parse(&document, now()).unwrap().meaning, meaning, "{document}");
        }
    }

    #[test]
    fn a_time_that_is_absurd_or_unreadable_becomes_the_arrival_time() {
        for raw in [
            "1970-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "yesterday",
            "",
            "2026-13-45T00:00:00Z",
        ] {
            assert_eq!(read_time(Some(raw), now()), None, "{raw}");
            let document = json!({"occurred_at": raw, "ticket": {"id": 1, "urgency": "low"}});
            let event = parse(&document, now()).unwrap();
            assert_eq!((event.occurred_at, event.is_dated), (now(), false), "{raw}");
        }
        for raw in [
            "2026-11-20T09:24:38Z",
            "2026-11-20T10:24:38+01:00",
            "2026-11-20T05:24:38.000-0400",
            "2026-11-20T09:24:38.000000000Z",
        ] {
            let then: Timestamp = "2026-11-20T09:24:38Z".parse().unwrap();
            assert_eq!(read_time(Some(raw), now()), Some(then), "{raw}");
        }
    }

    #[test]
    fn too_many_recipients_are_refused() {
        let people: Vec<Value> = (0..500).map(|_| json!({"phone": "+14155550101"})).collect();

        assert_eq!(
            pointers(json!({"ticket": {"id": 1, "subject": "x", "urgency": "critical"}, "recipients": people})),
            ["/recipients"]
        );
    }

    #[test]
    fn a_url_must_lead_to_the_web() {
        let url = |raw: &str| {
            let document = json!({"ticket": {"id": 1, "subject": "x", "urgency": "critical", "url": raw}});
            parse(&document, now()).map(|event| event.ticket.url)
        };

        let good = "https://tickets.example.com/1";
        assert_eq!(url(good).unwrap().as_deref(), Some(good));
        for raw in [
            "javascript:alert(1)",
            "file:///etc/passwd",
            "data:text/html,x",
            "tickets.example.com",
            "https://",
            "https://a/\u{7}",
        ] {
            assert!(url(raw).is_err(), "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_document_makes_the_reader_panic(body in "[\\[\\]{}:,\"a-z0-9 .-]{0,200}") {
            if let Ok(document) = crate::domain::json::parse(body.as_bytes()) {
                let _ = parse(&document, now());
            }
        }
    }
}
