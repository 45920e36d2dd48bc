//! What admins see of endpoints, and do with them.

use super::super::{
    db::Db,
    error::StoreError,
    query::Query,
    sql::{args, sql},
    types::{MaybeMs, Ms, ms},
};
use jiff::Timestamp;
use serde::Serialize;

/// How an endpoint stands.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct EndpointStatus {
    #[schema(examples("service-desk"))]
    pub name: String,
    /// How many events it has not heard of yet, wanted or not.
    #[schema(minimum = 0)]
    pub waiting: i64,
    /// Of these, how many were tried and not taken, or stand behind one of the same alert that was not.
    #[schema(minimum = 0)]
    pub held: i64,
    /// When the oldest of them happened; `null` if nothing waits.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub oldest_waiting_at: Option<Timestamp>,
    /// Since when it has taken nothing that was posted; `null` while it takes something.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub failing_since: Option<Timestamp>,
    /// Since when nothing is posted to it until somebody enables it again; `null` if it is not disabled.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub disabled_at: Option<Timestamp>,
    /// Why it did not take an event; `null` once it has taken all that was posted to it since.
    #[schema(required)]
    pub last_error: Option<String>,
    /// When it last took an event.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub succeeded_at: Option<Timestamp>,
}

/// One try to post an event.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct EndpointTry {
    #[sqlx(try_from = "Ms")]
    pub at: Timestamp,
    /// The event's id, as in the header `webhook-id`.
    pub event_id: String,
    /// The event's type.
    #[schema(examples("alert.created"))]
    pub event_type: String,
    /// `taken`, `failed` (it is tried again), `given_up` (it is not).
    #[schema(examples("taken"))]
    pub outcome: String,
    /// What the endpoint answered; `null` if it did not.
    #[schema(required, examples(200))]
    pub status: Option<i64>,
    #[schema(required)]
    pub error: Option<String>,
    #[schema(minimum = 0)]
    pub took_ms: i64,
}

impl EndpointStatus {
    /// One that has not begun to hear of anything.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            waiting: 0,
            held: 0,
            oldest_waiting_at: None,
            failing_since: None,
            disabled_at: None,
            last_error: None,
            succeeded_at: None,
        }
    }
}

impl Db {
    /// All endpoints that there are or were, by name.
    pub async fn endpoints(&self) -> Result<Vec<EndpointStatus>, StoreError> {
        self.reads()
            .all(
                sql!(
                    "select w.name, w.failing_since, w.disabled_at, w.last_error, w.succeeded_at,
                        coalesce((select last from lifecycle_place where id = 1), 0) - w.place
                            + (select count(*) from lifecycle_event u where u.place is null)
                            + (select count(*) from webhook_hold h where h.endpoint = w.name) as waiting,
                        (select count(*) from webhook_hold h where h.endpoint = w.name) as held,
                        coalesce(
                            (select e.at from lifecycle_event e where e.place =
                                (select min(h.place) from webhook_hold h where h.endpoint = w.name)),
                            (select e.at from lifecycle_event e where e.place > w.place order by e.place limit 1)
                        ) as oldest_waiting_at
                     from webhook_endpoint w order by w.name"
                ),
                args![],
            )
            .await
    }

    /// The newest tries of an endpoint, the latest first.
    pub async fn endpoint_tries(&self, name: &str) -> Result<Vec<EndpointTry>, StoreError> {
        self.reads()
            .all(
                sql!(
                    "select at, event_id, event_type, outcome, status, error, took_ms from webhook_try
                     where endpoint = $1 order by number desc"
                ),
                args![name],
            )
            .await
    }

    /// Lets an endpoint hear once more of everything that is kept since then, and of what it has not heard of yet. Returns how
    /// many events these are, wanted or not; `None` if there is no such endpoint.
    pub async fn replay_endpoint(&self, name: &str, from: Timestamp) -> Result<Option<i64>, StoreError> {
        self.place_events().await?;
        // From the oldest that is kept; seldom asked.
        let first: Option<i64> = self
            .reads()
            .optional_scalar(
                sql!("select place from lifecycle_event where place > 0 and at >= $1 order by place limit 1"),
                args![ms(from)],
            )
            .await?;
        let mut tx = self.begin().await?;
        let last: Option<i64> = tx
            .optional_scalar(sql!("select last from lifecycle_place where id = 1"), args![])
            .await?;
        let last = last.unwrap_or_default();
        let place = first.map_or(last, |first| first - 1);
        // Whoever has the turn has lost it. Never forward: what follows has not been posted yet.
        let place: Option<i64> = tx
            .optional_scalar(
                sql!(
                    "update webhook_endpoint set place = case when place < $2 then place else $2 end,
                        lease_owner = null, lease_until = null
                     where name = $1 returning place"
                ),
                args![name, place],
            )
            .await?;
        let Some(place) = place else { return Ok(None) };
        // They come again by their places.
        tx.execute(
            sql!("delete from webhook_hold where endpoint = $1 and place > $2"),
            args![name, place],
        )
        .await?;
        tx.commit().await?;
        self.engine.effects.listeners.notify();
        Ok(Some(last - place))
    }

    /// Lets an endpoint go on from where it stopped. False if there is no such endpoint.
    pub async fn enable_endpoint(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let enabled = tx
            .execute(
                sql!(
                    "update webhook_endpoint set disabled_at = null, failing_since = null, tries = 0, due_at = null
                     where name = $1"
                ),
                args![name],
            )
            .await?;
        // Nobody has tried meanwhile.
        tx.execute(
            sql!(
                "update webhook_hold set since = $2, due_at = case when due_at is null then due_at else $2 end
                 where endpoint = $1"
            ),
            args![name, ms(now)],
        )
        .await?;
        tx.commit().await?;
        self.engine.effects.listeners.notify();
        Ok(enabled > 0)
    }

    /// Posts nothing to an endpoint any more. False if there is no such endpoint.
    pub async fn disable_endpoint(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let disabled = self
            .execute(
                sql!("update webhook_endpoint set disabled_at = coalesce(disabled_at, $2) where name = $1"),
                args![name, ms(now)],
            )
            .await?;
        Ok(disabled > 0)
    }
}
