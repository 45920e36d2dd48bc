//! Acknowledging an alert: once, by whoever is first. What a reply, a link, a program or an admin wants leads to the same
//! transaction, which locks the alert before its deliveries, as everybody does. Absent: what the person is answered, and the
//! codes (see `ack_codes`).

use super::{
    Db, ack_codes,
    error::StoreError,
    ledger,
    lifecycle::About,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{MaybeMs, Recipient, at, ms},
};
pub use crate::domain::acknowledge::AcknowledgeRules;
use crate::domain::{
    acknowledge::Via,
    day::after,
    delivery::State,
    id::{AlertId, DeliveryId},
    lifecycle::EventType,
    phone::PhoneNumber,
};
pub use ack_codes::{claim_codes, is_code};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;

/// A reply is about what its phone was told within this time.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a reply by which a person wants to acknowledge led to.
pub enum ByReply {
    /// This alert is acknowledged by it.
    Acknowledged { alert: ToldAlert },
    /// Somebody was first (perhaps this very person).
    Already {
        alert: ToldAlert,
        by: Option<String>,
        by_self: bool,
        at: Timestamp,
    },
    /// The ticket is no longer critical.
    Closed { alert: ToldAlert },
    /// Several are open: each with its code (made now, if it has none).
    Several(Vec<(ToldAlert, String)>),
    /// No alert that this phone was told of has this code; these are open.
    WrongCode(Vec<(ToldAlert, String)>),
    /// This phone was told of nothing that is open (7 days).
    Nothing,
}

/// An alert as the person was told of it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ToldAlert {
    pub alert_id: AlertId,
    pub delivery_id: DeliveryId,
    pub ticket_number: Option<String>,
    pub ticket_id: String,
    pub subject: Option<String>,
}

/// Who acknowledges an alert, and how.
#[derive(Clone, Debug)]
pub struct Acknowledger {
    via: Via,
    /// The name; of somebody whom a message told, else their role.
    by: Option<String>,
    staff_id: Option<String>,
    role: Option<String>,
    /// The message that told them.
    delivery: Option<DeliveryId>,
}

impl Acknowledger {
    /// A program or an admin.
    pub fn named(via: Via, by: Option<String>) -> Self {
        Self {
            via,
            by,
            staff_id: None,
            role: None,
            delivery: None,
        }
    }

    /// The person whom this message told.
    async fn told_by(tx: &mut Tx, via: Via, delivery: &DeliveryId) -> Result<Self, StoreError> {
        const WHO: Sql = sql!("select staff_id, role, name from delivery where id = $1");
        let Recipient { staff_id, role, name } = tx.one(WHO, args![delivery]).await?;
        Ok(Self {
            via,
            by: name.or_else(|| role.clone()),
            staff_id,
            role,
            delivery: Some(delivery.clone()),
        })
    }
}

/// What became of a wish to acknowledge an alert.
#[derive(Debug)]
pub enum Acknowledged {
    /// It is acknowledged by this; so many messages to others are held back.
    Now { canceled: usize },
    /// Somebody was first.
    Already(First),
    /// The ticket is no longer critical, and nobody had acknowledged it.
    Closed,
}

/// Who acknowledged an alert, and when.
#[derive(Debug)]
pub struct First {
    by: Option<String>,
    delivery: Option<DeliveryId>,
    at: Timestamp,
}

/// An alert as somebody sees it who has the link in a message.
#[derive(sqlx::FromRow)]
pub struct LinkedAlert {
    pub alert_id: AlertId,
    pub ticket_number: Option<String>,
    pub ticket_id: String,
    pub subject: Option<String>,
    #[sqlx(try_from = "MaybeMs")]
    pub closed_at: Option<Timestamp>,
    #[sqlx(try_from = "MaybeMs")]
    pub acknowledged_at: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
    /// Whether the person with the link did.
    by_self: i64,
}

impl LinkedAlert {
    pub fn is_by_self(&self) -> bool {
        self.by_self > 0
    }
}

impl Db {
    /// Acknowledges an alert; `None` if there is none with this id.
    pub async fn acknowledge(
        &self,
        alert_id: &AlertId,
        by: &Acknowledger,
        rules: AcknowledgeRules,
        now: Timestamp,
    ) -> Result<Option<Acknowledged>, StoreError> {
        let mut tx = self.begin().await?;
        let done = acknowledge(&mut tx, alert_id, by, rules, now).await?;
        if let Some(Acknowledged::Now { .. }) = done {
            tx.commit().await?;
        }
        Ok(done)
    }

    /// Acknowledges the alert of the message that the link stood in, unless that is done or over: a link that is pressed again
    /// and again writes nothing.
    pub async fn acknowledge_by_link(
        &self,
        delivery: &DeliveryId,
        rules: AcknowledgeRules,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_open = |alert: &LinkedAlert| alert.acknowledged_at.is_none() && alert.closed_at.is_none();
        let Some(alert) = self.linked_alert(delivery).await?.filter(is_open) else {
            return Ok(());
        };
        let mut tx = self.begin().await?;
        let by = Acknowledger::told_by(&mut tx, Via::Link, delivery).await?;
        if let Some(Acknowledged::Now { .. }) = acknowledge(&mut tx, &alert.alert_id, &by, rules, now).await? {
            tx.commit().await?;
        }
        Ok(())
    }

