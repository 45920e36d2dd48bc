//! Puts the rows of osTicket's database together to tickets. Absent: asking for the rows, and who works on a ticket (see
//! `people`).

use super::{
    people::People,
    questions::{AnswerRow, TicketRow},
};
use crate::source::seen::SeenTicket;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use url::Url;

/// The urgency of a ticket that has no priority, which the table of urgencies may say something about.
const NO_PRIORITY: &str = "none";

/// A ticket as it is now.
pub struct Seen {
    pub id: i64,
    pub is_open: bool,
    pub urgency: String,
    event: Value,
}

impl Seen {
    /// Puts tickets together with what their forms say and who works on them.
    pub fn put_together(
        tickets: Vec<TicketRow>,
        answers: Vec<AnswerRow>,
        people: &People,
        base_url: Option<&Url>,
    ) -> Vec<Self> {
        let mut forms: HashMap<i64, Form> = HashMap::new();
        for answer in answers {
            forms.entry(answer.ticket_id).or_default().add(answer);
        }
        let put = |ticket: TicketRow| {
            let form = forms.remove(&ticket.id).unwrap_or_default();
            Self::of(&ticket, form, people, base_url)
        };
        tickets.into_iter().map(put).collect()
    }

    fn of(ticket: &TicketRow, form: Form, people: &People, base_url: Option<&Url>) -> Self {
        let number = ticket.number.clone().unwrap_or_else(|| ticket.id.to_string());
        let subject = form.subject.map(|(text, _)| text);
        let event = json!({
            "ticket": {
                "number": number,
                // An alert is not lost for want of a subject.
                "subject": subject.unwrap_or_else(|| format!("Ticket {number}")),
                "url": base_url.and_then(|base| link(base, ticket.id)),
                "group": ticket.department,
                "estimated_hours": form.hours.and_then(|text| number_in(&text, 100_000.0)),
                "ai": {"confidence_percent": form.confidence.and_then(|text| number_in(&text, 100.0))},
            },
            "client": {"name": ticket.client, "organisation": ticket.organisation},
            "recipients": people.of(ticket),
        });
        Self {
            id: ticket.id,
            // Of a state that is none, somebody has to work on it.
            is_open: ticket.state.as_deref().is_none_or(|state| state == "open"),
            urgency: form.priority.map_or_else(|| NO_PRIORITY.to_owned(), |(name, _)| name),
            event,
        }
    }

    /// With when it changed, where that is known.
    pub fn dated(mut self, at: Option<Timestamp>) -> SeenTicket {
        if let Some(at) = at {
            self.event["occurred_at"] = at.to_string().into();
        }
        self.undated()
    }

    /// As it is now, whenever it became so.
    pub fn undated(self) -> SeenTicket {
        SeenTicket {
            id: self.id.to_string(),
            is_open: self.is_open,
            urgency: self.urgency,
            event: self.event,
        }
    }
}

/// What the forms of a ticket say. Each with whether the form that every ticket has says so, which goes before others.
#[derive(Default)]
struct Form {
    priority: Option<(String, bool)>,
    subject: Option<(String, bool)>,
    hours: Option<String>,
    confidence: Option<String>,
}

impl Form {
    fn add(&mut self, answer: AnswerRow) {
        let is_main = answer.is_main != 0;
        let value = answer.value.filter(|value| !value.trim().is_empty());
        let put = |place: &mut Option<(String, bool)>, text: Option<String>| {
            let has_better = place
                .as_ref()
                .is_some_and(|(_, known_is_main)| *known_is_main || !is_main);
            if let Some(text) = text.filter(|_| !has_better) {
                *place = Some((text, is_main));
            }
        };
        if answer.kind == "priority" {
            // Of a priority that is gone, or was never one of the list, its text is left.
            return put(&mut self.priority, answer.priority.or(value));
        }
        match answer.name.as_deref() {
            Some("subject") => put(&mut self.subject, value),
            Some("estimated_hours") => self.hours = self.hours.take().or(value),
            Some("ai_confidence") => self.confidence = self.confidence.take().or(value),
            Some(_) | None => {}
        }
    }
}

