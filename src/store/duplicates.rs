//! Repeats of what is known, answered from what is committed, without waiting for the writer. Whatever is not certain here
//! is decided in a transaction (see `alerts`).

use super::{
    engine::{Engine, Repeats},
    error::StoreError,
    jobs::DuplicateQuery,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
};
use crate::domain::{delivery::State, id::AlertId};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Tickets that had an event lately: a hint, so that a new one costs no question and many repeats at once no write. Wrong
/// or forgotten, it costs a round trip and changes no answer.
pub struct Seen {
    hasher: RandomState,
    marks: Box<[AtomicU64]>,
}

/// 128 KB; each ticket has one place, and takes it from whoever had it.
const SEEN: usize = 16 * 1024;

impl Seen {
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            marks: (0..SEEN).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn place(&self, source: &str, ticket_id: &str) -> (&AtomicU64, u64) {
        let mark = self.hasher.hash_one((source, ticket_id));
        (&self.marks[(mark % SEEN as u64) as usize], mark)
    }

    pub fn has(&self, source: &str, ticket_id: &str) -> bool {
        let (place, mark) = self.place(source, ticket_id);
        place.load(Ordering::Relaxed) == mark
    }

    pub fn add(&self, source: &str, ticket_id: &str) {
        let (place, mark) = self.place(source, ticket_id);
        place.store(mark, Ordering::Relaxed);
    }
}

/// What is known of an alert: a row for each delivery.
#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(try_from = "i64")]
    place: usize,
    id: AlertId,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    imported_at: Option<i64>,
    /// `None` of an alert without deliveries.
    state: Option<String>,
    seen: i64,
}

row! {
    QueryRow<'a> { place: usize as number, source: &'a str as text, ticket_id: &'a str as text, event_id: &'a Option<String> as text }
}

const FIND: Sql = sql!(
    "select r.place as place, a.id, a.closed_at, a.acknowledged_at, a.imported_at, d.state,
        (select count(*) from alert_event e where e.alert_id = a.id and e.kind = 'critical'
            and e.event_id = r.event_id) + case when a.event_id = r.event_id then 1 else 0 end as seen
     from ",
    QueryRow::ROWS,
    " cross join alert a left join delivery d on d.alert_id = a.id
     where a.source = r.source and a.ticket_id = r.ticket_id"
);

/// The alerts of tickets to which these events certainly add nothing.
pub async fn find(engine: &Engine, queries: &[Arc<DuplicateQuery>]) -> Result<Vec<Option<AlertId>>, StoreError> {
    let rows = queries.iter().enumerate().map(|(place, query)| QueryRow {
        place,
        source: &query.source,
        ticket_id: &query.ticket_id,
        event_id: &query.event_id,
    });
    let found: Vec<Found> = Repeats(engine).all(FIND, args![rows.collect::<Rows>()]).await?;
    let mut duplicates = vec![None; queries.len()];
    for found in found {
        let (Some(query), Some(duplicate)) = (queries.get(found.place), duplicates.get_mut(found.place)) else {
            continue;
        };
        let state = found.state.as_deref().and_then(State::parse);
        let is_known = found.acknowledged_at.is_some() || state.is_some_and(State::is_told);
        let is_told = found.closed_at.is_none() && is_known;
        if found.seen > 0 || found.imported_at.is_some() || (is_told && query.told_is_enough) {
            *duplicate = Some(found.id);
        }
    }
    Ok(duplicates)
}
