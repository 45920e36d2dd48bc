//! What becomes of an event, wherever it comes from: HTTP now; hooks, pollers and commands later. Looks its source up,
//! decides who is to be told (see `domain::staff` and `compose`), and raises or closes the alert. Absent: reading events and checking tokens,
//! which is the caller's, and SQL.

mod compose;

use crate::{
    domain::{
        event::{Event, Meaning},
        id::AlertId,
        message::{Message, Templates},
        phone::Region,
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

/// Takes events.
pub struct Intake {
    store: Db,
    sources: BTreeMap<String, Source>,
    templates: Templates,
}

impl Intake {
    pub fn new(store: Db, sources: BTreeMap<String, Source>, templates: Templates) -> Self {
        Self {
            store,
            sources,
            templates,
        }
    }

    /// Whether a source of this name is configured.
    pub fn has_source(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }

    /// The sources that are configured, and each one's region for numbers that bring none of their own.
    pub fn sources(&self) -> impl Iterator<Item = (&str, Region)> {
        self.sources.iter().map(|(name, source)| (name.as_str(), source.region))
    }

    /// Does what an event asks for; `None` if its source is not configured. Its outcome is durable when this returns; after
    /// an error nothing is half-stored, and the same event may be taken again.
    pub async fn take(&self, event: &Event, now: Timestamp) -> Result<Option<Outcome>, StoreError> {
        let Some(source) = self.sources.get(&event.source) else {
            return Ok(None);
        };
        let outcome = match &event.meaning {
            Meaning::Critical => self.raise(source, event, now).await,
            // Boxed: they would make the future of every request ten times as large.
            Meaning::Over => Box::pin(self.close(event, Ignored::TicketClosed, now)).await,
            Meaning::Lower => Box::pin(self.close(event, Ignored::NotCritical, now)).await,
            Meaning::UnknownUrgency(urgency) => {
                tracing::warn!(source = %event.source, %urgency, "ignored an event with an unknown urgency: send `critical`, `high`, `normal` or `low`");
                Ok(Outcome::Ignored(Ignored::UnknownUrgency {
                    urgency: urgency.clone(),
                    detail: format!(
                        "Nightbell does not know the urgency `{urgency}`: send `critical`, `high`, `normal` or `low`"
                    ),
                }))
            }
        };
        outcome.map(Some)
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
            Ok(compose::deliveries(&self.templates, source, event, people))
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
