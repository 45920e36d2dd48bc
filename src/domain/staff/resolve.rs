//! Whom the people of an event are taken for, and who is told because they manage its group: nobody is ever guessed. Absent:
//! asking the directory (see `store`), and what is sent.

use super::entry::{By, Groups};
use crate::domain::{
    event::{Event, Recipient},
    phone::PhoneNumber,
    source::Source,
};
use std::{borrow::Cow, collections::BTreeSet};

/// The role of those who are told because they manage the ticket's group.
const MANAGER: &str = "manager";
/// Stands for every group.
const EVERY_GROUP: &str = "*";

/// Somebody of the directory, and a key by which they were found.
pub struct Found {
    pub key: String,
    pub staff_id: String,
    pub login: Option<String>,
    pub email: Option<String>,
    pub name: Option<String>,
    pub role: Option<String>,
    pub phone: PhoneNumber,
}

/// Somebody to be told: `phone` is the number, or the text that is none, or nothing.
pub struct Addressee<'a> {
    pub recipient: Cow<'a, Recipient>,
    pub phone: Result<PhoneNumber, Option<String>>,
}

/// The people whom an event names, with the phones that it tells, as far as its source is trusted with them.
pub fn named<'a>(event: &'a Event, source: &Source) -> Vec<Addressee<'a>> {
    let people = event.recipients.iter();
    people
        .map(|recipient| Addressee {
            recipient: Cow::Borrowed(recipient),
            phone: match source.trusts_phones {
                true => recipient.read_phone(source.region),
                false => Err(None),
            },
        })
        .collect()
}

/// What the directory is asked for: everything that those without a number are named by, and who manages the ticket's group.
/// Nothing, where the event tells all numbers and no group.
pub fn keys_wanted(event: &Event, people: &[Addressee<'_>]) -> BTreeSet<String> {
    let without_number = people.iter().filter(|person| person.phone.is_err());
    let mut keys: BTreeSet<String> = without_number
        .flat_map(|person| By::NAMES.map(|by| by.key(by.of(&person.recipient))))
        .flatten()
        .collect();
    keys.extend(manager_keys(event));
    keys
}

fn manager_keys(event: &Event) -> BTreeSet<String> {
    let groups = Groups::read(event.ticket.group.as_deref());
    let every = (!groups.is_empty()).then(|| By::Manages.key(Some(EVERY_GROUP)));
    groups.keys().chain(every.flatten()).collect()
}

/// Gives those without a number the one of the directory, and adds the managers of the ticket's group. Who is not found, or
/// shares all that they are named by with somebody else, stays without.
pub fn resolve<'a>(event: &Event, mut people: Vec<Addressee<'a>>, found: &[Found]) -> Vec<Addressee<'a>> {
    for person in people.iter_mut().filter(|person| person.phone.is_err()) {
        if let Some(known) = identify(&person.recipient, found) {
            person.phone = Ok(known.phone.clone());
            fill_in(person.recipient.to_mut(), known);
        }
    }
    let keys = manager_keys(event);
    let mut managers = found
        .iter()
        .filter(|found| keys.contains(&found.key))
        .collect::<Vec<_>>();
    managers.sort_by(|a, b| a.staff_id.cmp(&b.staff_id));
    managers.dedup_by(|a, b| a.staff_id == b.staff_id);
    people.extend(managers.into_iter().map(|known| Addressee {
        recipient: Cow::Owned(Recipient {
            staff_id: Some(known.staff_id.clone()),
            role: Some(MANAGER.to_owned()),
            name: known.name.clone(),
            ..Recipient::default()
        }),
        phone: Ok(known.phone.clone()),
    }));
    people
}

/// Whom an event means: by id, else by login, else by e-mail, else by name; what two people share says nothing.
fn identify<'a>(recipient: &Recipient, found: &'a [Found]) -> Option<&'a Found> {
    By::NAMES.into_iter().find_map(|by| {
        let key = by.key(by.of(recipient))?;
        let mut known = found.iter().filter(|found| found.key == key);
        let first = known.next()?;
        let is_alone = known.next().is_none();
        let is_meant = by != By::Name || !is_other(recipient, first);
        (is_alone && is_meant).then_some(first)
    })
}

