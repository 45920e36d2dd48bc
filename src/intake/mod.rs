//! What becomes of an event, wherever it comes from: HTTP now; hooks, pollers and commands later. Looks its source up,
//! decides who is to be told (see `domain::staff` and `compose`), and raises or closes the alert. Absent: reading events and checking tokens,
//! which is the caller's, and SQL.

mod compose;

use crate::{
    domain::{
        acknowledge::Acknowledging,
        event::{Event, Meaning},
        id::AlertId,
        message::{Message, Templates},
        source::Source,
        staff,
    },
    store::{self, Addition, Db, Raised, StoreError},
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// What became of an event, as its sender is answered. Whatever it says is committed.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The alert is new, or more people are told of it now.
    Accepted {
        #[schema(value_type = String, format = "uuid")]
        alert_id: AlertId,
        deliveries: Vec<Addition>,
    },
    /// The event says nothing that its alert does not know.
    Duplicate {
        #[schema(value_type = String, format = "uuid")]
        alert_id: AlertId,
    },
    /// The alert is closed, and so many deliveries are canceled by it.
    Resolved {
        #[schema(value_type = String, format = "uuid")]
        alert_id: AlertId,
        /// How many messages were held back by it.
        canceled: usize,
    },
    /// Understood, and there is nothing to do.
    Ignored(Ignored),
}

/// Why there is nothing to do.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Ignored {
    /// The ticket's urgency is below critical, and it has no alert.
    NotCritical,
    /// The ticket is over, and it has no alert.
    TicketClosed,
    UnknownUrgency {
        urgency: String,
        detail: String,
    },
}

/// How an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The helpdesk said so by itself.
    Webhook,
    /// The helpdesk was asked.
    Poll,
}

/// Takes events.
pub struct Intake {
    store: Db,
    sources: BTreeMap<String, Source>,
    templates: Templates,
    acknowledging: Acknowledging,
}

impl Intake {
    pub fn new(
        store: Db,
        sources: BTreeMap<String, Source>,
        templates: Templates,
        acknowledging: Acknowledging,
    ) -> Self {
        Self {
            store,
            sources,
            templates,
            acknowledging,
        }
    }

    /// Whether a source of this name is configured.
    pub fn has_source(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }

    /// The source of this name, if it is configured.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.get(name)
    }

    /// All sources that are configured, by name.
    pub fn sources(&self) -> &BTreeMap<String, Source> {
        &self.sources
    }

    /// Does what an event asks for; `None` if its source is not configured. Its outcome is durable when this returns; after
    /// an error nothing is half-stored, and the same event may be taken again.
    pub async fn take(&self, event: &Event, via: Via, now: Timestamp) -> Result<Option<Outcome>, StoreError> {
        let Some(source) = self.sources.get(&event.source) else {
            return Ok(None);
        };
        let meaning = source.meaning(&event.meaning);
        let outcome = match meaning {
            Meaning::Critical => self.raise(source, event, now).await?,
            // Boxed: they would make the future of every request ten times as large.
            Meaning::Over => Box::pin(self.close(event, Ignored::TicketClosed, now)).await?,
            Meaning::Lower => Box::pin(self.close(event, Ignored::NotCritical, now)).await?,
            Meaning::UnknownUrgency(urgency) => Box::pin(self.ignore(event, urgency, now)).await?,
        };
        if via == Via::Webhook
            && source.is_polled
            && matches!(outcome, Outcome::Accepted { .. } | Outcome::Duplicate { .. })
        {
            Box::pin(self.store.note_heard(&event.source, &event.ticket.id, now)).await?;
        }
        if via == Via::Webhook && source.is_polled && matches!(outcome, Outcome::Resolved { .. }) {
            // What the poll saw before counts no more: a ticket that is critical again is a change.
            Box::pin(self.store.forget_seen(&event.source, &event.ticket.id)).await?;
        }
        Ok(Some(outcome))
    }

    /// Nobody has said what this urgency means: counted and named, so that an admin finds it.
    async fn ignore(&self, event: &Event, urgency: String, now: Timestamp) -> Result<Outcome, StoreError> {
        self.store.note_unknown_urgency(&event.source, &urgency, now).await?;
        let source = &event.source;
        tracing::warn!(%source, %urgency, "ignored an event with an unknown urgency: send `critical`, `high`, `normal` or `low`, or say in `sources.{source}.urgency` what it means");
        Ok(Outcome::Ignored(Ignored::UnknownUrgency {
            detail: format!(
                "Nightbell does not know the urgency `{urgency}`: send `critical`, `high`, `normal` or `low`, or say in `sources.{source}.urgency` what it means"
            ),
            urgency,
        }))
    }

    /// A text that somebody wrote themselves, as it can be carried; or by how many characters it is too long.
    pub fn write(&self, text: &str) -> Result<Message, usize> {
        self.templates.write(text)
    }

    async fn raise(&self, source: &Source, event: &Event, now: Timestamp) -> Result<Outcome, StoreError> {
        let compose = async || {
            let mut people = staff::named(event, source);
            let keys = staff::keys_wanted(event, &people);
            if !keys.is_empty() {
                // Boxed: most events ask nothing, and their future need not have room for it.
                let found = Box::pin(self.store.find_staff(&event.source, keys)).await?;
                people = staff::resolve(event, people, &found);
            }
            let composer = compose::Composer {
                templates: &self.templates,
                acknowledging: &self.acknowledging,
                now,
            };
            Ok(compose::deliveries(&composer, source, event, people))
        };
        let raised = self.store.raise(event, source.later_recipients, now, compose).await?;
        Ok(match raised {
            Raised::New { alert_id, deliveries } => {
                tracing::info!(alert.id = %alert_id, source = %event.source, ticket.id = %event.ticket.id, deliveries = deliveries.len(), "alert raised");
                Outcome::Accepted { alert_id, deliveries }
            }
            Raised::Duplicate { alert_id } => Outcome::Duplicate { alert_id },
        })
    }

    /// Closes the ticket's alert; `without_alert` if it has none.
    async fn close(&self, event: &Event, without_alert: Ignored, now: Timestamp) -> Result<Outcome, StoreError> {
        Ok(match self.store.resolve(event, now).await? {
            Some(store::Resolved::Closed { alert_id, canceled }) => {
                tracing::info!(alert.id = %alert_id, source = %event.source, ticket.id = %event.ticket.id, canceled, "alert closed");
                Outcome::Resolved { alert_id, canceled }
            }
            Some(store::Resolved::Duplicate { alert_id }) => Outcome::Duplicate { alert_id },
            None => Outcome::Ignored(without_alert),
        })
    }
}
