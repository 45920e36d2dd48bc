//! The demo: a service on a database that is gone afterwards, a provider that is played, and a handful of events that show
//! what becomes of messages. What is told is read back from the API. Absent: anything that the service itself does not do.

use super::{
    admin::{Content, Service},
    serve::{Opened, Role, stop_signal},
    settings::Loaded,
};
use crate::{
    domain::{
        answer::Receipt,
        database_url::DatabaseUrl,
        day::to_millisecond,
        delivery::{MessageStatus, State},
        route::ProviderName,
    },
    store::{Db, DeliveryFilter, StoreError},
};
use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    fs::DirBuilder,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::oneshot,
};

/// How long a delivery may take to come to where it is shown.
const LONGEST: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);
/// The played provider says so much later that a message went on.
const CARRIER_PACE: Duration = Duration::from_millis(250);

const GRACE: &str = "+14155550101";
const MONA: &str = "+14155550102";
/// Has opted out.
const NINA: &str = "+14155550103";
/// Has a phone that is switched off, as the carrier says with this code.
const IVAN: &str = "+14155550104";
const SWITCHED_OFF: i64 = 30003;

/// Runs it until Ctrl-C, or with `exit` until all is shown. Where no address was asked for and the default one is taken, any
/// free one will do.
pub async fn demo(mut loaded: Loaded, listens_anywhere: bool, exit: bool) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let token = format!("demo-{}", uuid::Uuid::new_v4().simple());
    let config = &mut loaded.config;
    config.database_url = DatabaseUrl::parse(&format!("sqlite://{}/demo.db", folder.0.display()))?;
    config.intake_tokens = vec![token.clone().into()];
    config.admin_tokens = vec![token.clone().into()];
    if listens_anywhere && std::net::TcpListener::bind(config.listen).is_err() {
        config.listen.set_port(0);
    }
    let opened = Opened::open(loaded, Role::All).await?;
    opened.carriers.put_log_that_accepts();
    let service = Service::at(opened.address()?, Some(token.clone().into()))?;
    let carrier = tokio::spawn(play_carrier(opened.store.clone()));
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let signal = stop_signal()?;
    let mut closed = unix::signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let running = tokio::spawn(opened.run(async move {
        tokio::select! {
            () = signal => {}
            _ = closed.recv() => {}
            _ = stopped => {}
        }
    }));
    let told = tell(&service).await;
    if told.is_ok() && !exit {
        say(&format!(
            "\nLook at it yourself, until Ctrl-C ends it:\n\
             \x20 pages    http://{address}/admin/   (log in with the token {token})\n\
             \x20 API      curl -H 'Authorization: Bearer {token}' http://{address}/v1/deliveries\n\
             \x20 its docs http://{address}/docs\n",
            address = service.address()
        ));
    }
    // Dropped, it ends the service.
    let held = (told.is_ok() && !exit).then_some(stop);
    running.await??;
    drop(held);
    carrier.abort();
    told
}

/// Where the database is. It goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("nightbell-demo-{}", uuid::Uuid::new_v4().simple()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reports what becomes of every message that was taken, as the status callbacks of a provider would, until it is dropped.
async fn play_carrier(store: Db) {
    loop {
        tokio::time::sleep(CARRIER_PACE).await;
        for state in [State::Sent, State::Accepted] {
            if let Err(error) = carry(&store, state).await {
                tracing::error!(%error, "the played carrier cannot report");
            }
        }
    }
}

/// Lets all messages in a state go on.
async fn carry(store: &Db, state: State) -> Result<(), StoreError> {
    let filter = DeliveryFilter {
        state: Some(state.as_str()),
        ..DeliveryFilter::default()
    };
    for delivery in store.deliveries(&filter, None, 100).await?.items {
        let is_off = delivery.phone.as_deref() == Some(IVAN);
        let (status, error_code) = match (state, is_off) {
            (State::Sent, true) => (MessageStatus::Undelivered, Some(SWITCHED_OFF)),
            (State::Sent, false) => (MessageStatus::Delivered, None),
            _ => (MessageStatus::Sent, None),
        };
        let receipt = Receipt {
            provider: ProviderName::Log,
            message_id: delivery.provider_message_id.unwrap_or_default(),
            word: status.as_str().to_owned(),
            status: Some(status),
            error_code,
            opted_out: false,
            read: false,
            attempt: Some((delivery.id, delivery.attempts)),
        };
        let now = to_millisecond(Timestamp::now());
        store.receive(receipt, SignedDuration::from_mins(10), now).await?;
    }
    Ok(())
}

/// One of the things that can become of a message.
struct Fate {
    /// What happens, before it is shown what came of it.
    says: &'static str,
    ticket: &'static str,
    subject: &'static str,
    people: &'static [(&'static str, &'static str)],
    /// Where its deliveries end.
    states: &'static [State],
}