/// The number that somebody wrote into a field of text, `4.5`, `4,5` or `93 %`; none if it is none from 0 to `max`.
fn number_in(text: &str, max: f64) -> Option<f64> {
    let text = text.trim().trim_end_matches('%').trim_end().replace(',', ".");
    text.parse().ok().filter(|number| (0.0..=max).contains(number))
}

/// The page of a ticket for staff.
fn link(base_url: &Url, ticket_id: i64) -> Option<String> {
    let mut url = base_url.clone();
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["scp", "tickets.php"]);
    url.set_fragment(None);
    url.set_query(Some(&format!("id={ticket_id}")));
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> TicketRow {
        TicketRow {
            id: 3,
            number: Some("108749".into()),
            state: Some("open".into()),
            staff_id: 0,
            team_id: 0,
            department: Some("Support".into()),
            manager_id: Some(0),
            client: Some("Bo Client".into()),
            organisation: None,
            account_manager: None,
        }
    }

    fn answer(kind: &str, name: &str, value: &str, is_main: bool) -> AnswerRow {
        AnswerRow {
            ticket_id: 3,
            name: Some(name.to_owned()),
            kind: kind.to_owned(),
            is_main: i64::from(is_main),
            value: Some(value.to_owned()),
            priority: None,
        }
    }

    #[test]
    fn the_form_of_every_ticket_goes_before_others() {
        let answers = vec![
            answer("text", "subject", "of another form", false),
            answer("priority", "urgency", "Low", false),
            AnswerRow {
                priority: Some("emergency".into()),
                ..answer("priority", "priority", "Emergency", true)
            },
            answer("text", "subject", "Mail is slow", true),
            answer("priority", "more", "Normal", false),
            answer("text", "estimated_hours", "4,5", false),
            answer("text", "ai_confidence", " 93 % ", false),
        ];
        let base = Url::parse("https://tickets.example.com/support/?x#y").unwrap();

        let seen = Seen::put_together(vec![ticket()], answers, &People::default(), Some(&base))
            .remove(0)
            .dated(Timestamp::from_second(1_800_000_000).ok());

        assert_eq!(
            (seen.id.as_str(), seen.is_open, seen.urgency.as_str()),
            ("3", true, "emergency")
        );
        assert_eq!(
            seen.event,
            json!({"occurred_at": "2027-01-15T08:00:00Z", "ticket": {"number": "108749", "subject": "Mail is slow",
                "url": "https://tickets.example.com/support/scp/tickets.php?id=3", "group": "Support",
                "estimated_hours": 4.5, "ai": {"confidence_percent": 93.0}},
                "client": {"name": "Bo Client", "organisation": null}, "recipients": []})
        );
    }

    #[test]
    fn what_is_missing_or_no_number_costs_no_ticket() {
        let answers = vec![
            answer("priority", "priority", "Gone", true),
            answer("text", "subject", " ", true),
            answer("text", "estimated_hours", "many", true),
            answer("text", "ai_confidence", "930", true),
        ];
        let closed = TicketRow {
            id: 4,
            number: None,
            state: Some("archived".into()),
            ..ticket()
        };

        let seen = Seen::put_together(vec![ticket(), closed], answers, &People::default(), None);

        let [first, second] = seen.as_slice() else { panic!() };
        assert_eq!((first.urgency.as_str(), second.urgency.as_str()), ("Gone", "none"));
        assert_eq!((first.is_open, second.is_open), (true, false));
        assert_eq!(
            first.event["ticket"],
            json!({"number": "108749", "subject": "Ticket 108749", "url": null, "group": "Support", "estimated_hours": null,
                "ai": {"confidence_percent": null}})
        );
        assert_eq!(second.event["ticket"]["subject"], "Ticket 4");
    }
}
