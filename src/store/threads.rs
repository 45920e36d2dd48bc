//! What passed between us and one person: which alert a reply is about, and whether and how we answer.

use super::{
    error::StoreError,
    jobs::NewDelivery,
    ledger::{self, Birth},
    lists::first_id,
    opt_outs,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{Recipient, ms, new_id},
};
use crate::domain::{
    day::after,
    delivery::State,
    id::{AlertId, DeliveryId},
    message::Message,
    phone::PhoneNumber,
    route::{Channel, Route},
};
use jiff::{SignedDuration, Timestamp};

/// For so long after an alert was told, what its person writes is about it.
const ABOUT_IT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The newest deliveries that are looked at: some may have come from another number of ours, or not at all.
const LOOKED_AT: i64 = 200;
/// How many answers a person gets in an hour: two machines must not answer each other for ever.
const ANSWERS: i64 = 5;
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// The newest alert that this number was told of, in the thread with `to`, and the delivery that told it.
pub async fn newest(
    tx: &mut Tx,
    phone: &PhoneNumber,
    to: Option<&str>,
    now: Timestamp,
) -> Result<Option<(AlertId, DeliveryId)>, StoreError> {
    const TOLD: Sql = sql!(
        "select part.alert_id, part.id, t.route from (select id, alert_id, attempts, state from delivery
            where phone = $1 and alert_id is not null order by id desc limit ",
        LOOKED_AT,
        ") as part join attempt t on t.delivery_id = part.id and t.number = part.attempts
         where part.state in (",
        State::MAY_HAVE_TOLD,
        ") and t.begun_at >= $2 order by t.begun_at desc, part.id desc"
    );
    let since = ms(after(now, -ABOUT_IT_FOR));
    let told: Vec<(AlertId, DeliveryId, Option<String>)> = tx.all(TOLD, args![phone.as_e164(), since]).await?;
    let same_thread = |route: Option<&str>| match (route.and_then(Route::number_of), to) {
        (Some(number), Some(to)) => number == to,
        // A service chooses among its numbers.
        (None, _) | (_, None) => true,
    };
    let mut told = told.into_iter();
    let found = told.find(|(_, _, route)| same_thread(route.as_deref()));
    Ok(found.map(|(alert_id, delivery_id, _)| (alert_id, delivery_id)))
}

/// Whether this person may be answered now.
pub async fn may_answer(tx: &mut Tx, phone: &PhoneNumber, now: Timestamp) -> Result<bool, StoreError> {
    const COUNT: Sql = sql!(
        "select count(*) from inbound_message where from_phone = $1 and id > $2 and received_at > $3
            and received_at <= $4 and answer_id is not null"
    );
    if opt_outs::contains(tx, phone.as_e164()).await? {
        return Ok(false);
    }
    let since = after(now, -WINDOW);
    // Ids are made by the clock of whoever made them, so a bit more is looked at.
    let first = first_id(after(since, -WINDOW));
    let answered: i64 = tx
        .scalar(COUNT, args![phone.as_e164(), first, ms(since), ms(after(now, WINDOW))])
        .await?;
    if answered >= ANSWERS {
        tracing::warn!(%phone, answers = answered, "somebody got as many answers in an hour as anybody gets; no more for now");
    }
    Ok(answered < ANSWERS)
}

/// Owes a text to this person, as a delivery that no alert is the cause of.
pub async fn owe(tx: &mut Tx, phone: &PhoneNumber, text: Message, now: Timestamp) -> Result<DeliveryId, StoreError> {
    const PERSON: Sql = sql!("select staff_id, role, name from delivery where phone = $1 order by id desc limit 1");
    let recipient: Option<Recipient> = tx.optional(PERSON, args![phone.as_e164()]).await?;
    let new = NewDelivery {
        channel: Channel::Sms,
        recipient: recipient.unwrap_or_default(),
        phone: Ok(phone.clone()),
        message: text.text,
        segments: text.size.segments,
        ack_code: None,
    };
    let id = DeliveryId::from(new_id());
    ledger::create(tx, &mut [Birth::new(id.clone(), None, new, now)], now).await?;
    Ok(id)
}
