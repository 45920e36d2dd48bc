//! A fake Zammad: the part of its REST interface that is asked, in its shape (docs.zammad.org, "REST API"; no real one is
//! small enough to run here).

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

pub const TOKEN: &str = "zammad-token";

#[derive(Clone, Default)]
pub struct Zammad {
    pub url: String,
    state: Arc<Mutex<Tickets>>,
}

#[derive(Default)]
struct Tickets {
    tickets: Vec<Value>,
    /// How often a user was asked for.
    users: usize,
    articles: Vec<Value>,
    /// Whether it takes no articles, and how many it has not taken.
    is_read_only: bool,
    refused: usize,
}

type Shared = State<Arc<Mutex<Tickets>>>;
type Answer = Result<Json<Value>, StatusCode>;

impl Zammad {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(Tickets::default()));
        let router = Router::new()
            .route("/api/v1/tickets/search", get(search))
            .route("/api/v1/tickets/{id}", get(ticket))
            .route("/api/v1/ticket_priorities", get(priorities))
            .route("/api/v1/ticket_states", get(states))
            .route("/api/v1/users/{id}", get(user))
            .route("/api/v1/ticket_articles", post(article))
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// A ticket of Emil's.
    pub fn create(&self, id: u64, priority: &str) {
        let ticket = json!({"id": id, "number": format!("31{id}"), "title": "Oven too hot", "group_id": 2, "group": "Kitchen",
            "owner_id": 5, "owner": "emil@example.test", "customer_id": 8, "customer": "ina@client.test", "organization": "Bakers Ltd",
            "state_id": 2, "state": "open", "priority": priority, "priority_id": priority_id(priority), "updated_at": now()});
        self.state.lock().unwrap().tickets.push(ticket);
    }

    pub fn change(&self, id: u64, member: &str, value: Value) {
        let mut state = self.state.lock().unwrap();
        let ticket = state.tickets.iter_mut().find(|ticket| ticket["id"] == id).unwrap();
        ticket[member] = value;
        ticket["priority_id"] = priority_id(ticket["priority"].as_str().unwrap()).into();
        ticket["updated_at"] = now().into();
    }

    /// Changes a ticket without a trace: its last change lies years back.
    pub fn change_unseen(&self, id: u64, member: &str, value: Value) {
        self.change(id, member, value);
        let mut state = self.state.lock().unwrap();
        let ticket = state.tickets.iter_mut().find(|ticket| ticket["id"] == id).unwrap();
        ticket["updated_at"] = json!("2020-01-01T00:00:00.000Z");
    }

    /// Takes a ticket out of our sight; it is the caller's to show it again.
    pub fn hide(&self, id: u64) -> Value {
        let mut state = self.state.lock().unwrap();
        let place = state.tickets.iter().position(|ticket| ticket["id"] == id).unwrap();
        state.tickets.remove(place)
    }

    pub fn show(&self, ticket: Value) {
        self.state.lock().unwrap().tickets.push(ticket);
    }

    /// What was written on a ticket.
    pub fn notes(&self, id: u64) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let of_ticket = state.articles.iter().filter(|article| article["ticket_id"] == id);
        of_ticket
            .map(|article| article["body"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Takes no articles from now on, or takes them again.
    pub fn refuse_notes(&self, refuse: bool) {
        self.state.lock().unwrap().is_read_only = refuse;
    }

    /// Waits until it has refused a note.
    pub async fn refuses_a_note(&self) {
        super::eventually("a note that is refused", async || {
            let refused = self.state.lock().unwrap().refused;
            if refused > 0 { Ok(()) } else { Err("none") }
        })
        .await;
    }

    pub fn users_asked_for(&self) -> usize {
        self.state.lock().unwrap().users
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%FT%T%.3fZ").to_string()
}

fn priority_id(name: &str) -> u64 {
    name.split(' ').next().unwrap().parse().unwrap()
}

fn check(headers: &HeaderMap) -> Result<(), StatusCode> {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    let is_right = given == Some(&format!("Token token={TOKEN}"));
    if is_right {
        Ok(())
    } else {
        Err(StatusCode::UNAUTHORIZED)
    }
}

/// An article of a ticket, which must be one that customers do not see.
async fn article(
    State(state): Shared,
    headers: HeaderMap,
    Json(article): Json<Value>,
) -> Result<StatusCode, StatusCode> {
    check(&headers)?;
    let mut state = state.lock().unwrap();
    if state.is_read_only {
        state.refused += 1;
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(article["internal"], true, "{article}");
    state.articles.push(article);
    Ok(StatusCode::CREATED)
}

async fn search(State(state): Shared, headers: HeaderMap, Query(query): Query<Vec<(String, String)>>) -> Answer {
    check(&headers)?;
    let all = |name: &str| -> Vec<String> {
        let found = query.iter().filter(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).collect()
    };
    let one = |name: &str| all(name).first().cloned().unwrap_or_default();
    assert_eq!(one("expand"), "true");
    let mut tickets = state.lock().unwrap().tickets.clone();
    if one("condition[ticket.updated_at][operator]") == "after (absolute)" {
        let since: jiff::Timestamp = one("condition[ticket.updated_at][value]").parse().unwrap();
        tickets.retain(|ticket| {
            ticket["updated_at"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap()
                >= since
        });
    }
    for member in ["priority_id", "state_id"] {
        if one(&format!("condition[ticket.{member}][operator]")) == "is" {
            let wanted = all(&format!("condition[ticket.{member}][value][]"));
            tickets.retain(|ticket| wanted.contains(&ticket[member].to_string()));
        }
    }
    tickets.sort_by_key(|ticket| ticket[one("sort_by")].to_string());
    if one("order_by") == "desc" {
        tickets.reverse();
    }
    let (page, size): (usize, usize) = (one("page").parse().unwrap(), one("per_page").parse().unwrap());
    let page = tickets.into_iter().skip((page - 1) * size).take(size);
    Ok(Json(page.collect()))
}

async fn ticket(State(state): Shared, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    check(&headers)?;
    let state = state.lock().unwrap();
    let found = state.tickets.iter().find(|ticket| ticket["id"] == id).cloned();
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn priorities(headers: HeaderMap) -> Answer {
    check(&headers)?;
    let names = ["1 low", "2 normal", "3 high"];
    Ok(Json(
        names
            .iter()
            .map(|name| json!({"id": priority_id(name), "name": name, "active": true}))
            .collect(),
    ))
}

async fn states(headers: HeaderMap) -> Answer {
    check(&headers)?;
    let state = |id: u64, name: &str, kind: &str| json!({"id": id, "name": name, "state_type": kind});
    Ok(Json(json!([
        state(1, "new", "new"),
        state(2, "open", "open"),
        state(4, "done and paid", "closed"),
        state(5, "merged", "merged")
    ])))
}

async fn user(State(state): Shared, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    check(&headers)?;
    state.lock().unwrap().users += 1;
    match id {
        5 => Ok(Json(
            json!({"id": 5, "login": "emil@example.test", "email": "emil@example.test", "firstname": "Emil", "lastname": "Ek",
            "phone": "+4687654321", "mobile": "+46701234567"}),
        )),
        8 => Ok(Json(
            json!({"id": 8, "login": "ina@client.test", "firstname": "Ina", "lastname": "", "phone": ""}),
        )),
        _ => Err(StatusCode::NOT_FOUND),
    }
}