const FATES: [Fate; 5] = [
    Fate {
        says: "A ticket turns critical, and the one who must know is told.",
        ticket: "1001",
        subject: "Checkout page 500 error",
        people: &[("Grace Hopper", GRACE)],
        states: &[State::Delivered],
    },
    Fate {
        says: "One of two people has opted out: she is not texted, the other one is.",
        ticket: "1002",
        subject: "VPN down for the whole office",
        people: &[("Nina Simon", NINA), ("Mona Meyer", MONA)],
        states: &[State::Suppressed, State::Delivered],
    },
    Fate {
        says: "A number in the helpdesk is none: it is in tonight's report, and the other one is told.",
        ticket: "1003",
        subject: "Payroll export is empty",
        people: &[("Bo Jensen", "ext. 12"), ("Mona Meyer", MONA)],
        states: &[State::Failed, State::Delivered],
    },
    Fate {
        says: "A phone is switched off, as the carrier says with a code: in tonight's report, with what to do.",
        ticket: "1004",
        subject: "Mail server does not answer",
        people: &[("Ivan Petrov", IVAN)],
        states: &[State::Undelivered],
    },
    Fate {
        says: "Today's limit is used up: the message waits for a slot, at the latest until tomorrow.",
        ticket: "1005",
        subject: "Backup failed",
        people: &[("Grace Hopper", GRACE)],
        states: &[State::Deferred],
    },
];

/// Lets it all happen and says what came of it.
async fn tell(service: &Service) -> anyhow::Result<()> {
    say("Nightbell demo. The database is temporary, the log plays the provider, and nothing leaves this machine.\n");
    let opt_out = json!({"phone": NINA, "reason": "asked by mail"});
    ask(service, Method::POST, &["v1", "opt-outs"], Some(opt_out)).await?;
    let mut number = 0;
    for fate in &FATES {
        if fate.states == [State::Deferred] {
            let limit = ask(service, Method::GET, &["v1", "limit"], None).await?;
            let used_up = json!({"limit": limit["used"]});
            ask(service, Method::PUT, &["v1", "limit"], Some(used_up)).await?;
        }
        number += 1;
        say(&format!(
            "\n{number}. {}\n   Ticket #{}: {}\n",
            fate.says, fate.ticket, fate.subject
        ));
        let answer = post(service, fate).await?;
        let alert = answer["alert_id"]
            .as_str()
            .context("the event was not accepted")?
            .to_owned();
        say_deliveries(&settled(service, &alert, fate.states).await?);
        if number == 1 {
            number += 1;
            say(&format!(
                "\n{number}. The helpdesk sends the same again, as they do after a time-out. Nobody is texted twice.\n"
            ));
            let again = post(service, fate).await?;
            say(&format!(
                "   answer: {}\n",
                again["outcome"].as_str().unwrap_or_default()
            ));
        }
    }
    Ok(())
}

async fn post(service: &Service, fate: &Fate) -> anyhow::Result<Value> {
    let people = fate.people.iter();
    let people: Vec<Value> = people
        .map(|(name, phone)| json!({"name": name, "role": "assignee", "phone": phone}))
        .collect();
    let event = json!({
        "ticket": {"id": fate.ticket, "number": fate.ticket, "subject": fate.subject, "urgency": "critical"},
        "client": {"organisation": "Acme Corp"},
        "recipients": people,
    });
    ask(service, Method::POST, &["v1", "events"], Some(event)).await
}

/// The deliveries of an alert once they are in these states.
async fn settled(service: &Service, alert: &str, states: &[State]) -> anyhow::Result<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let answer = ask(service, Method::GET, &["v1", "alerts", alert], None).await?;
        let deliveries = answer["deliveries"].as_array().cloned().unwrap_or_default();
        let are_there = deliveries.len() == states.len();
        if are_there
            && deliveries
                .iter()
                .zip(states)
                .all(|(delivery, state)| delivery["state"] == state.as_str())
        {
            return Ok(deliveries);
        }
        if begun.elapsed() > LONGEST {
            bail!(
                "the messages did not come to where they should: {}",
                answer["deliveries"]
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn say_deliveries(deliveries: &[Value]) {
    for delivery in deliveries {
        let text = |member: &Value| member.as_str().unwrap_or_default().to_owned();
        let code = delivery["error_code"]
            .as_i64()
            .map_or_else(String::new, |code| format!(", code {code}"));
        say(&format!(
            "   {} ({}): {}{code}\n",
            text(&delivery["recipient"]["name"]),
            text(&delivery["phone"]),
            text(&delivery["state"]),
        ));
        for entry in delivery["timeline"].as_array().into_iter().flatten() {
            say(&format!("     {}\n", text(&entry["text"])));
        }
    }
}

async fn ask(service: &Service, method: Method, path: &[&str], body: Option<Value>) -> anyhow::Result<Value> {
    let url = service.url(path, &[])?;
    let content = body.as_ref().map_or(Content::None, Content::Json);
    service.ask(method, url, content).await?.good()?.read()
}

/// Whoever reads it may have read enough.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
