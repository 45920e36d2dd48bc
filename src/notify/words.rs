//! An event in words, for people who read a team's channel or their mail. Pure: what is told beside the event is given.
//! Absent: how a service wants it (see `kinds/`), and the words of a note on a ticket (see `note`).

use crate::domain::{
    alarm::AlarmKind,
    delivery::State,
    lifecycle::{AlertFacts, DeliveryFacts, EventType, LifecycleEvent, MessageFacts},
    phone,
    text::{clean_line, clean_text, truncate},
    timeline::state_in_words,
    words::words,
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// Of a title.
const MAX_TITLE: usize = 150;
/// Of a text, in bytes: ntfy takes messages of up to 4,096 (docs.ntfy.sh/publish, "Limitations"), and no other service less.
const MAX_TEXT: usize = 3_500;
/// Of the people of one alert.
const MAX_PEOPLE: usize = 20;

words! {
    /// How urgent it is to people who did not ask.
    Priority { Low = "low", Normal = "normal", High = "high", Urgent = "urgent" }
}

/// An event in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// One short line.
    pub title: String,
    /// A few lines, plain.
    pub text: String,
    pub priority: Priority,
    /// The ticket; else the alert's page.
    pub link: Option<String>,
}

/// How events are told.
#[derive(Clone)]
pub struct Telling {
    /// Whether names, texts, and what the ticket is about may be told. Numbers are masked always.
    pub personal: bool,
    /// Where admins find the pages, if that is known.
    pub pages: Option<Url>,
    pub time_zone: TimeZone,
}

impl Telling {
    /// The event in words.
    pub fn words(&self, event: &LifecycleEvent) -> Words {
        let told = Told {
            event,
            personal: self.personal,
        };
        let mut lines = told.lines();
        if event.kind == EventType::AlertSettled {
            lines.extend(people(event, &BTreeMap::new(), &self.time_zone));
        }
        lines.push(self.footer(event));
        Words {
            title: clean_line(&told.title(), MAX_TITLE),
            text: shorten(&lines.join("\n")),
            priority: told.priority(),
            link: self.link(event),
        }
    }

    fn footer(&self, event: &LifecycleEvent) -> String {
        let at = local(event.at, &self.time_zone);
        match &event.source {
            Some(source) => format!("Source {source}, {at}"),
            None => at,
        }
    }

    fn link(&self, event: &LifecycleEvent) -> Option<String> {
        let alert = event.alert.as_ref()?;
        let page = || {
            let pages = self.pages.as_ref()?.as_str().trim_end_matches('/');
            Some(format!("{pages}/admin/alerts/{}", alert.id))
        };
        alert.url.clone().or_else(page)
    }
}

/// A time as people read it.
pub fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%F %T %Z").to_string()
}

/// Text that every service takes, cut at the end of a line where that is not far.
fn shorten(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let kept = &text[..text.floor_char_boundary(MAX_TEXT)];
    let whole_lines = kept.rsplit_once('\n').map(|(lines, _)| lines);
    let kept = whole_lines.filter(|lines| lines.len() > MAX_TEXT / 2).unwrap_or(kept);
    format!("{kept}\n…")
}

/// One event, and how much of it may be told.
pub struct Told<'a> {
    pub event: &'a LifecycleEvent,
    pub personal: bool,
}

