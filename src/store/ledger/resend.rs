//! Sending a delivery again because a person wants it: owed once more, as its next round.

use super::delivery::{self, Birth, Delivery};
use crate::{
    domain::{delivery::State, id::DeliveryId, route::Channel},
    store::{
        Db,
        error::StoreError,
        jobs::NewDelivery,
        query::Query,
        sql::{Sql, args, sql},
        tx::Tx,
        types::Recipient,
    },
};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What became of a request to send a delivery again.
pub enum Resent {
    /// It is owed again, as this delivery.
    As(DeliveryId),
    /// The old one may still arrive.
    Undecided(State),
    /// It never had a usable number.
    NoPhone,
    NoSuchDelivery,
}

#[derive(sqlx::FromRow)]
struct About {
    channel: String,
    #[sqlx(flatten)]
    recipient: Recipient,
    segments: i64,
    next_round: i64,
}

impl Db {
    /// Owes a delivery once more, as its next round. Refused while the old one is undecided, unless `force`d.
    pub async fn resend(&self, id: &DeliveryId, force: bool, now: Timestamp) -> Result<Resent, StoreError> {
        let mut tx = self.begin().await?;
        // Of a message without an alert, nothing but its rounds say that they belong together: whoever adds one has the first.
        let root = first_round(&mut tx, id).await?;
        let both = BTreeSet::from([root.clone(), id.clone()]);
        let mut locked = delivery::lock(&mut tx, &Vec::from_iter(both)).await?;
        let Some(old) = locked.iter_mut().find(|delivery| delivery.id == *id) else {
            return Ok(Resent::NoSuchDelivery);
        };
        if old.phone.is_none() {
            return Ok(Resent::NoPhone);
        }
        if old.state.is_open() && !force {
            return Ok(Resent::Undecided(old.state));
        }
        if !force && let Some(later) = later_round_that_tells(&mut tx, old, &root).await? {
            return Ok(Resent::Undecided(later));
        }
        let mut births = [next_round(&mut tx, old, &root, now).await?];
        let new_id = births[0].delivery.id.clone();
        old.note("resent", format!("sent again as {new_id}"), now);
        delivery::create(&mut tx, &mut births, now).await?;
        const CREATED: Sql = sql!("select id from delivery where id = $1");
        if !tx.exists(CREATED, args![&new_id]).await? {
            // Another request for the same person was granted in this moment.
            return Ok(Resent::Undecided(State::Pending));
        }
        delivery::save(&mut tx, &mut locked).await?;
        tx.commit().await?;
        Ok(Resent::As(new_id))
    }
}

/// The delivery that this one, round by round, goes back to.
async fn first_round(tx: &mut Tx, id: &DeliveryId) -> Result<DeliveryId, StoreError> {
    const FIRST: Sql = sql!(
        "with recursive earlier(id, resend_of) as (select id, resend_of from delivery where id = $1 and alert_id is null
            union all select d.id, d.resend_of from earlier e join delivery d on d.id = e.resend_of)
         select id from earlier where resend_of is null"
    );
    Ok(tx
        .optional_scalar(FIRST, args![id])
        .await?
        .unwrap_or_else(|| id.clone()))
}

/// All rounds of a message without an alert; $1: its first.
const ROUNDS: &str = "with recursive rounds(id) as (select id from delivery where id = $1
    union all select d.id from rounds r join delivery d on d.resend_of = r.id)";

async fn next_round(tx: &mut Tx, old: &Delivery, root: &DeliveryId, now: Timestamp) -> Result<Birth, StoreError> {
    const ABOUT: Sql = sql!(
        ROUNDS,
        " select channel, staff_id, role, name, segments, coalesce((select max(o.round) from delivery o
            where o.alert_id = d.alert_id and o.channel = d.channel and o.phone = d.phone),
            (select max(m.round) from rounds r join delivery m on m.id = r.id)) + 1 as next_round
         from delivery d where id = $2"
    );
    let about: About = tx.one(ABOUT, args![root, &old.id]).await?;
    let channel = Channel::parse(&about.channel).ok_or_else(|| StoreError::Unreadable {
        what: "the channel".into(),
        value: about.channel.clone(),
    })?;
    let new = NewDelivery {
        channel,
        recipient: about.recipient,
        phone: Ok(old.phone()?),
        message: old.message.clone(),
        segments: usize::try_from(about.segments).unwrap_or(0),
        // The code that is in the text names the alert as before.
        ack_code: None,
    };
    Ok(Birth::resend(old, new, about.next_round, now))
}

/// The state of a later round of the same delivery that tells the person, if there is one: a request that came twice must
/// not be granted twice.
async fn later_round_that_tells(tx: &mut Tx, old: &Delivery, root: &DeliveryId) -> Result<Option<State>, StoreError> {
    const OF_ALERT: Sql = sql!(
        "select o.state from delivery o join delivery d on o.alert_id = d.alert_id and o.channel = d.channel
            and o.phone = d.phone and o.round > d.round
         where d.id = $1"
    );
    const OF_MESSAGE: Sql = sql!(
        ROUNDS,
        " select m.state from rounds r join delivery m on m.id = r.id join delivery d on d.id = $2 and m.round > d.round"
    );
    let states: Vec<State> = match old.alert_id {
        Some(_) => tx.scalars(OF_ALERT, args![&old.id]).await?,
        None => tx.scalars(OF_MESSAGE, args![root, &old.id]).await?,
    };
    Ok(states.into_iter().find(|state| state.is_told()))
}
