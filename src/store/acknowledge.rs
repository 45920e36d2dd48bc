//! Acknowledging an alert by a reply. A stand-in with the types of the real one, which takes its place: it holds nothing back,
//! tells nobody, and makes codes of any kind.

use super::{
    error::StoreError,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{at, ms, new_id},
};
use crate::domain::{
    day::after,
    delivery::State,
    id::{AlertId, DeliveryId},
    phone::PhoneNumber,
};
use jiff::{SignedDuration, Timestamp};

/// What an acknowledgement does beside.
#[derive(Clone, Copy, Debug)]
pub struct AcknowledgeRules {
    pub cancels_others: bool,
}

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
pub struct ToldAlert {
    pub alert_id: AlertId,
    pub delivery_id: DeliveryId,
    pub ticket_number: Option<String>,
    pub ticket_id: String,
    pub subject: Option<String>,
}

/// An alert that a phone was told of, and how it stands.
#[derive(sqlx::FromRow)]
struct Told {
    alert_id: AlertId,
    delivery_id: DeliveryId,
    ticket_number: Option<String>,
    ticket_id: String,
    subject: Option<String>,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    acknowledged_by: Option<String>,
    acknowledged_delivery: Option<String>,
    name: Option<String>,
    code: Option<String>,
}

impl Told {
    fn is_open(&self) -> bool {
        self.closed_at.is_none() && self.acknowledged_at.is_none()
    }

    fn alert(&self) -> ToldAlert {
        ToldAlert {
            alert_id: self.alert_id.clone(),
            delivery_id: self.delivery_id.clone(),
            ticket_number: self.ticket_number.clone(),
            ticket_id: self.ticket_id.clone(),
            subject: self.subject.clone(),
        }
    }
}

/// Whether a bare word of three characters is a code of this phone (open or late): only then it is an acknowledgement.
pub async fn is_code(tx: &mut Tx, phone: &PhoneNumber, code: &str) -> Result<bool, StoreError> {
    const CODE: Sql = sql!("select 1 from ack_code where phone = $1 and code = $2");
    tx.exists(CODE, args![phone.as_e164(), code]).await
}

/// Acknowledges by a reply from this phone; `code` already in upper case.
pub async fn by_reply(
    tx: &mut Tx,
    phone: &PhoneNumber,
    code: Option<&str>,
    _rules: AcknowledgeRules,
    now: Timestamp,
) -> Result<ByReply, StoreError> {
    const TOLD: Sql = sql!(
        "select d.alert_id, d.id as delivery_id, a.ticket_number, a.ticket_id, a.subject, a.closed_at, a.acknowledged_at,
            a.acknowledged_by, a.acknowledged_delivery, d.name, c.code
         from delivery d join attempt t on t.delivery_id = d.id and t.number = d.attempts join alert a on a.id = d.alert_id
            left join ack_code c on c.delivery_id = d.id
         where d.phone = $1 and d.state || '' in (",
        State::ANSWERABLE,
        ") and t.begun_at >= $2 order by t.begun_at desc"
    );
    const ACKNOWLEDGE: Sql = sql!(
        "update alert set acknowledged_at = $2, acknowledged_by = $3, acknowledged_via = 'sms', acknowledged_delivery = $4
         where id = $1"
    );
    let since = ms(after(now, -SignedDuration::from_hours(7 * 24)));
    let told: Vec<Told> = tx.all(TOLD, args![phone.as_e164(), since]).await?;
    let meant = match code {
        Some(code) => told.iter().find(|told| told.code.as_deref() == Some(code)),
        None => match told.iter().filter(|told| told.is_open()).count() {
            0 => told.first(),
            1 => told.iter().find(|told| told.is_open()),
            _ => return Ok(ByReply::Several(codes(tx, phone, &told, now).await?)),
        },
    };
    let Some(meant) = meant else {
        return Ok(match code {
            Some(_) => ByReply::WrongCode(codes(tx, phone, &told, now).await?),
            None => ByReply::Nothing,
        });
    };
    let alert = meant.alert();
    if let Some(acknowledged_at) = meant.acknowledged_at {
        return Ok(ByReply::Already {
            alert,
            by: meant.acknowledged_by.clone(),
            by_self: meant.acknowledged_delivery.as_deref() == Some(meant.delivery_id.as_str()),
            at: at(acknowledged_at),
        });
    }
    if meant.closed_at.is_some() {
        return Ok(ByReply::Closed { alert });
    }
    let arguments = args![&meant.alert_id, ms(now), &meant.name, &meant.delivery_id];
    tx.execute(ACKNOWLEDGE, arguments).await?;
    Ok(ByReply::Acknowledged { alert })
}

/// Those that are open, each with its code.
async fn codes(
    tx: &mut Tx,
    phone: &PhoneNumber,
    told: &[Told],
    now: Timestamp,
) -> Result<Vec<(ToldAlert, String)>, StoreError> {
    const ADD: Sql = sql!(
        "insert into ack_code (phone, code, alert_id, delivery_id, created_at) values ($1, $2, $3, $4, $5)
         on conflict do nothing"
    );
    let mut all = Vec::new();
    for told in told.iter().filter(|told| told.is_open()) {
        let code = match &told.code {
            Some(code) => code.clone(),
            None => new_id()[33..].to_uppercase(),
        };
        let arguments = args![phone.as_e164(), &code, &told.alert_id, &told.delivery_id, ms(now)];
        tx.execute(ADD, arguments).await?;
        all.push((told.alert(), code));
    }
    Ok(all)
}
