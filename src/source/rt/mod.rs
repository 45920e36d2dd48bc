//! Request Tracker 5 by its REST2 interface. Absent: how it is asked over HTTP (see `rest`), and people (see `people`).
//!
//! TicketSQL reads a time in the time zone of the user who asks, which nobody can find out from outside. So the question
//! for changes names a time that is early enough in every zone of the world, and the walk through the answer, which has
//! times in UTC, goes from the newest ticket back to where it was (see `walk`). The cursor could also be the id of the
//! newest transaction; but a user who may not read some of them (comments, mails) gets pages with gaps, and no word of it.
//!
//! No search finds tickets that are deleted or merged into others: those are gone.

mod people;

use super::{
    rest::{Client, MAX_HOURS, Product, Reply, figure, is_number, items, text, time},
    seen::{Changes, HelpdeskError, SeenTicket},
    walk::{PAGE, Row, Walk},
};
use crate::domain::{
    source::Source,
    urgency::{Level, Matcher, Urgencies},
};
use jiff::{SignedDuration, Timestamp};
use people::People;
use serde_json::{Value, json};
use std::collections::HashSet;

pub const PRODUCT: Product = Product {
    name: "Request Tracker",
    header: "authorization",
    prefix: "token ",
    token: "an authentication token of its API user (Logged in as > Settings > Auth Tokens)",
};

/// No zone is further behind UTC than 12 hours or ahead of it than 14 (IANA tz database).
const ALL_ZONES: SignedDuration = SignedDuration::from_hours(15);
/// So many tickets are named in one question: its address stays below 4 KB.
const AT_ONCE: usize = 100;
/// More open tickets than this are not all critical: the table of urgencies is wrong.
const MAX_CRITICAL_PAGES: usize = 50;

const FIELDS: &[(&str, &str)] = &[
    (
        "fields",
        "Subject,Status,Priority,LastUpdated,Owner,Queue,Requestor,AdminCc,CustomFields,TimeEstimated",
    ),
    ("fields[Owner]", PERSON),
    ("fields[AdminCc]", PERSON),
    ("fields[Queue]", "Name,AdminCc"),
    ("fields[Queue][AdminCc]", PERSON),
    ("fields[Requestor]", "Name,RealName,EmailAddress,Organization"),
];
/// What is asked of a person. The phones stay blank where the API user lacks the right `AdminUsers`.
const PERSON: &str = "Name,RealName,EmailAddress,MobilePhone,WorkPhone";

pub struct RequestTracker {
    client: Client,
    people: People,
    /// What links to tickets begin with.
    base_url: String,
    critical: Urgencies,
}