    /// The alert of the message that the link stood in.
    pub async fn linked_alert(&self, delivery: &DeliveryId) -> Result<Option<LinkedAlert>, StoreError> {
        const LINKED: Sql = sql!(
            "select a.id as alert_id, a.ticket_number, a.ticket_id, a.subject, a.closed_at, a.acknowledged_at,
                a.acknowledged_by, (select count(*) from delivery p where p.id = a.acknowledged_delivery
                    and (p.id = d.id or p.phone = d.phone)) as by_self
             from delivery d join alert a on a.id = d.alert_id where d.id = $1"
        );
        self.reads().optional(LINKED, args![delivery]).await
    }
}

/// An alert, locked until the commit.
#[derive(sqlx::FromRow)]
struct Alert {
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    acknowledged_by: Option<String>,
    acknowledged_delivery: Option<DeliveryId>,
}

/// Acknowledges an alert unless somebody has, or it is closed. `None` if there is none with this id.
async fn acknowledge(
    tx: &mut Tx,
    alert_id: &AlertId,
    by: &Acknowledger,
    rules: AcknowledgeRules,
    now: Timestamp,
) -> Result<Option<Acknowledged>, StoreError> {
    // Its row is locked first, as by every event of its ticket: nobody else acknowledges it, and none adds a delivery.
    const LOCK: Sql = sql!(
        "update alert set closed_at = closed_at where id = $1
         returning closed_at, acknowledged_at, acknowledged_by, acknowledged_delivery"
    );
    // Once the clean-up took the names out of an alert, none comes in again.
    const ACKNOWLEDGE: Sql = sql!(
        "update alert set acknowledged_at = $2, acknowledged_by = case when stripped_at is null then $3 end,
            acknowledged_via = $4, acknowledged_delivery = $5, quieted_at = $6
         where id = $1 and acknowledged_at is null"
    );
    let alert: Option<Alert> = tx.optional(LOCK, args![alert_id]).await?;
    let Some(alert) = alert else { return Ok(None) };
    if let Some(first) = alert.acknowledged_at {
        return Ok(Some(Acknowledged::Already(First {
            by: alert.acknowledged_by,
            delivery: alert.acknowledged_delivery,
            at: at(first),
        })));
    }
    if alert.closed_at.is_some() {
        return Ok(Some(Acknowledged::Closed));
    }
    let delivery = by.delivery.as_ref();
    let quieted_at = rules.cancels_others.then_some(ms(now));
    let arguments = args![
        alert_id,
        ms(now),
        &by.by,
        by.via.as_str(),
        delivery.map(DeliveryId::as_str),
        quieted_at
    ];
    tx.execute(ACKNOWLEDGE, arguments).await?;
    let about = About {
        alert_id: Some(alert_id),
        delivery_id: delivery,
        ..About::default()
    };
    tx.tell(
        EventType::AlertAcknowledged,
        &about,
        now,
        || json!({ "via": by.via, "staff_id": by.staff_id, "role": by.role }),
    );
    let canceled = ledger::acknowledge(tx, alert_id, delivery.map(|id| (id, by.via)), rules, now).await?;
    tracing::info!(alert.id = %alert_id, via = %by.via, canceled, "alert acknowledged");
    Ok(Some(Acknowledged::Now { canceled }))
}

/// An alert that a phone was told of, and how it stands.
#[derive(Clone, sqlx::FromRow)]
struct Told {
    #[sqlx(flatten)]
    alert: ToldAlert,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
}

impl Told {
    fn is_open(&self) -> bool {
        self.closed_at.is_none() && self.acknowledged_at.is_none()
    }
}

/// The columns of a [`Told`].
const TOLD: &str = "a.id as alert_id, part.id as delivery_id, a.ticket_number, a.ticket_id, a.subject, a.closed_at,
    a.acknowledged_at";