impl Told<'_> {
    /// One line: what happened, to which ticket.
    fn title(&self) -> String {
        let of_ticket = |text: &str| match &self.event.alert {
            Some(alert) => format!("{text}: {}", self.ticket(alert)),
            None => text.to_owned(),
        };
        let delivery = |text: &str| match &self.event.alert {
            Some(_) => of_ticket(text),
            None => format!("{text}: a message of its own"),
        };
        match self.event.kind {
            EventType::AlertCreated => of_ticket("Critical ticket"),
            EventType::AlertAcknowledged => of_ticket("Acknowledged"),
            EventType::AlertClosed => of_ticket("No longer critical"),
            EventType::AlertSettled => of_ticket(match self.reached() {
                (0, _) => "Nobody was reached",
                (reached, of) if reached == of => "Everyone was reached",
                _ => "Not everyone was reached",
            }),
            EventType::DeliverySent => delivery("SMS handed to the carrier"),
            EventType::DeliveryDelivered => delivery("SMS delivered"),
            EventType::DeliveryFailed => delivery("SMS failed"),
            EventType::DeliveryUnconfirmed => delivery("SMS may not have been sent"),
            EventType::DeliverySuppressed => delivery("SMS not sent, opted out"),
            EventType::DeliveryDeferred => delivery("SMS held back by the daily limit"),
            EventType::DeliveryExpired => delivery("SMS not sent, too late"),
            EventType::MessageReceived => of_ticket(match self.message_kind() {
                Message::Reply => "Reply",
                Message::Acknowledgement => "Acknowledgement by SMS",
                Message::OptOut => "Opt-out by SMS",
                Message::OptIn => "Opt-in by SMS",
                Message::Other => "Message received",
            }),
            EventType::OptOutCreated => "Opted out of SMS".to_owned(),
            EventType::OptOutRemoved => "Opt-out removed".to_owned(),
            EventType::AlarmRaised => of_ticket(&format!("Alarm ({})", self.data("title").unwrap_or("see the log"))),
            EventType::Test => "A test from Nightbell".to_owned(),
        }
    }

    /// What happened, without what the title says of the ticket.
    pub fn lines(&self) -> Vec<String> {
        let who = || self.who(self.event.delivery.as_ref());
        let message = |what: &str| vec![format!("The message to {} {what}{}.", who(), self.because())];
        match self.event.kind {
            EventType::AlertCreated => vec![match self.number("deliveries") {
                Some(1) => "One person is being told.".to_owned(),
                Some(count) if count > 0 => format!("{count} people are being told."),
                _ => "There is nobody to tell.".to_owned(),
            }],
            EventType::AlertAcknowledged => vec![format!("{}{}.", self.acknowledged_by(), self.via())],
            EventType::AlertClosed => vec![match self.number("canceled") {
                Some(1) => "One message that had not begun was canceled.".to_owned(),
                Some(count) if count > 0 => format!("{count} messages that had not begun were canceled."),
                _ => "No message was canceled by it.".to_owned(),
            }],
            EventType::AlertSettled => vec![capitalised(&settled(self.reached()))],
            EventType::DeliverySent => message("was handed to the carrier"),
            EventType::DeliveryDelivered => message("was delivered"),
            EventType::DeliveryFailed => message("was not delivered"),
            EventType::DeliveryUnconfirmed => {
                let mut lines = message("may have been sent or not: nobody can tell");
                lines.push("Call them, or send it again.".to_owned());
                lines
            }
            EventType::DeliverySuppressed => message("was not sent, as they have opted out"),
            EventType::DeliveryDeferred => message("waits for a free slot of the daily limit"),
            EventType::DeliveryExpired => message("was not sent in time and is of no use any more"),
            EventType::MessageReceived => self.message(),
            EventType::OptOutCreated => vec![format!("{} gets no SMS from now on.", self.opt_out())],
            EventType::OptOutRemoved => vec![format!("{} gets SMS again.", self.opt_out())],
            EventType::AlarmRaised => {
                let detail = self.data("detail").map(|detail| format!("{}.", clean_text(detail)));
                let advice = self.data("advice").map(|advice| format!("To do: {advice}"));
                detail.into_iter().chain(advice).collect()
            }
            EventType::Test => vec!["If you can read this, events of Nightbell reach you here.".to_owned()],
        }
    }

    fn priority(&self) -> Priority {
        match self.event.kind {
            EventType::AlertCreated
            | EventType::DeliveryFailed
            | EventType::DeliveryUnconfirmed
            | EventType::DeliveryExpired => Priority::High,
            EventType::AlertSettled => match self.reached() {
                (0, _) => Priority::Urgent,
                (reached, of) if reached == of => Priority::Low,
                _ => Priority::Normal,
            },
            EventType::AlarmRaised => match self.data("alarm").and_then(AlarmKind::parse) {
                Some(AlarmKind::ProviderReachable) => Priority::Normal,
                Some(
                    AlarmKind::LimitReached
                    | AlarmKind::ClockDiffers
                    | AlarmKind::ClockJumped
                    | AlarmKind::WebhookDisabled,
                ) => Priority::High,
                Some(
                    AlarmKind::NobodyTold
                    | AlarmKind::CredentialsRefused
                    | AlarmKind::SenderRefused
                    | AlarmKind::AccountRefused
                    | AlarmKind::SettingsRefused
                    | AlarmKind::ProviderUnreachable
                    | AlarmKind::Unconfirmed
                    | AlarmKind::LastRecipientOptedOut,
                )
                | None => Priority::Urgent,
            },
            EventType::AlertAcknowledged
            | EventType::DeliverySuppressed
            | EventType::DeliveryDeferred
            | EventType::MessageReceived
            | EventType::OptOutCreated
            | EventType::Test => Priority::Normal,
            EventType::AlertClosed
            | EventType::DeliverySent
            | EventType::DeliveryDelivered
            | EventType::OptOutRemoved => Priority::Low,
        }
    }

    /// The ticket by the number that people know it by.
    fn ticket(&self, alert: &AlertFacts) -> String {
        let number = alert.ticket_number.as_deref().unwrap_or(&alert.ticket_id);
        match &alert.subject {
            Some(subject) if self.personal => format!("#{number} {subject}"),
            _ => format!("#{number}"),
        }
    }

    /// A person by their name, or else by what they are to the helpdesk.
    pub fn who(&self, delivery: Option<&DeliveryFacts>) -> String {
        let Some(delivery) = delivery else {
            return "somebody".to_owned();
        };
        let role = delivery.role.as_ref().map(|role| role.replace('_', " "));
        match (delivery.name.as_ref().filter(|_| self.personal), role) {
            (Some(name), Some(role)) => format!("{} ({role})", clean_line(name, 100)),
            (Some(name), None) => clean_line(name, 100),
            (None, role) => anonymous(role.as_deref(), delivery.staff_id.as_deref()),
        }
    }

    /// Who acknowledged: the person who was told, or an admin.
    pub fn acknowledged_by(&self) -> String {
        let alert = self.event.alert.as_ref().filter(|_| self.personal);
        let admin = alert.and_then(|alert| alert.acknowledged_by.as_deref());
        let who = match (&self.event.delivery, admin) {
            (None, Some(admin)) => clean_line(admin, 100),
            (None, None) => "an admin".to_owned(),
            (delivery, _) => self.who(delivery.as_ref()),
        };
        format!("{} acknowledged it", capitalised(&who))
    }

    /// In which way somebody acknowledged.
    pub fn via(&self) -> &'static str {
        match self.data("via") {
            Some("sms") => " by SMS",
            Some("link") => " by the link in the message",
            Some("api") => " by the API",
            Some("page") => " on the alert's page",
            Some("command") => " by a command",
            _ => "",
        }
    }

    fn message(&self) -> Vec<String> {
        let Some(message) = &self.event.message else {
            return vec!["Somebody sent a message.".to_owned()];
        };
        let who = match &self.event.delivery {
            Some(_) => self.who(self.event.delivery.as_ref()),
            None => message
                .from
                .as_deref()
                .map_or_else(|| "somebody".to_owned(), phone::mask),
        };
        let what = match self.message_kind() {
            Message::Reply | Message::Other => "sent a message",
            Message::Acknowledgement => "acknowledged",
            Message::OptOut => "wants no more messages",
            Message::OptIn => "wants messages again",
        };
        let mut lines = vec![format!("{} {what}.", capitalised(&who))];
        lines.extend(attachments(message));
        match &message.text {
            Some(text) if self.personal => lines.push(clean_text(truncate(text, 1_600))),
            Some(_) | None => {}
        }
        lines
    }

    fn message_kind(&self) -> Message {
        match self.event.message.as_ref().map(|message| message.kind.as_str()) {
            Some("reply") => Message::Reply,
            Some("acknowledge") => Message::Acknowledgement,
            Some("opt_out") => Message::OptOut,
            Some("opt_in") => Message::OptIn,
            _ => Message::Other,
        }
    }

    fn opt_out(&self) -> String {
        self.event
            .phone
            .as_deref()
            .map_or_else(|| "A number".to_owned(), phone::mask)
    }

    /// Why a delivery stands as it does, after a comma; nothing where nobody said.
    fn because(&self) -> String {
        let reason = self
            .data("reason")
            .map(|reason| format!(": {}", reason.replace('_', " ")));
        let code = self.number("error_code").map(|code| format!(", code {code}"));
        format!("{}{}", reason.unwrap_or_default(), code.unwrap_or_default())
    }

    fn reached(&self) -> (i64, i64) {
        (self.number("reached").unwrap_or(0), self.number("of").unwrap_or(0))
    }

    fn data(&self, member: &str) -> Option<&str> {
        self.event.data.get(member)?.as_str()
    }

    fn number(&self, member: &str) -> Option<i64> {
        self.event.data.get(member)?.as_i64()
    }
}

