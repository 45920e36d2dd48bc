//! A message that a person sent us on its way to the database, and what became of it. Absent: doing what it asks for (see
//! `inbound`).

use super::batcher::MAX_ROWS;
use crate::domain::{
    auto_reply::AutoReplies,
    day::LocalDay,
    id::DeliveryId,
    inbound::{HelpAnswers, Inbound, InboundKind, InboundOutcome},
    phone::PhoneNumber,
    reply::{Keyword, Meaning},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, sync::Arc};

/// What decides over messages.
pub struct InboundRules {
    pub help: HelpAnswers,
    /// Whether an acknowledgement holds back what others have not been told yet.
    pub cancels_others: bool,
    pub replies: Arc<AutoReplies>,
}

/// A message on its way to the database.
pub struct Incoming {
    pub message: Inbound,
    pub meaning: Meaning,
    pub rules: Arc<InboundRules>,
    /// Today; around midnight the day beside it too, by which another process may be sending yet.
    pub days: BTreeSet<LocalDay>,
    pub now: Timestamp,
}

/// What became of a message.
#[derive(Debug)]
pub enum Taken {
    Kept {
        id: String,
        kind: InboundKind,
        outcome: InboundOutcome,
        /// We answer it.
        is_answered: bool,
        /// The deliveries to a person who opted out by it whose calls may be under way.
        calling: Vec<DeliveryId>,
    },
    /// The same was kept before.
    Repeat { calling: Vec<DeliveryId> },
    /// Nobody knows its sender, and too many came from such.
    TooMany,
}

impl Incoming {
    /// Who opts out or in by it.
    pub fn wants(&self, keyword: Keyword) -> Option<&PhoneNumber> {
        let phone = self.message.phone.as_ref();
        phone.filter(|_| self.meaning == Meaning::Keyword(keyword))
    }

    /// How many rows it counts for in a batch: all of them where it must be alone.
    pub fn rows(&self) -> usize {
        let shares = self.wants(Keyword::Stop).or(self.wants(Keyword::Start)).is_some();
        if shares { 4 } else { MAX_ROWS }
    }
}