impl RequestTracker {
    pub fn new(client: Client, source: &Source) -> Self {
        Self {
            base_url: client.base_url(source.base_url.as_ref()),
            client,
            people: People::default(),
            critical: source.urgencies.clone(),
        }
    }

    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        let mut walk = Walk::new(position);
        loop {
            let query = changed_since(walk.since());
            let reply = self.search_newest(&query, walk.next_page(), walk.page_size()).await?;
            let rows = items(&reply.body, "items").map(|item| self.row(item));
            let rows = rows.collect::<Result<Vec<Row>, _>>()?;
            if !walk.take(rows, reply.date) {
                break;
            }
        }
        let (rows, position) = walk.end();
        let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
        Ok(Changes {
            tickets: self.tickets(&ids).await?,
            position,
            has_more: false,
        })
    }

    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let query = critical_query(&self.critical).ok_or_else(|| {
            let key = self.client.key("urgency");
            HelpdeskError::new(format!(
                "`{key}` calls no number critical, and priorities of Request Tracker are numbers: add `\">= 80\" = \"critical\"`"
            ))
        })?;
        let mut tickets = Vec::new();
        for page in 1..=MAX_CRITICAL_PAGES {
            let reply = self.search(&query, FIELDS, page).await?;
            let found: Vec<&Value> = items(&reply.body, "items").collect();
            for item in &found {
                let ticket = self.read(item, true).await?;
                // Words of the table go before its ranges, which the question does not know.
                if self.critical.level(&ticket.urgency) == Some(Level::Critical) {
                    tickets.push(ticket);
                }
            }
            if found.len() < PAGE {
                return Ok(tickets);
            }
        }
        let (key, most) = (self.client.key("urgency"), MAX_CRITICAL_PAGES * PAGE);
        Err(HelpdeskError::new(format!(
            "Request Tracker has more than {most} open tickets that `{key}` calls critical: make it narrower"
        )))
    }

    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let mut tickets = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            // What was no number would be read as TicketSQL; Request Tracker has no such id.
            let numbers = ids.iter().filter(|id| is_number(id));
            let wanted: Vec<String> = numbers.map(|id| format!("id = {id}")).collect();
            if wanted.is_empty() {
                continue;
            }
            let wanted = format!("({})", wanted.join(" OR "));
            let active = format!("{wanted} AND Status = '__Active__'");
            let active = self.search(&active, &[], 1).await?;
            let active: HashSet<String> = items(&active.body, "items")
                .filter_map(|item| text(item, "id"))
                .collect();
            let reply = self.search(&wanted, FIELDS, 1).await?;
            let mut found = Vec::new();
            for item in items(&reply.body, "items") {
                let is_open = text(item, "id").is_some_and(|id| active.contains(&id));
                found.push(self.read(item, is_open).await?);
            }
            // In the order of the ids, which is that of the changes.
            found.sort_by_key(|ticket| ids.iter().position(|id| *id == ticket.id));
            tickets.extend(found);
        }
        Ok(tickets)
    }

    /// Comments on a ticket: its customer does not see that.
    pub async fn note(&self, ticket_id: &str, note: &str) -> Result<(), HelpdeskError> {
        if !is_number(ticket_id) {
            return Err(self.client.foreign(ticket_id));
        }
        let body = json!({"Content": note, "ContentType": "text/plain"});
        let path = format!("REST/2.0/ticket/{ticket_id}/comment");
        self.client.write(reqwest::Method::POST, &path, &body).await
    }

    async fn search(&self, query: &str, fields: &[(&str, &str)], page: usize) -> Result<Reply, HelpdeskError> {
        let (page, size) = (page.to_string(), PAGE.to_string());
        let mut question = vec![("query", query), ("orderby", "id"), ("order", "ASC")];
        question.extend([("page", page.as_str()), ("per_page", &size)]);
        question.extend(fields);
        self.ask(&question).await
    }

    async fn search_newest(&self, query: &str, page: usize, size: usize) -> Result<Reply, HelpdeskError> {
        let (page, size) = (page.to_string(), size.to_string());
        let mut question = vec![("query", query), ("fields", "LastUpdated")];
        question.extend([("orderby", "LastUpdated"), ("order", "DESC")]);
        question.extend([("orderby", "id"), ("order", "DESC")]);
        question.extend([("page", page.as_str()), ("per_page", &size)]);
        self.ask(&question).await
    }

    async fn ask(&self, question: &[(&str, &str)]) -> Result<Reply, HelpdeskError> {
        let reply = self.client.get(TICKETS, question).await?;
        match reply.body.get("items").is_some_and(Value::is_array) {
            true => Ok(reply),
            false => Err(self.client.unreadable(TICKETS, "it has no list `items`")),
        }
    }

    fn row(&self, item: &Value) -> Result<Row, HelpdeskError> {
        let (id, changed_at) = (text(item, "id"), time(item, "LastUpdated"));
        let (Some(id), Some(changed_at)) = (id, changed_at) else {
            let what = "a ticket without `id` or `LastUpdated`";
            return Err(self.client.unreadable(TICKETS, what));
        };
        let ticket = Value::Null;
        Ok(Row { id, changed_at, ticket })
    }

    async fn read(&self, item: &Value, is_open: bool) -> Result<SeenTicket, HelpdeskError> {
        let (Some(id), Some(urgency)) = (text(item, "id"), text(item, "Priority")) else {
            let what = "a ticket without `id` or `Priority`";
            return Err(self.client.unreadable(TICKETS, what));
        };
        let recipients = match self.critical.level(&urgency) {
            Some(Level::Critical) if is_open => self.people.of(item, &self.client).await?,
            // Nobody is told of it, so nobody is looked up.
            _ => Vec::new(),
        };
        let event = json!({
            "occurred_at": text(item, "LastUpdated"),
            "ticket": {
                "number": id,
                "subject": text(item, "Subject").unwrap_or_default(),
                "url": format!("{}/Ticket/Display.html?id={id}", self.base_url),
                "estimated_hours": estimated_hours(item),
                "ai": {"confidence_percent": custom_field(item, "AI Confidence", 100.0)},
                "group": item.get("Queue").and_then(|queue| text(queue, "Name")),
            },
            "client": client(item),
            "recipients": recipients,
        });
        Ok(SeenTicket {
            id,
            is_open,
            urgency,
            event,
        })
    }
}