/// What a message of a person was understood as.
enum Message {
    Reply,
    Acknowledgement,
    OptOut,
    OptIn,
    Other,
}

/// How many things came with a message, which nobody has fetched.
pub fn attachments(message: &MessageFacts) -> Option<String> {
    let count = match message.media.as_ref()? {
        Value::Array(media) => media.len(),
        Value::Number(count) => usize::try_from(count.as_u64()?).ok()?,
        _ => return None,
    };
    match count {
        0 => None,
        1 => Some("With one attachment, which was not fetched.".to_owned()),
        count => Some(format!("With {count} attachments, which were not fetched.")),
    }
}

/// Who was reached, in a sentence that something stands before.
pub fn settled((reached, of): (i64, i64)) -> String {
    match reached {
        0 => "nobody could be reached by SMS.".to_owned(),
        count if count == of => "everyone was reached by SMS.".to_owned(),
        1 => format!("1 of {of} people was reached by SMS."),
        count => format!("{count} of {of} people were reached by SMS."),
    }
}

/// A line for each person of a settled alert; by name where the id of their delivery is among `names`.
pub fn people(event: &LifecycleEvent, names: &BTreeMap<String, String>, zone: &TimeZone) -> Vec<String> {
    let people = event.data.get("people").and_then(Value::as_array);
    let people = people.map(Vec::as_slice).unwrap_or_default();
    let line = |person: &Value| {
        let text = |member: &str| person.get(member).and_then(Value::as_str);
        let role = text("role").map(|role| role.replace('_', " "));
        let name = text("delivery_id").and_then(|id| names.get(id));
        let who = match (name, role) {
            (Some(name), Some(role)) => format!("{} ({role})", clean_line(name, 100)),
            (Some(name), None) => clean_line(name, 100),
            (None, role) => anonymous(role.as_deref(), text("staff_id")),
        };
        let state = text("state").and_then(State::parse).map_or("not known", state_in_words);
        let code = person.get("error_code").and_then(Value::as_i64);
        let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
        let at = text("at")
            .and_then(|at| at.parse().ok())
            .map(|at: Timestamp| format!(", {}", local(at, zone)));
        format!("- {who}: {state}{code}{}", at.unwrap_or_default())
    };
    let mut lines: Vec<String> = people.iter().take(MAX_PEOPLE).map(line).collect();
    if people.len() > MAX_PEOPLE {
        lines.push(format!("- and {} more", people.len() - MAX_PEOPLE));
    }
    lines
}