/// Acknowledges by a reply from this phone; `code` already in upper case. A code names its alert for as long as it stands, also
/// when the phone was told of it longer ago.
pub async fn by_reply(
    tx: &mut Tx,
    phone: &PhoneNumber,
    code: Option<&str>,
    rules: AcknowledgeRules,
    now: Timestamp,
) -> Result<ByReply, StoreError> {
    const OF_CODE: Sql = sql!(
        "select ",
        TOLD,
        " from ack_code c join delivery part on part.id = c.delivery_id join alert a on a.id = c.alert_id
         where c.phone = $1 and c.code = $2"
    );
    let told = told_lately(tx, phone, now).await?;
    let open: Vec<&Told> = told.iter().filter(|told| told.is_open()).collect();
    let meant = match code {
        Some(code) => {
            let named: Option<Told> = tx.optional(OF_CODE, args![phone.as_e164(), code]).await?;
            match named {
                Some(named) => named,
                None if open.is_empty() => return Ok(ByReply::Nothing),
                None => return Ok(ByReply::WrongCode(with_codes(tx, phone, &open, now).await?)),
            }
        }
        None => match (open.as_slice(), told.first()) {
            ([_, _, ..], _) => return Ok(ByReply::Several(with_codes(tx, phone, &open, now).await?)),
            ([only], _) => (*only).clone(),
            ([], Some(newest)) => newest.clone(),
            ([], None) => return Ok(ByReply::Nothing),
        },
    };
    let alert = meant.alert;
    let by = Acknowledger::told_by(tx, Via::Sms, &alert.delivery_id).await?;
    Ok(match acknowledge(tx, &alert.alert_id, &by, rules, now).await? {
        Some(Acknowledged::Now { .. }) => ByReply::Acknowledged { alert },
        Some(Acknowledged::Already(first)) => ByReply::Already {
            alert,
            by_self: is_of(tx, first.delivery.as_ref(), phone).await?,
            by: first.by,
            at: first.at,
        },
        Some(Acknowledged::Closed) => ByReply::Closed { alert },
        None => ByReply::Nothing,
    })
}

/// What this phone was told of lately, the newest first, each alert once.
async fn told_lately(tx: &mut Tx, phone: &PhoneNumber, now: Timestamp) -> Result<Vec<Told>, StoreError> {
    // Nobody is told of so many in a week; whoever was has to look at the pages.
    const LATELY: Sql = sql!(
        "select ",
        TOLD,
        " from (select id, alert_id, attempts, state from delivery where phone = $1 order by id desc limit 500) as part
            cross join alert a cross join attempt t
         where a.id = part.alert_id and t.delivery_id = part.id and t.number = part.attempts and t.begun_at >= $2
            and part.state in (",
        State::MAY_HAVE_TOLD,
        ") order by t.begun_at desc, part.id desc"
    );
    let mut told: Vec<Told> = tx
        .all(LATELY, args![phone.as_e164(), ms(after(now, -TOLD_WITHIN))])
        .await?;
    let mut seen = BTreeSet::new();
    told.retain(|told| seen.insert(told.alert.alert_id.clone()));
    Ok(told)
}

/// Whether this message went to this phone.
async fn is_of(tx: &mut Tx, delivery: Option<&DeliveryId>, phone: &PhoneNumber) -> Result<bool, StoreError> {
    const IS_OF: Sql = sql!("select id from delivery where id = $1 and phone = $2");
    match delivery {
        Some(id) => tx.exists(IS_OF, args![id, phone.as_e164()]).await,
        None => Ok(false),
    }
}

async fn with_codes(
    tx: &mut Tx,
    phone: &PhoneNumber,
    open: &[&Told],
    now: Timestamp,
) -> Result<Vec<(ToldAlert, String)>, StoreError> {
    let mut listed = Vec::with_capacity(open.len());
    for told in open {
        let alert = told.alert.clone();
        // Where there is none to be had, the other alerts can be told apart all the same.
        if let Some(code) = ack_codes::code_of(tx, phone, (&alert.alert_id, &alert.delivery_id), now).await? {
            listed.push((alert, code));
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{database_url::DatabaseUrl, event, json as document, source::LaterRecipients},
        store::{Limits, Raised},
    };
    use serde_json::Value;

    #[tokio::test]
    async fn others_hear_of_it_once_and_without_a_name() {
        let folder = std::env::temp_dir().join(format!("nightbell-acknowledge-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let url = format!("sqlite://{}/nightbell.db", folder.display());
        let store = Db::open(&DatabaseUrl::parse(&url).unwrap(), Limits::QUICK)
            .await
            .unwrap();
        store.listen_for([EventType::AlertAcknowledged].into_iter().collect());
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let body = document::parse(br#"{"ticket":{"id":1,"subject":"x","urgency":"critical"}}"#).unwrap();
        let event = event::parse(&body, now).unwrap();
        let raised = store
            .raise(&event, LaterRecipients::Untold, now, async || Ok(Vec::new()))
            .await;
        let Ok(Raised::New { alert_id, .. }) = raised else {
            panic!("known already")
        };

        for name in ["Grace", "Mona"] {
            let by = Acknowledger::named(Via::Page, Some(name.into()));
            let done = store
                .acknowledge(&alert_id, &by, AcknowledgeRules::default(), now)
                .await;
            assert_eq!(
                matches!(done, Ok(Some(Acknowledged::Now { .. }))),
                name == "Grace",
                "{done:?}"
            );
        }

        const TOLD: Sql = sql!("select type, alert_id, data from lifecycle_event");
        let told: Vec<(String, String, String)> = store.reads().all(TOLD, args![]).await.unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (told[0].0.as_str(), told[0].1.as_str()),
            ("alert.acknowledged", alert_id.as_str())
        );
        let data: Value = serde_json::from_str(&told[0].2).unwrap();
        assert_eq!(data, json!({ "via": "page", "staff_id": null, "role": null }));
    }
}
