//! Puts the rows of osTicket's database together to tickets with the people who work on them. Absent: asking for the rows.

use super::questions::{AnswerRow, MemberRow, StaffRow, TicketRow};
use crate::source::seen::SeenTicket;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
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

/// Who works on a ticket that is assigned to a team, or looks after a client.
enum Named {
    Staff(i64),
    Team(i64),
}

/// Reads `s3` and `t1`.
fn read_account_manager(text: &str) -> Option<Named> {
    let (kind, id) = text.trim().split_at_checked(1)?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    match kind {
        "s" => Some(Named::Staff(id)),
        "t" => Some(Named::Team(id)),
        _ => None,
    }
}

/// The people of an installation, as far as these tickets name them.
#[derive(Default)]
pub struct People {
    staff: HashMap<i64, StaffRow>,
    /// Of each team those who lead it, then the others.
    teams: HashMap<i64, Vec<MemberRow>>,
}

impl People {
    /// The teams that these tickets name.
    pub fn teams_of(tickets: &[TicketRow]) -> BTreeSet<i64> {
        let teams = tickets.iter().flat_map(|ticket| {
            let account = ticket.account_manager.as_deref().and_then(read_account_manager);
            let account = match account {
                Some(Named::Team(id)) => id,
                Some(Named::Staff(_)) | None => 0,
            };
            [ticket.team_id, account]
        });
        teams.filter(|id| *id > 0).collect()
    }

    pub fn add_members(&mut self, members: Vec<MemberRow>) {
        for member in members {
            self.teams.entry(member.team_id).or_default().push(member);
        }
        for members in self.teams.values_mut() {
            members.sort_by_key(|member| (member.leads == 0, member.staff_id));
        }
    }

    /// Everybody whom these tickets name, by themselves or by their teams.
    pub fn named_by(&self, tickets: &[TicketRow]) -> BTreeSet<i64> {
        let of_tickets = tickets.iter().flat_map(|ticket| {
            let account = ticket.account_manager.as_deref().and_then(read_account_manager);
            let account = match account {
                Some(Named::Staff(id)) => id,
                Some(Named::Team(_)) | None => 0,
            };
            [ticket.staff_id, ticket.manager_id.unwrap_or(0), account]
        });
        let of_teams = self.teams.values().flatten().map(|member| member.staff_id);
        of_tickets.chain(of_teams).filter(|id| *id > 0).collect()
    }

    pub fn add_staff(&mut self, staff: Vec<StaffRow>) {
        self.staff.extend(staff.into_iter().map(|person| (person.id, person)));
    }

    /// Who is to be told of a ticket, each once: whom it is assigned to (a team only where it is nobody who still works
    /// there), the department's manager, and who looks after the client.
    fn of(&self, ticket: &TicketRow) -> Vec<Value> {
        let mut named: Vec<(&'static str, i64)> = Vec::new();
        if self.staff.contains_key(&ticket.staff_id) {
            named.push(("assignee", ticket.staff_id));
        } else {
            named.extend(self.active_in(ticket.team_id).map(|member| ("team", member.staff_id)));
        }
        named.push(("manager", ticket.manager_id.unwrap_or(0)));
        match ticket.account_manager.as_deref().and_then(read_account_manager) {
            Some(Named::Staff(id)) => named.push(("project_manager", id)),
            // Who leads it answers for it; where nobody does, all do.
            Some(Named::Team(id)) => {
                let has_lead = self.active_in(id).any(|member| member.leads != 0);
                let asked = self.active_in(id).filter(|member| member.leads != 0 || !has_lead);
                named.extend(asked.map(|member| ("project_manager", member.staff_id)));
            }
            None => {}
        }
        let mut known = BTreeSet::new();
        let people = named.into_iter().filter_map(|(role, id)| {
            let person = self.staff.get(&id).filter(|_| known.insert(id))?;
            Some(recipient(role, person))
        });
        people.collect()
    }

    /// Those of a team who still work there.
    fn active_in(&self, team_id: i64) -> impl Iterator<Item = &MemberRow> {
        let members = self.teams.get(&team_id).into_iter().flatten();
        members.filter(|member| self.staff.contains_key(&member.staff_id))
    }
}

fn recipient(role: &str, person: &StaffRow) -> Value {
    let text = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let names = [text(&person.first_name), text(&person.last_name)];
    let name = names.into_iter().flatten().collect::<Vec<_>>().join(" ");
    json!({
        "staff_id": person.id.to_string(),
        "role": role,
        "name": name,
        "login": text(&person.login),
        "email": text(&person.email),
        "phone": text(&person.mobile).or_else(|| text(&person.phone)),
    })
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

    fn member(team_id: i64, staff_id: i64, leads: bool) -> MemberRow {
        MemberRow {
            team_id,
            staff_id,
            leads: i64::from(leads),
        }
    }

    /// People 1 to 5 work there; team 1 has a lead, team 2 has not. Person 9 has left.
    fn people() -> People {
        let person = |id: i64| StaffRow {
            id,
            login: Some(format!("login{id}")),
            first_name: Some("Grace".into()),
            last_name: Some(String::new()),
            email: None,
            mobile: Some(if id == 2 {
                String::new()
            } else {
                format!("+1415555010{id}")
            }),
            phone: Some("030 1234567".into()),
        };
        let mut people = People::default();
        people.add_members(vec![
            member(1, 4, false),
            member(1, 3, false),
            member(1, 4, true),
            member(2, 5, false),
            member(2, 9, false),
        ]);
        people.add_staff((1..=5).map(person).collect());
        people
    }

    fn named(ticket: &TicketRow) -> Vec<String> {
        let named = people().of(ticket).into_iter().map(|person| {
            let text = |name: &str| person[name].as_str().unwrap().to_owned();
            format!("{} {}", text("role"), text("staff_id"))
        });
        named.collect()
    }

    #[test]
    fn a_team_is_told_where_nobody_who_still_works_there_has_the_ticket() {
        let of = |staff_id, team_id| {
            named(&TicketRow {
                staff_id,
                team_id,
                ..ticket()
            })
        };

        assert_eq!(of(2, 1), ["assignee 2"]);
        assert_eq!(of(0, 1), ["team 4", "team 3"]);
        assert_eq!(of(9, 2), ["team 5"]);
        assert_eq!(of(9, 0), [""; 0]);
    }

    #[test]
    fn managers_are_told_too_and_nobody_twice() {
        let of = |manager, account: &str| {
            named(&TicketRow {
                staff_id: 2,
                manager_id: Some(manager),
                account_manager: Some(account.to_owned()),
                ..ticket()
            })
        };

        assert_eq!(of(1, "s3"), ["assignee 2", "manager 1", "project_manager 3"]);
        assert_eq!(of(2, "s2"), ["assignee 2"]);
        assert_eq!(of(9, "s9"), ["assignee 2"]);
        assert_eq!(of(0, "t1"), ["assignee 2", "project_manager 4"]);
        assert_eq!(of(0, "t2"), ["assignee 2", "project_manager 5"]);
        for nobody in ["", "s", "s0", "x3", "é", "3"] {
            assert_eq!(of(0, nobody), ["assignee 2"], "{nobody}");
        }
    }

    #[test]
    fn a_person_has_the_mobile_number_or_else_the_other() {
        let people = people();

        let (grace, second) = (&people.staff[&1], &people.staff[&2]);

        assert_eq!(
            recipient("assignee", grace),
            json!({"staff_id": "1", "role": "assignee", "name": "Grace", "login": "login1", "email": null,
                "phone": "+14155550101"})
        );
        assert_eq!(recipient("assignee", second)["phone"], "030 1234567");
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
