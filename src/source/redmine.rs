//! Redmine by its REST interface. Absent: how it is asked over HTTP (see `rest`).
//!
//! Redmine serves a key that it does not know as a visitor without a name, with what such a one may see and no word of it.
//! So each round begins with the question whose the key is.

use super::{
    rest::{Client, Product, Reply, is_number, items, text, time},
    seen::{Changes, HelpdeskError, SeenTicket},
    walk::{PAGE, Row, Walk},
};
use crate::domain::{
    source::Source,
    urgency::{Level, Urgencies},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

pub const PRODUCT: Product = Product {
    name: "Redmine",
    header: "x-redmine-api-key",
    prefix: "",
    token: "the API access key of an administrator (My account > Show, once the REST web service is enabled in Administration > Settings > API)",
};

/// For so long a user is not asked for again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// More open tickets than this are not all critical: the table of urgencies is wrong.
const MAX_CRITICAL_PAGES: usize = 50;
const ISSUES: &str = "issues.json";

pub struct Redmine {
    client: Client,
    /// What links to tickets begin with.
    base_url: String,
    critical: Urgencies,
    /// The name of the users' own field that has their mobile number.
    phone_field: String,
    /// What is known of users, by their ids: `None` for one who may not be seen; and when they were asked for.
    users: Mutex<HashMap<String, (Instant, Option<Value>)>>,
}

impl Redmine {
    pub fn new(client: Client, source: &Source, phone_field: &str) -> Self {
        Self {
            base_url: client.base_url(source.base_url.as_ref()),
            client,
            critical: source.urgencies.clone(),
            phone_field: phone_field.to_owned(),
            users: Mutex::default(),
        }
    }

    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        self.check_key().await?;
        let mut walk = Walk::new(position);
        loop {
            let since = walk.since().map(|since| format!(">={}", since.strftime("%FT%TZ")));
            let size = walk.page_size();
            let offset = ((walk.next_page() - 1) * size).to_string();
            let mut query = vec![("status_id", "*"), ("sort", "updated_on:desc,id:desc")];
            query.extend(since.as_deref().map(|since| ("updated_on", since)));
            let size = size.to_string();
            query.extend([("limit", size.as_str()), ("offset", &offset)]);
            let reply = self.ask(&query).await?;
            let rows = items(&reply.body, "issues").map(|issue| self.row(issue));
            let rows = rows.collect::<Result<Vec<Row>, _>>()?;
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
        self.check_key().await?;
        let priorities = self.critical_priorities().await?;
        let mut tickets = Vec::new();
        for page in 0..MAX_CRITICAL_PAGES {
            let (size, offset) = (PAGE.to_string(), (page * PAGE).to_string());
            let mut query = vec![("status_id", "open"), ("sort", "id:asc"), ("priority_id", &priorities)];
            query.extend([("limit", size.as_str()), ("offset", &offset)]);
            let reply = self.ask(&query).await?;
            let issues: Vec<&Value> = items(&reply.body, "issues").collect();
            for issue in &issues {
                let ticket = self.read(issue).await?;
                if ticket.is_open && self.critical.level(&ticket.urgency) == Some(Level::Critical) {
                    tickets.push(ticket);
                }
            }
            if issues.len() < PAGE {
                return Ok(tickets);
            }
        }
        let (key, most) = (self.client.key("urgency"), MAX_CRITICAL_PAGES * PAGE);
        Err(HelpdeskError::new(format!(
            "Redmine has more than {most} open issues that `{key}` calls critical: make it narrower"
        )))
    }

    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        self.check_key().await?;
        let mut tickets = Vec::new();
        for ids in ids.chunks(PAGE) {
            let size = PAGE.to_string();
            let numbers = ids.iter().map(String::as_str).filter(|id| is_number(id));
            let wanted = numbers.collect::<Vec<_>>().join(",");
            if wanted.is_empty() {
                continue;
            }
            let query = [("status_id", "*"), ("issue_id", wanted.as_str()), ("limit", &size)];
            let reply = self.ask(&query).await?;
            for issue in items(&reply.body, "issues") {
                tickets.push(self.read(issue).await?);
            }
        }
        Ok(tickets)
    }

    /// Adds a private note to an issue.
    pub async fn note(&self, ticket_id: &str, note: &str) -> Result<(), HelpdeskError> {
        if !is_number(ticket_id) {
            return Err(self.client.foreign(ticket_id));
        }
        // To others Redmine answers that all went well, and shows the note to customers.
        let user = self.client.get("users/current.json", &[]).await?;
        if user.body["user"]["admin"] != true {
            return Err(HelpdeskError::new(
                "Redmine keeps notes private for administrators only, as far as it tells: set the key of one, or leave `write_back` out",
            ));
        }
        let body = json!({"issue": {"notes": note, "private_notes": true}});
        let path = format!("issues/{ticket_id}.json");
        self.client.write(reqwest::Method::PUT, &path, &body).await
    }

    /// Fails unless Redmine knows the key.
    async fn check_key(&self) -> Result<(), HelpdeskError> {
        self.client.get("users/current.json", &[]).await.map(|_| ())
    }

    async fn ask(&self, query: &[(&str, &str)]) -> Result<Reply, HelpdeskError> {
        let reply = self.client.get(ISSUES, query).await?;
        match reply.body.get("issues").is_some_and(Value::is_array) {
            true => Ok(reply),
            false => Err(self.client.unreadable(ISSUES, "it has no list `issues`")),
        }
    }

    /// The ids of the critical priorities, as a filter takes them.
    async fn critical_priorities(&self) -> Result<String, HelpdeskError> {
        let reply = self.client.get("enumerations/issue_priorities.json", &[]).await?;
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        for priority in items(&reply.body, "issue_priorities") {
            let name = text(priority, "name").unwrap_or_default();
            if self.critical.level(&name) == Some(Level::Critical) {
                ids.extend(text(priority, "id"));
            }
            names.push(format!("`{name}`"));
        }
        if ids.is_empty() {
            let (key, names) = (self.client.key("urgency"), names.join(", "));
            return Err(HelpdeskError::new(format!(
                "`{key}` calls none of Redmine's priorities critical: name one of {names}, like `Immediate = \"critical\"`"
            )));
        }
        Ok(ids.join("|"))
    }

    fn row(&self, issue: &Value) -> Result<Row, HelpdeskError> {
        let (id, changed_at) = (text(issue, "id"), time(issue, "updated_on"));
        let (Some(id), Some(changed_at)) = (id, changed_at) else {
            let what = "an issue without `id` or `updated_on`";
            return Err(self.client.unreadable(ISSUES, what));
        };
        let ticket = issue.clone();
        Ok(Row { id, changed_at, ticket })
    }

    async fn read(&self, issue: &Value) -> Result<SeenTicket, HelpdeskError> {
        let priority = issue.get("priority").and_then(|priority| text(priority, "name"));
        let (Some(id), Some(urgency)) = (text(issue, "id"), priority) else {
            let what = "an issue without `id` or `priority`";
            return Err(self.client.unreadable(ISSUES, what));
        };
        let is_closed = issue.pointer("/status/is_closed").and_then(Value::as_bool);
        // Redmine before 5.0 does not say; a status is not left without a date of closing when the issue is closed.
        let is_open = !is_closed.unwrap_or_else(|| text(issue, "closed_on").is_some());
        let is_critical = is_open && self.critical.level(&urgency) == Some(Level::Critical);
        let assignee = issue.get("assigned_to").filter(|_| is_critical);
        let recipients = match assignee {
            Some(assignee) => self.recipient(assignee).await?.into_iter().collect(),
            None => Vec::new(),
        };
        let event = json!({
            "occurred_at": text(issue, "updated_on"),
            "ticket": {
                "number": id,
                "subject": text(issue, "subject").unwrap_or_default(),
                "url": format!("{}/issues/{id}", self.base_url),
                "estimated_hours": issue.get("estimated_hours").and_then(Value::as_f64),
                "group": issue.get("project").and_then(|project| text(project, "name")),
            },
            "client": {"name": issue.get("author").and_then(|author| text(author, "name"))},
            "recipients": recipients,
        });
        Ok(SeenTicket {
            id,
            is_open,
            urgency,
            event,
        })
    }

    /// Whom an issue is assigned to: a user with the phone of their own field, or a group, or a user who may not be seen:
    /// then the name is all that there is.
    async fn recipient(&self, assignee: &Value) -> Result<Option<Value>, HelpdeskError> {
        let Some(id) = text(assignee, "id") else {
            return Ok(None);
        };
        let user = self.user(&id).await?.unwrap_or_default();
        let mut fields = items(&user, "custom_fields");
        let is_phone =
            |field: &&Value| text(field, "name").is_some_and(|name| name.eq_ignore_ascii_case(&self.phone_field));
        let phone = fields.find(is_phone).and_then(|field| text(field, "value"));
        Ok(Some(json!({
            "staff_id": id,
            "role": "assignee",
            "name": text(assignee, "name"),
            "login": text(&user, "login"),
            "email": text(&user, "mail"),
            "phone": phone,
        })))
    }

    async fn user(&self, id: &str) -> Result<Option<Value>, HelpdeskError> {
        let mut known = self.users.lock().await;
        if let Some((asked_at, user)) = known.get(id)
            && asked_at.elapsed() < FRESH
        {
            return Ok(user.clone());
        }
        let reply = self.client.find(&format!("users/{id}.json"), &[]).await?;
        let user = reply.and_then(|reply| reply.body.get("user").cloned());
        known.insert(id.to_owned(), (Instant::now(), user.clone()));
        Ok(user)
    }
}