const TICKETS: &str = "REST/2.0/tickets";

/// Asks for all tickets that changed since then, and for some that changed before.
fn changed_since(since: Option<Timestamp>) -> String {
    let early = since.and_then(|since| since.checked_sub(ALL_ZONES).ok());
    match early.filter(|early| *early > Timestamp::UNIX_EPOCH) {
        None => "id > 0".into(),
        Some(early) => format!("LastUpdated >= '{}'", early.strftime("%F %T")),
    }
}

/// Asks for all open tickets whose priority may be critical; `None` if the table names no number.
fn critical_query(critical: &Urgencies) -> Option<String> {
    let conditions: Vec<String> = critical.critical().filter_map(condition).collect();
    (!conditions.is_empty()).then(|| format!("Status = '__Active__' AND ({})", conditions.join(" OR ")))
}

/// Priorities are whole numbers, so bounds between two of them go to the next one inside.
fn condition(matcher: &Matcher) -> Option<String> {
    match matcher {
        Matcher::Word(word) => word.parse::<i64>().ok().map(|number| format!("Priority = {number}")),
        Matcher::Range { from, to } => {
            let from = from.is_finite().then(|| format!("Priority >= {}", from.ceil()));
            let to = to.is_finite().then(|| format!("Priority <= {}", to.floor()));
            let bounds: Vec<String> = from.into_iter().chain(to).collect();
            Some(format!("({})", bounds.join(" AND ")))
        }
    }
}

fn custom_field(item: &Value, name: &str, max: f64) -> Option<f64> {
    let mut fields = items(item, "CustomFields");
    let field = fields.find(|field| text(field, "name").is_some_and(|found| found.eq_ignore_ascii_case(name)))?;
    let value = items(field, "values").next()?.as_str()?;
    figure(value, max)
}

/// The field of this name, or what Request Tracker itself has, which counts minutes.
fn estimated_hours(item: &Value) -> Option<f64> {
    let minutes = || text(item, "TimeEstimated").and_then(|minutes| figure(&minutes, MAX_HOURS * 60.0));
    let estimated = || minutes().filter(|minutes| *minutes > 0.0).map(|minutes| minutes / 60.0);
    custom_field(item, "Estimated Hours", MAX_HOURS).or_else(estimated)
}

/// Who asked for help: the first of them.
fn client(item: &Value) -> Value {
    let requestor = items(item, "Requestor").next().unwrap_or(&Value::Null);
    let name = ["RealName", "EmailAddress", "Name", "id"];
    json!({
        "name": name.iter().find_map(|member| text(requestor, member)),
        "organisation": text(requestor, "Organization"),
    })
}

#[cfg(test)]
mod tests;