/// A person by what they are to the helpdesk.
fn anonymous(role: Option<&str>, staff_id: Option<&str>) -> String {
    match (role, staff_id) {
        (Some(role), Some(id)) => format!("the {role} (staff {id})"),
        (Some(role), None) => format!("the {role}"),
        (None, Some(id)) => format!("staff {id}"),
        (None, None) => "somebody".to_owned(),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_uppercase(), chars.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    fn telling(personal: bool) -> Telling {
        Telling {
            personal,
            pages: "https://nightbell.example.com/behind/".parse().ok(),
            time_zone: TimeZone::get("Europe/Berlin").unwrap(),
        }
    }

    #[test]
    fn every_type_has_words_of_its_own() {
        let mut titles = std::collections::BTreeSet::new();
        for event in EventType::ALL.iter().map(|kind| samples::full(*kind)) {
            for personal in [false, true] {
                let words = telling(personal).words(&event);

                assert!(
                    !words.title.contains('\n') && words.title.chars().count() <= MAX_TITLE,
                    "{words:?}"
                );
                assert!(
                    words.text.lines().count() >= 2 && !words.text.contains(".."),
                    "{words:?}"
                );
                assert!(words.text.lines().all(|line| !line.trim().is_empty()), "{words:?}");
                assert!(titles.insert(words.title.clone()) || event.alert.is_none(), "{words:?}");
            }
            let bare = telling(true).words(&samples::bare(event.kind));
            assert!(
                !bare.title.is_empty() && !bare.text.is_empty() && bare.link.is_none(),
                "{bare:?}"
            );
        }
    }

    #[test]
    fn personal_data_is_told_only_where_it_is_wanted_and_numbers_never() {
        let mut told = String::new();
        for event in samples::all() {
            let (plain, personal) = (telling(false).words(&event), telling(true).words(&event));
            for secret in [
                "Checkout",
                "Grace",
                "Hopper",
                "Bo Client",
                "Acme Corp",
                "On my way",
                "4155550101",
            ] {
                assert!(!format!("{plain:?}").contains(secret), "{secret} is in {plain:?}");
            }
            assert!(!format!("{personal:?}").contains("4155550101"), "{personal:?}");
            told.push_str(&format!("{personal:?}"));
        }
        for word in ["Checkout", "Grace", "On my way", "+1415****101"] {
            assert!(told.contains(word), "{word} is in none of the words");
        }
    }

    #[test]
    fn words_are_those_of_a_person() {
        let told = |kind, personal| {
            let words = telling(personal).words(&samples::full(kind));
            (
                words.title,
                words.text.lines().next().unwrap().to_owned(),
                words.priority,
            )
        };
        let is = |title: &str, text: &str, priority| (title.to_owned(), text.to_owned(), priority);

        assert_eq!(
            told(EventType::DeliveryFailed, false),
            is(
                "SMS failed: #108749",
                "The message to the project manager (staff 2) was not delivered: provider failed, code 5021.",
                Priority::High
            )
        );
        assert_eq!(
            told(EventType::AlertAcknowledged, true).1,
            "Grace \"Amazing\" Hopper (project manager) acknowledged it by SMS."
        );
        assert_eq!(
            told(EventType::AlertSettled, false),
            is(
                "Not everyone was reached: #108749",
                "1 of 2 people was reached by SMS.",
                Priority::Normal
            )
        );
        assert_eq!(
            told(EventType::OptOutCreated, true),
            is(
                "Opted out of SMS",
                "+1415****101 gets no SMS from now on.",
                Priority::Normal
            )
        );
        assert_eq!(
            told(EventType::AlarmRaised, false),
            is(
                "Alarm (nobody was told): #108749",
                "nobody is told of the \"ticket\" 108749.",
                Priority::Urgent
            )
        );
    }

    #[test]
    fn the_link_leads_to_the_ticket_or_else_to_the_alerts_page() {
        let mut event = samples::full(EventType::AlertCreated);
        let link = |event: &LifecycleEvent, telling: Telling| telling.words(event).link;
        assert!(
            link(&event, telling(false))
                .unwrap()
                .starts_with("https://tickets.example.com/")
        );

        event.alert.as_mut().unwrap().url = None;

        let page = "https://nightbell.example.com/behind/admin/alerts/019aa0f0-0000-7000-8000-000000000001";
        assert_eq!(link(&event, telling(false)).as_deref(), Some(page));
        let nowhere = Telling {
            pages: None,
            ..telling(false)
        };
        assert_eq!(link(&event, nowhere), None);
    }

    #[test]
    fn a_text_of_many_lines_is_cut_at_one() {
        let mut event = samples::full(EventType::MessageReceived);
        event.message.as_mut().unwrap().text = Some("🚨🚨🚨🚨 \n".repeat(1_000));

        let text = telling(true).words(&event).text;

        assert!(text.len() <= MAX_TEXT + 8, "{}", text.len());
        assert!(text.ends_with("🚨🚨🚨🚨\n…") || text.contains("CET"), "{text}");
    }

    #[test]
    fn of_very_many_people_the_first_are_named() {
        let mut event = samples::full(EventType::AlertSettled);
        let person = event.data["people"][0].clone();
        event.data["people"] = Value::Array(vec![person; 50]);

        let lines = people(&event, &BTreeMap::new(), &TimeZone::UTC);

        assert_eq!(lines.len(), MAX_PEOPLE + 1);
        assert_eq!(
            lines[0],
            "- the project manager (staff 2): delivered, 2026-11-20 09:24:41 UTC"
        );
        assert_eq!(lines[MAX_PEOPLE], "- and 30 more");
    }
}