/// Whether an event tells another login or e-mail address than the person of the same name has.
fn is_other(recipient: &Recipient, found: &Found) -> bool {
    let differs = |by: By, known: &Option<String>| match (by.key(by.of(recipient)), by.key(known.as_deref())) {
        (Some(said), Some(known)) => said != known,
        (None, _) | (_, None) => false,
    };
    differs(By::Login, &found.login) || differs(By::Email, &found.email)
}

/// Adds what the event does not say.
fn fill_in(recipient: &mut Recipient, known: &Found) {
    let Recipient {
        staff_id, name, role, ..
    } = recipient;
    for (said, known) in [(name, &known.name), (role, &known.role)] {
        if said.is_none() {
            said.clone_from(known);
        }
    }
    staff_id.get_or_insert_with(|| known.staff_id.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        event,
        phone::Region,
        staff::{Draft, Person},
    };
    use serde_json::{Value, json};

    fn source(trusts_phones: bool) -> Source {
        Source {
            trusts_phones,
            ..Source::for_test()
        }
    }

    fn event(group: Option<&str>, recipients: Value) -> Event {
        let ticket = json!({"id": 1, "subject": "x", "urgency": "critical", "group": group});
        let document = json!({"ticket": ticket, "recipients": recipients});
        event::parse(&document, jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    /// A directory in which each person is found by everything that was asked for.
    struct Directory(Vec<Person>);

    impl Directory {
        fn of(people: &[(&str, Value)]) -> Self {
            let person = |(staff_id, said): &(&str, Value)| {
                let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
                let draft = Draft {
                    staff_id: (*staff_id).to_owned(),
                    login: text("login"),
                    email: text("email"),
                    name: text("name"),
                    phone: format!("+1415555010{staff_id}"),
                    role: text("role"),
                    manages: vec![text("manages")],
                    ..Draft::default()
                };
                draft.read("default", Region::UNKNOWN).unwrap()
            };
            Self(people.iter().map(person).collect())
        }

        fn find(&self, keys: &BTreeSet<String>) -> Vec<Found> {
            let found = |person: &Person, key: String| Found {
                key,
                staff_id: person.staff_id.clone(),
                login: person.login.clone(),
                email: person.email.clone(),
                name: person.name.clone(),
                role: person.role.clone(),
                phone: person.phone.clone(),
            };
            let of = |person: &Person| {
                let keys = person.keys().into_iter().filter(|key| keys.contains(key));
                keys.map(|key| found(person, key)).collect::<Vec<_>>()
            };
            self.0.iter().flat_map(of).collect()
        }

        /// Who is told, as the last digit of the number, role and name.
        fn tell(&self, event: &Event, source: &Source) -> Vec<String> {
            let people = named(event, source);
            let found = self.find(&keys_wanted(event, &people));
            let told = resolve(event, people, &found);
            let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let person = |person: &Addressee<'_>| {
                let digit = match &person.phone {
                    Ok(phone) => phone.as_e164().chars().last().unwrap().to_string(),
                    Err(text) => format!("no number ({})", said(text)),
                };
                format!(
                    "{digit} {} {}",
                    said(&person.recipient.role),
                    said(&person.recipient.name)
                )
            };
            told.iter().map(person).collect()
        }
    }

    #[test]
    fn a_person_is_found_by_id_then_login_then_email_then_name() {
        let directory = Directory::of(&[
            (
                "2",
                json!({"login": "grace", "email": "Grace@Acme.test", "name": "Grace Hopper", "role": "assignee"}),
            ),
            (
                "3",
                json!({"login": "mona", "email": "mona@acme.test", "name": "Mona Meyer"}),
            ),
        ]);
        for (named, told) in [
            (json!({"staff_id": 2}), "2 assignee Grace Hopper"),
            (json!({"staff_id": "3", "login": "grace", "name": "Me"}), "3 - Me"),
            (
                json!({"staff_id": "9", "login": " GRACE ", "email": "mona@acme.test", "role": "boss"}),
                "2 boss Grace Hopper",
            ),
            (
                json!({"login": "gone", "email": "grace@acme.TEST"}),
                "2 assignee Grace Hopper",
            ),
            (json!({"name": "  grace\t hopper "}), "2 assignee grace hopper"),
            (json!({"name": "Grace"}), "no number (-) - Grace"),
            (json!({}), "no number (-) - -"),
            (json!({"staff_id": "2", "phone": "12"}), "2 assignee Grace Hopper"),
            (json!({"name": "Nina", "phone": "12"}), "no number (12) - Nina"),
            (json!({"staff_id": "2", "phone": "+14155550109"}), "9 - -"),
        ] {
            let event = event(None, json!([named]));
            assert_eq!(directory.tell(&event, &source(true)), [told], "{named}");
        }
    }

    #[test]
    fn nobody_is_guessed_where_two_share_what_an_event_says() {
        let directory = Directory::of(&[
            (
                "2",
                json!({"name": "Jo Smith", "email": "office@acme.test", "login": "jo"}),
            ),
            (
                "3",
                json!({"name": "Jo Smith", "email": "office@acme.test", "login": "JO"}),
            ),
            (
                "4",
                json!({"name": "Ann Lee", "email": "ann@acme.test", "login": "ann"}),
            ),
        ]);
        for (named, told) in [
            (json!({"name": "Jo Smith"}), "no number (-) - Jo Smith"),
            (json!({"email": "office@acme.test", "login": "jo"}), "no number (-) - -"),
            (
                json!({"email": "office@acme.test", "login": "jo", "staff_id": 3}),
                "3 - Jo Smith",
            ),
            (
                json!({"email": "office@acme.test", "name": "Ann Lee"}),
                "no number (-) - Ann Lee",
            ),
            (json!({"login": "ann2", "name": "Ann Lee"}), "no number (-) - Ann Lee"),
            (json!({"login": "ANN", "name": "Ann Lee"}), "4 - Ann Lee"),
        ] {
            let event = event(None, json!([named]));
            assert_eq!(directory.tell(&event, &source(true)), [told], "{named}");
        }
    }

    #[test]
    fn managers_of_the_group_are_told_too_each_once() {
        let directory = Directory::of(&[
            (
                "2",
                json!({"name": "Grace", "manages": "Billing, network", "role": "lead"}),
            ),
            ("3", json!({"name": "Mona", "manages": "*;BILLING"})),
            ("4", json!({"name": "Nina", "manages": "Sales, EMEA"})),
        ]);
        let tell = |group| directory.tell(&event(group, json!([])), &source(true));

        assert_eq!(tell(Some(" billing")), ["2 manager Grace", "3 manager Mona"]);
        assert_eq!(tell(Some("Sales, EMEA")), ["3 manager Mona", "4 manager Nina"]);
        assert_eq!(tell(Some("other")), ["3 manager Mona"]);
        assert_eq!((tell(None), tell(Some(" , "))), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_source_that_is_not_trusted_with_phones_tells_none() {
        let directory = Directory::of(&[("2", json!({"name": "Grace"}))]);
        let people = json!([{"staff_id": 2, "phone": "+14155550109"}, {"name": "Nina", "phone": "+14155550108"}]);

        let told = directory.tell(&event(None, people), &source(false));

        assert_eq!(told, ["2 - Grace", "no number (-) - Nina"]);
    }

    #[test]
    fn an_event_that_tells_all_numbers_and_no_group_asks_for_nothing() {
        let wanted = |event: &Event| keys_wanted(event, &named(event, &source(true)));
        let with_phone = json!([{"staff_id": 2, "name": "Grace", "phone": "+14155550102"}]);

        assert!(wanted(&event(None, with_phone.clone())).is_empty());
        let keys = wanted(&event(Some("Billing"), with_phone));
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["manages:*", "manages:billing"]);
        let keys = wanted(&event(
            None,
            json!([{"staff_id": "Ab", "name": "Grace  H", "email": "A@b"}]),
        ));
        assert_eq!(
            keys.into_iter().collect::<Vec<_>>(),
            ["email:a@b", "id:Ab", "name:grace h"]
        );
    }
}
