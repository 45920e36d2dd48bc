//! Zammad by its REST interface. Absent: how it is asked over HTTP (see `rest`), and its webhooks.
//!
//! Tickets are found by conditions, as its own overviews find them: those are answered by Zammad's database. A search by
//! words goes to Elasticsearch, which is behind by minutes on a busy day, and which small installations do not have.

use super::{
    rest::{Client, Product, Reply, is_number, text, time},
    seen::{Changes, HelpdeskError, SeenTicket},
    walk::{PAGE, Row, Walk},
};
use crate::domain::{
    source::Source,
    urgency::{Level, Urgencies},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

pub const PRODUCT: Product = Product {
    name: "Zammad",
    header: "authorization",
    prefix: "Token token=",
    token: "a token of an agent who may read all groups (avatar > Profile > Token Access, permission `ticket.agent`)",
};

/// For so long users, priorities and states are not asked for again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// More open tickets than this are not all critical: the table of urgencies is wrong.
const MAX_CRITICAL_PAGES: usize = 50;
const SEARCH: &str = "api/v1/tickets/search";
/// The user that stands for nobody.
const NOBODY: &str = "1";

pub struct Zammad {
    client: Client,
    /// What links to tickets begin with.
    base_url: String,
    critical: Urgencies,
    /// What was asked for once, by its path, and when.
    known: Mutex<HashMap<String, (Instant, Value)>>,
}

impl Zammad {
    pub fn new(client: Client, source: &Source) -> Self {
        Self {
            base_url: client.base_url(source.base_url.as_ref()),
            client,
            critical: source.urgencies.clone(),
            known: Mutex::default(),
        }
    }

    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        let mut walk = Walk::new(position);
        loop {
            // Zammad needs a condition; before this time there was none.
            let since = walk.since().unwrap_or(Timestamp::UNIX_EPOCH).to_string();
            let condition = [
                ("condition[ticket.updated_at][operator]", "after (absolute)"),
                ("condition[ticket.updated_at][value]", &since),
            ];
            let order = ("updated_at", "desc");
            let reply = self
                .search(&condition, order, walk.next_page(), walk.page_size())
                .await?;
            let tickets = reply.body.as_array().into_iter().flatten();
            let rows = tickets
                .map(|ticket| self.row(ticket))
                .collect::<Result<Vec<Row>, _>>()?;
            if !walk.take(rows, reply.date) {
                break;
            }
        }
        let (rows, position) = walk.end();
        let mut tickets = Vec::new();
        for row in rows {
            tickets.push(self.read(&row.ticket).await?);
        }
        Ok(Changes {
            tickets,
            position,
            has_more: false,
        })
    }

    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let (priorities, states) = (self.critical_priorities().await?, self.open_states().await?);
        let mut condition = vec![
            ("condition[ticket.priority_id][operator]", "is"),
            ("condition[ticket.state_id][operator]", "is"),
        ];
        condition.extend(
            priorities
                .iter()
                .map(|id| ("condition[ticket.priority_id][value][]", id.as_str())),
        );
        condition.extend(
            states
                .iter()
                .map(|id| ("condition[ticket.state_id][value][]", id.as_str())),
        );
        let mut tickets = Vec::new();
        for page in 1..=MAX_CRITICAL_PAGES {
            let reply = self.search(&condition, ("id", "asc"), page, PAGE).await?;
            let found = reply.body.as_array().map(Vec::as_slice).unwrap_or_default();
            for ticket in found {
                let ticket = self.read(ticket).await?;
                // Whatever the question was taken for.
                if ticket.is_open && self.critical.level(&ticket.urgency) == Some(Level::Critical) {
                    tickets.push(ticket);
                }
            }
            if found.len() < PAGE {
                return Ok(tickets);
            }
        }
        let (key, most) = (self.client.key("urgency"), MAX_CRITICAL_PAGES * PAGE);
        Err(HelpdeskError::new(format!(
            "Zammad has more than {most} open tickets that `{key}` calls critical: make it narrower"
        )))
    }

    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let mut tickets = Vec::new();
        for id in ids.iter().filter(|id| is_number(id)) {
            let path = format!("api/v1/tickets/{id}");
            if let Some(reply) = self.client.find(&path, &[("expand", "true")]).await? {
                tickets.push(self.read(&reply.body).await?);
            }
        }
        Ok(tickets)
    }

    /// Adds an internal note to a ticket: its customer does not see that.
    pub async fn note(&self, ticket_id: &str, note: &str) -> Result<(), HelpdeskError> {
        let Ok(ticket_id) = ticket_id.parse::<u64>() else {
            return Err(self.client.foreign(ticket_id));
        };
        let body = json!({"ticket_id": ticket_id, "body": note, "content_type": "text/plain", "type": "note", "internal": true});
        let path = "api/v1/ticket_articles";
        self.client.write(reqwest::Method::POST, path, &body).await
    }

    async fn search(
        &self,
        condition: &[(&str, &str)],
        (sort_by, order_by): (&str, &str),
        page: usize,
        size: usize,
    ) -> Result<Reply, HelpdeskError> {
        let (page, size) = (page.to_string(), size.to_string());
        let mut query = condition.to_vec();
        query.extend([("sort_by", sort_by), ("order_by", order_by), ("expand", "true")]);
        query.extend([("page", page.as_str()), ("per_page", &size)]);
        let reply = self.client.get(SEARCH, &query).await?;
        match reply.body.is_array() {
            true => Ok(reply),
            false => Err(self.client.unreadable(SEARCH, "it is no list")),
        }
    }

    /// The ids of the critical priorities.
    async fn critical_priorities(&self) -> Result<Vec<String>, HelpdeskError> {
        let list = self.list("api/v1/ticket_priorities").await?;
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        for priority in list.as_array().into_iter().flatten() {
            let name = text(priority, "name").unwrap_or_default();
            if self.critical.level(&name) == Some(Level::Critical) {
                ids.extend(text(priority, "id"));
            }
            names.push(format!("`{name}`"));
        }
        if ids.is_empty() {
            let (key, names) = (self.client.key("urgency"), names.join(", "));
            return Err(HelpdeskError::new(format!(
                "`{key}` calls none of Zammad's priorities critical: name one of {names}, like `\"3 high\" = \"critical\"`"
            )));
        }
        Ok(ids)
    }

    /// The ids of the states in which somebody still has to work on a ticket.
    async fn open_states(&self) -> Result<Vec<String>, HelpdeskError> {
        let list = self.list("api/v1/ticket_states").await?;
        let states = list.as_array().into_iter().flatten();
        let open = states.filter(|state| !is_done(state));
        Ok(open.filter_map(|state| text(state, "id")).collect())
    }

    /// A list that seldom changes.
    async fn list(&self, path: &str) -> Result<Value, HelpdeskError> {
        let list = self.remembered(path).await?;
        match list.is_array() {
            true => Ok(list),
            false => Err(self.client.unreadable(path, "it is no list")),
        }
    }

    /// What stands at a path, which may be some minutes old; nothing where it may not be seen.
    async fn remembered(&self, path: &str) -> Result<Value, HelpdeskError> {
        let mut known = self.known.lock().await;
        if let Some((asked_at, value)) = known.get(path)
            && asked_at.elapsed() < FRESH
        {
            return Ok(value.clone());
        }
        let reply = self.client.find(path, &[("expand", "true")]).await?;
        let value = reply.map(|reply| reply.body).unwrap_or_default();
        known.insert(path.to_owned(), (Instant::now(), value.clone()));
        Ok(value)
    }

    fn row(&self, ticket: &Value) -> Result<Row, HelpdeskError> {
        let (id, changed_at) = (text(ticket, "id"), time(ticket, "updated_at"));
        let (Some(id), Some(changed_at)) = (id, changed_at) else {
            let what = "a ticket without `id` or `updated_at`";
            return Err(self.client.unreadable(SEARCH, what));
        };
        let ticket = ticket.clone();
        Ok(Row { id, changed_at, ticket })
    }

    async fn read(&self, ticket: &Value) -> Result<SeenTicket, HelpdeskError> {
        let (Some(id), Some(urgency)) = (text(ticket, "id"), text(ticket, "priority")) else {
            let what = "a ticket without `id` or `priority`";
            return Err(self.client.unreadable(SEARCH, what));
        };
        let is_open = self.is_open(ticket).await?;
        let is_critical = is_open && self.critical.level(&urgency) == Some(Level::Critical);
        // Nobody is told of other tickets, so nobody is looked up.
        let (client, recipients) = match is_critical {
            true => (self.user(ticket, "customer_id").await?, self.owner(ticket).await?),
            false => (Value::Null, None),
        };
        let event = json!({
            "occurred_at": text(ticket, "updated_at"),
            "ticket": {
                "number": text(ticket, "number"),
                "subject": text(ticket, "title").unwrap_or_default(),
                "url": format!("{}/#ticket/zoom/{id}", self.base_url),
                "group": text(ticket, "group"),
            },
            "client": {"name": name(&client), "organisation": text(ticket, "organization")},
            "recipients": recipients.into_iter().collect::<Vec<Value>>(),
        });
        Ok(SeenTicket {
            id,
            is_open,
            urgency,
            event,
        })
    }

    /// Whether a ticket's state is one in which somebody has to work on it. One that nobody knows is: rather an alert too many.
    async fn is_open(&self, ticket: &Value) -> Result<bool, HelpdeskError> {
        let id = text(ticket, "state_id");
        let list = self.list("api/v1/ticket_states").await?;
        let mut states = list.as_array().into_iter().flatten();
        let state = states.find(|state| text(state, "id") == id);
        Ok(state.is_none_or(|state| !is_done(state)))
    }

    async fn owner(&self, ticket: &Value) -> Result<Option<Value>, HelpdeskError> {
        let Some(id) = text(ticket, "owner_id").filter(|id| id != NOBODY) else {
            return Ok(None);
        };
        let owner = self.user(ticket, "owner_id").await?;
        Ok(Some(json!({
            "staff_id": id,
            "role": "assignee",
            "name": name(&owner),
            "login": text(&owner, "login").or_else(|| text(ticket, "owner")),
            "email": text(&owner, "email"),
            "phone": text(&owner, "mobile").or_else(|| text(&owner, "phone")),
        })))
    }

    /// The user whose id stands in this member of a ticket; nothing if the token may not see them.
    async fn user(&self, ticket: &Value, member: &str) -> Result<Value, HelpdeskError> {
        match text(ticket, member) {
            Some(id) => self.remembered(&format!("api/v1/users/{id}")).await,
            None => Ok(Value::Null),
        }
    }
}

/// Whether nobody has to work on tickets in this state any more. Its kind stands behind a name that admins cannot change.
fn is_done(state: &Value) -> bool {
    let kind = text(state, "state_type").or_else(|| text(state, "name"));
    matches!(kind.as_deref(), Some("closed" | "merged" | "removed"))
}

fn name(user: &Value) -> Option<String> {
    let parts = ["firstname", "lastname"].iter().filter_map(|member| text(user, member));
    let name = parts.collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name).or_else(|| text(user, "email"))
}
