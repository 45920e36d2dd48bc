//! An entry of the staff directory: how it is read, and by which keys its person is found. Absent: whom an event means (see
//! `resolve`).

use crate::domain::{
    event::Recipient,
    json::Fault,
    phone::{NO_PHONE, PhoneNumber, Region},
    text::clean_line,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Longer texts are cut, in the directory as in events, so that both stay the same.
pub const MAX_LINE: usize = 200;

/// An entry as somebody wrote it: texts of a form, a file or a request. An empty one counts as absent.
#[derive(Clone, Default)]
pub struct Draft {
    pub staff_id: String,
    pub login: String,
    pub email: String,
    pub name: String,
    pub phone: String,
    pub role: String,
    pub region: String,
    pub manages: Vec<String>,
}

/// Somebody of a helpdesk who can be texted.
#[derive(Clone)]
pub struct Person {
    pub source: String,
    /// The helpdesk's own id of the person.
    pub staff_id: String,
    pub login: Option<String>,
    pub email: Option<String>,
    pub name: Option<String>,
    pub phone: PhoneNumber,
    pub role: Option<String>,
    /// Whose rules the number was read by, where it was named.
    pub region: Option<Region>,
    pub manages: Groups,
}

impl Draft {
    /// Reads the entry of a person of `source`; `region` is the source's. Names every bad field.
    pub fn read(&self, source: &str, region: Region) -> Result<Person, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut fault = |pointer: &str, detail: String| {
            let pointer = pointer.to_owned();
            faults.push(Fault { pointer, detail });
        };
        let staff_id = clean_line(&self.staff_id, usize::MAX);
        if staff_id.is_empty() {
            fault(
                "/staff_id",
                "this is missing: write the helpdesk's own id of the person".to_owned(),
            );
        } else if staff_id.chars().count() > MAX_LINE {
            fault(
                "/staff_id",
                format!("this is too long: write at most {MAX_LINE} characters"),
            );
        }
        let email = line(&self.email);
        if email.as_deref().is_some_and(|email| !is_email(email)) {
            fault(
                "/email",
                "this is no e-mail address: write one like `grace@example.com`, or none".to_owned(),
            );
        }
        let named = line(&self.region);
        let own_region = named.as_deref().and_then(Region::parse);
        if named.is_some() && own_region.is_none() {
            fault(
                "/region",
                "this is no region: write two letters like `DE`, or none".to_owned(),
            );
        }
        // A number is not blamed for a region that cannot be read.
        let phone = PhoneNumber::parse(&self.phone, own_region.unwrap_or(region));
        if phone.is_none() && (named.is_none() || own_region.is_some()) {
            fault("/phone", NO_PHONE.to_owned());
        }
        let Some(phone) = phone.filter(|_| faults.is_empty()) else {
            return Err(faults);
        };
        Ok(Person {
            source: source.to_owned(),
            staff_id,
            login: line(&self.login),
            email,
            name: line(&self.name),
            phone,
            role: line(&self.role),
            region: own_region,
            manages: Groups::read(self.manages.iter().map(String::as_str)),
        })
    }
}

impl Person {
    /// What events may name this person by.
    pub fn keys(&self) -> BTreeSet<String> {
        let named = [
            By::Id.key(Some(&self.staff_id)),
            By::Login.key(self.login.as_deref()),
            By::Email.key(self.email.as_deref()),
            By::Name.key(self.name.as_deref()),
        ];
        named.into_iter().flatten().chain(self.manages.keys()).collect()
    }
}

/// The names of groups (queues, departments, teams). A comma or semicolon separates two of them wherever they stand, in the
/// directory as in events: so a group whose own name has one is found all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(Vec<String>);

impl Groups {
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in texts.into_iter().flat_map(|text| text.split([',', ';', '\n'])) {
            let name = clean_line(name, MAX_LINE);
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        Self(names)
    }

    /// All of them in one text, which can be read again.
    pub fn as_text(&self) -> String {
        self.0.join(", ")
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By which those are found who manage one of them.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|name| By::Manages.key(Some(name)))
    }
}

/// As a column has it.
impl From<String> for Groups {
    fn from(text: String) -> Self {
        Self::read([text.as_str()])
    }
}

/// By what somebody is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Id,
    Login,
    Email,
    Name,
    Manages,
}

impl By {
    /// In the order in which they count.
    pub const NAMES: [Self; 4] = [Self::Id, Self::Login, Self::Email, Self::Name];

    /// The key of a text as the look-up table has it; `None` for a blank one. Small and capital letters differ in ids only.
    pub fn key(self, text: Option<&str>) -> Option<String> {
        let text = clean_line(text?, MAX_LINE);
        if text.is_empty() {
            return None;
        }
        Some(match self {
            Self::Id => format!("id:{text}"),
            Self::Login => format!("login:{}", text.to_lowercase()),
            Self::Email => format!("email:{}", text.to_lowercase()),
            Self::Name => format!("name:{}", text.to_lowercase()),
            Self::Manages => format!("manages:{}", text.to_lowercase()),
        })
    }

    /// What an event says of it.
    pub fn of(self, recipient: &Recipient) -> Option<&str> {
        match self {
            Self::Id => recipient.staff_id.as_deref(),
            Self::Login => recipient.login.as_deref(),
            Self::Email => recipient.email.as_deref(),
            Self::Name => recipient.name.as_deref(),
            Self::Manages => None,
        }
    }
}

/// A cleaned line; blank counts as absent.
fn line(text: &str) -> Option<String> {
    Some(clean_line(text, MAX_LINE)).filter(|line| !line.is_empty())
}

/// Whether a text may be an address at all: what is wrong in it beyond that is found by nobody, and harms nobody.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !text.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_by_its_own_region_and_every_bad_field_is_named() {
        let draft = Draft {
            staff_id: " 2 ".to_owned(),
            phone: "030 1234567".to_owned(),
            region: "de".to_owned(),
            manages: vec!["Billing, *".to_owned(), "billing".to_owned()],
            ..Draft::default()
        };
        let person = draft.read("acme", Region::UNKNOWN).unwrap();
        assert_eq!(
            (person.staff_id.as_str(), person.phone.as_e164()),
            ("2", "+49301234567")
        );
        assert_eq!(
            person.keys().into_iter().collect::<Vec<_>>(),
            ["id:2", "manages:*", "manages:billing"]
        );
        assert_eq!(Groups::from(person.manages.as_text()), person.manages);

        let pointers = |draft: Draft| {
            let faults = draft.read("acme", Region::UNKNOWN).err().unwrap().into_iter();
            faults.map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        let wrong = Draft {
            email: "nobody".to_owned(),
            ..Draft::default()
        };
        assert_eq!(pointers(wrong), ["/staff_id", "/email", "/phone"]);
        let region = Draft {
            region: "Mars".to_owned(),
            staff_id: "x".repeat(MAX_LINE + 1),
            ..draft
        };
        assert_eq!(pointers(region), ["/staff_id", "/region"]);
    }
}
