//! The people of a ticket of Request Tracker: its owner, and the administrative copies of the ticket and of its queue, who
//! are the managers. A group among them is its members.

use crate::source::{
    rest::{Client, items, text},
    seen::HelpdeskError,
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// For so long a group's members are not asked for again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// An event carries at most 100 recipients.
const MAX_PEOPLE: usize = 100;
/// Groups in groups in groups: further down nobody is looked for.
const MAX_DEPTH: usize = 3;

/// What is known of groups, by their ids: the people in them, and when they were asked for.
#[derive(Default)]
pub struct People(Mutex<HashMap<String, (Instant, Vec<Value>)>>);

impl People {
    /// The recipients of a ticket, each once: the owner first.
    pub async fn of(&self, ticket: &Value, client: &Client) -> Result<Vec<Value>, HelpdeskError> {
        let mut recipients = Vec::new();
        let mut logins = HashSet::new();
        let mut add = |person: &Value, role: &str| {
            if let Some(recipient) = recipient(person, role)
                && logins.insert(recipient["login"].to_string())
                && recipients.len() < MAX_PEOPLE
            {
                recipients.push(recipient);
            }
        };
        if let Some(owner) = ticket.get("Owner") {
            add(owner, "assignee");
        }
        let queue = ticket.get("Queue").unwrap_or(&Value::Null);
        for member in items(ticket, "AdminCc").chain(items(queue, "AdminCc")) {
            if is_group(member) {
                for person in self.in_group(member, client).await? {
                    add(&person, "manager");
                }
            } else {
                add(member, "manager");
            }
        }
        Ok(recipients)
    }

    /// The people in a group. One whose members may not be seen stands for itself: without a phone, so that the event
    /// shows that somebody is missing, and with a name, by which the staff directory may know who is meant.
    async fn in_group(&self, group: &Value, client: &Client) -> Result<Vec<Value>, HelpdeskError> {
        let Some(id) = text(group, "id") else {
            return Ok(Vec::new());
        };
        let mut known = self.0.lock().await;
        if let Some((asked_at, people)) = known.get(&id)
            && asked_at.elapsed() < FRESH
        {
            return Ok(people.clone());
        }
        let people = members(&id, client).await?.unwrap_or_else(|| vec![group.clone()]);
        known.insert(id, (Instant::now(), people.clone()));
        Ok(people)
    }
}

/// Asks for a group's people, and for those in the groups in it; `None` if its members may not be seen.
async fn members(id: &str, client: &Client) -> Result<Option<Vec<Value>>, HelpdeskError> {
    let (mut people, mut seen) = (Vec::new(), HashSet::from([id.to_owned()]));
    let mut groups = vec![id.to_owned()];
    for depth in 0..MAX_DEPTH {
        for id in std::mem::take(&mut groups) {
            let path = format!("REST/2.0/group/{id}");
            let Some(group) = client.find(&path, &[]).await? else {
                if depth == 0 {
                    return Ok(None);
                }
                continue;
            };
            for member in items(&group.body, "Members") {
                let Some(id) = text(member, "id") else { continue };
                if is_group(member) {
                    groups.extend(seen.insert(id.clone()).then_some(id));
                } else if people.len() < MAX_PEOPLE {
                    people.extend(user(&id, client).await?);
                }
            }
        }
    }
    Ok(Some(people))
}

/// One user by name or id, who may be gone or hidden.
async fn user(id: &str, client: &Client) -> Result<Option<Value>, HelpdeskError> {
    // A name may have any character.
    let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
    let reply = client.find(&format!("REST/2.0/user/{id}"), &[]).await?;
    Ok(reply.map(|reply| reply.body))
}

fn is_group(member: &Value) -> bool {
    text(member, "type").as_deref() == Some("group")
}

/// A person as an event names one; `None` for nobody, and for users that are switched off.
fn recipient(person: &Value, role: &str) -> Option<Value> {
    let name = text(person, "Name").or_else(|| text(person, "id"))?;
    let is_off = text(person, "Disabled").is_some_and(|disabled| disabled != "0");
    if is_off || matches!(name.as_str(), "Nobody" | "RT_System") {
        return None;
    }
    Some(json!({
        "staff_id": name,
        "login": name,
        "role": role,
        "name": text(person, "RealName").unwrap_or_else(|| name.clone()),
        "email": text(person, "EmailAddress"),
        "phone": text(person, "MobilePhone").or_else(|| text(person, "WorkPhone")),
    }))
}
