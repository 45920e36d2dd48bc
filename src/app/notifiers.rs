//! Opens the endpoints that hear of lifecycle events: signed webhooks, services as their data says, mails, and notes on tickets.
//! Here, because they meet what may not know of each other: `notify`, `mail`, `source` and `store`. Absent: when an event is
//! posted, and what becomes of one that was not taken.

use super::{parts::load_mail_templates, settings::Config};
use crate::{
    domain::{day::to_millisecond, id::AlertId, lifecycle::LifecycleEvent},
    mail,
    notify::{self, Destination, Endpoint, Endpoints, Post, Posted, TICKETS, Target, Telling},
    source::{self, Helpdesk},
    store::Db,
};
use anyhow::{Context, anyhow};
use futures::FutureExt;
use jiff::{Timestamp, tz::TimeZone};
use lettre::message::Mailboxes;
use std::sync::Arc;

/// Opens all of them: those that are configured, and one for each source with `write_back`.
pub fn make_endpoints(config: &Config, store: &Db) -> anyhow::Result<Endpoints> {
    let templates = Arc::new(load_mail_templates(config));
    let mut endpoints = Endpoints::new();
    for settings in &config.webhooks {
        let opened = open(config, settings, &templates, store);
        let endpoint = opened.with_context(|| format!("`webhooks.{}`", settings.name))?;
        endpoints.insert(settings.name.clone(), Arc::new(endpoint));
    }
    Ok(endpoints)
}

fn open(
    config: &Config,
    settings: &notify::Settings,
    templates: &Arc<mail::Templates>,
    store: &Db,
) -> anyhow::Result<Endpoint> {
    let post = match &settings.destination {
        Some(Destination::Post(posting)) => {
            let telling = telling(config, settings);
            notify::open(posting, telling, settings.timeout, settings.allow_private).map_err(|why| anyhow!(why))?
        }
        Some(Destination::Mail(to)) => {
            let mailing = Mailing {
                endpoint: settings.name.clone(),
                telling: telling(config, settings),
                to: to.clone(),
                templates: Arc::clone(templates),
                store: store.clone(),
            };
            mailing.open()
        }
        None if settings.kind == TICKETS => make_noting(config, &settings.name, store)?,
        None => return Endpoint::open(settings).map_err(|why| anyhow!(why)),
    };
    Ok(Endpoint::with(settings, Target::Other(post)))
}

fn telling(config: &Config, endpoint: &notify::Settings) -> Telling {
    // Admins with an address of their own do not come by the public one.
    let pages = config.public_url.clone().filter(|_| config.listen_admin.is_none());
    Telling {
        personal: endpoint.include_personal,
        pages,
        time_zone: config.time_zone.clone(),
    }
}

/// Puts an event into the outbox of mails.
struct Mailing {
    endpoint: String,
    telling: Telling,
    to: Option<Mailboxes>,
    templates: Arc<mail::Templates>,
    store: Db,
}

impl Mailing {
    fn open(self) -> Post {
        let mailing = Arc::new(self);
        Arc::new(move |event| {
            let mailing = Arc::clone(&mailing);
            async move { mailing.put(&event).await }.boxed()
        })
    }

    /// Taken once it is in the outbox, which holds it until the mail server took it. Twice is once: its key is that of the event.
    async fn put(&self, event: &LifecycleEvent) -> Posted {
        let words = self.telling.words(event);
        let mut mail = self.templates.notice(&words.title, &words.text, words.link.as_deref());
        mail.to.clone_from(&self.to);
        let put = self.store.put_notice(&mail, &self.endpoint, &event.id, now());
        match put.await {
            Ok(()) => Posted::Taken { status: None },
            Err(error) => failed(&error),
        }
    }
}

/// Writes notes on the tickets of a source.
struct Noting {
    source: String,
    helpdesk: Helpdesk,
    time_zone: TimeZone,
    store: Db,
}

/// `endpoint`: the name that the source's settings give it.
fn make_noting(config: &Config, endpoint: &str, store: &Db) -> anyhow::Result<Post> {
    let is_meant = |settings: &&source::Settings| settings.notes_endpoint() == endpoint;
    let settings = config.polled.iter().find(is_meant);
    let source = settings.and_then(|settings| config.sources.get(&settings.source));
    let (settings, source) = settings.zip(source).context("its source is not configured")?;
    let noting = Arc::new(Noting {
        source: settings.source.clone(),
        helpdesk: Helpdesk::open(settings, source).context("notes on tickets cannot be written")?,
        time_zone: config.time_zone.clone(),
        store: store.clone(),
    });
    Ok(Arc::new(move |event| {
        let noting = Arc::clone(&noting);
        async move { noting.write(&event).await }.boxed()
    }))
}

impl Noting {
    /// A helpdesk takes a note as often as it is written: one whose answer is lost stands there twice.
    async fn write(&self, event: &LifecycleEvent) -> Posted {
        let Some(alert) = &event.alert else {
            return Posted::Skipped;
        };
        let facts = match self.store.note_facts(&AlertId::from(alert.id.as_str())).await {
            Ok(facts) => facts,
            Err(error) => return failed(&error),
        };
        let Some(note) = notify::note(event, &facts.names, &self.time_zone).filter(|_| !facts.is_test) else {
            return Posted::Skipped;
        };
        match self.helpdesk.note(&alert.ticket_id, &note).await {
            Ok(()) => {
                tracing::info!(source = %self.source, alert.id = %alert.id, event = %event.kind, "wrote a note on the ticket");
                Posted::Taken { status: None }
            }
            // A note to a ticket that is gone says nothing of the helpdesk.
            Err(error) => Posted::Failed {
                is_of_event: error.is_of_ticket(),
                status: None,
                why: error.to_string(),
                retry_after: None,
            },
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> Posted {
    Posted::failed(error.to_string())
}

fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
