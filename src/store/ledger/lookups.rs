//! Lookups: deliveries that the provider has to be asked about, and what came of asking. `unknown` and `unconfirmed` ones
//! are searched for in its list, `accepted` and `sent` ones asked about by their message id. Absent: the asking itself
//! (see `worker::reconcile`).

use super::{
    aging,
    answer::NotSent,
    attempt::{self, Attempt, WorkingSet},
    delivery::{self, Delivery, Landing, StatusUpdate},
    waiting,
};
use crate::{
    domain::{
        alarm::AlarmKind,
        clock::Uptime,
        day::{LocalDay, after},
        delivery::{Change, MessageStatus, Reason, State},
        id::{AttemptNo, DeliveryId},
        phone::PhoneNumber,
        route::{Channel, ProviderName, Route},
        search::Listed,
    },
    store::{
        Db,
        alarms::{self, About},
        error::StoreError,
        limits, opt_outs,
        query::Query,
        sql::{Rows, Sql, args, row, sql},
        tx::Tx,
        types::{at, ms},
    },
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::HashSet, sync::Arc};

/// A delivery that is due to be asked about, and the newest attempt of it.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub delivery_id: DeliveryId,
    pub state: State,
    pub attempt: AttemptNo,
    pub channel: String,
    pub provider: String,
    pub account: String,
    pub message_id: Option<String>,
    pub to: PhoneNumber,
    pub message: String,
    pub begun_at: Timestamp,
    /// When its answer was recorded; now, if none was: it may still be written by a process that was frozen.
    pub ended_at: Timestamp,
    /// How often it was looked up since it last moved.
    pub lookups: i64,
    pub received_at: Timestamp,
    /// Whether the ticket's end has made it pointless: then it is not sent again, whatever the lists prove.
    pub is_over: bool,
    /// Whether our clock was wrong, or turned, while its outcome was open: then its absence cannot be proven.
    pub is_doubtful: bool,
    /// Which process took it.
    owner: String,
}

#[derive(sqlx::FromRow)]
struct LookupRow {
    delivery_id: DeliveryId,
    state: State,
    attempt: AttemptNo,
    channel: String,
    provider: String,
    account: String,
    message_id: Option<String>,
    phone: String,
    message: String,
    begun_at: i64,
    answered_at: Option<i64>,
    looks: i64,
    received_at: i64,
    round: i64,
    closed_at: Option<i64>,
    clock_doubtful_at: Option<i64>,
    machine_start: Option<String>,
    begun_uptime: Option<i64>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Looker<'a> {
    /// Marks the leases of this process.
    pub owner: &'a str,
    /// Through which account.
    pub route: &'a Route,
    pub lease: SignedDuration,
    /// What the clock reads that nobody turns, if there is one.
    pub uptime: Option<&'a Uptime>,
}

/// Marks the lease of a delivery that is being asked about at this moment: then not even its owner takes it.
const BUSY: &str = "/busy";

row! {
    TextRow<'a> { text: &'a str as text }
}

/// Deliveries that are due to be asked about. $2: the owner, $3: now, $4: how many.
const DUE: &str = const_format::concatcp!(
    "select d.id from delivery d cross join attempt t
     where t.delivery_id = d.id and t.number = d.attempts and d.state in (",
    State::ASKED_ABOUT,
    ") and t.provider in (",
    ProviderName::KNOWN,
    ") and d.due_at <= $3 and (d.lease_until is null or d.lease_until <= $3 or d.lease_token = $2)"
);
/// Through the channel and account at $5 to $7, but for the numbers in $1.
const OURS: &str = const_format::concatcp!(
    DUE,
    " and d.channel = $5 and t.provider = $6 and t.account = $7
        and d.phone not in (select r.text from ",
    TextRow::ROWS,
    ") order by due_at, id limit $4"
);
/// Through none of the accounts in $1.
const OTHERS: &str = const_format::concatcp!(
    DUE,
    " and d.channel || '/' || t.provider || '/' || t.account not in (select r.text from ",
    TextRow::ROWS,
    ")
     order by due_at, id limit $4"
);

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Rows {
    let mut rows: Rows = texts.into_iter().map(|text| TextRow { text }).collect();
    if rows.is_empty() {
        rows.push(&TextRow { text: "" });
    }
    rows
}

impl Db {
    /// Takes up to `most` deliveries that are due to be asked about through the looker's own account, none of them for a
    /// number among `but`. The owner keeps them until `now + lease`, so that the lookups of one search come from one process,
    /// whose monotonic clock counts the time between them; each comes once until it is looked up again or put back.
    pub async fn take_lookups(
        &self,
        looker: Looker<'_>,
        most: i64,
        but: &[&str],
        now: Timestamp,
    ) -> Result<Vec<Lookup>, StoreError> {
        const FIND: Sql = sql!(OURS);
        const TAKE: Sql = sql!(
            "update delivery set lease_token = $2 || $8, lease_until = $9, updated_at = $3 where id in (",
            OURS,
            " for update of d skip locked) returning id"
        );
        let route = looker.route;
        let arguments = |most: i64| {
            args![
                texts(but.iter().copied()),
                looker.owner,
                ms(now),
                most,
                route.channel.as_str(),
                route.provider.as_str(),
                &route.account
            ]
        };
        if self.reads().optional::<(String,)>(FIND, arguments(1)).await?.is_none() {
            return Ok(Vec::new());
        }
        let lease = args![BUSY, ms(after(now, looker.lease))];
        let mut tx = self.begin().await?;
        let ids = tx.scalars(TAKE, arguments(most).into_iter().chain(lease)).await?;
        read_lookups(tx, ids, looker, now).await
    }

    /// Takes those that went through none of `routes`, which this process has: nobody can be asked about them.
    pub async fn take_lookups_of_others(
        &self,
        routes: &[Arc<Route>],
        looker: Looker<'_>,
        most: i64,
        now: Timestamp,
    ) -> Result<Vec<Lookup>, StoreError> {
        const FIND: Sql = sql!(OTHERS);
        const TAKE: Sql = sql!(
            "update delivery set lease_token = $2 || $5, lease_until = $6, updated_at = $3 where id in (",
            OTHERS,
            " for update of d skip locked) returning id"
        );
        let accounts: Vec<String> = routes
            .iter()
            .map(|route| format!("{}/{}/{}", route.channel, route.provider, route.account))
            .collect();
        let arguments = |most: i64| {
            let accounts = accounts.iter().map(String::as_str);
            args![texts(accounts), looker.owner, ms(now), most]
        };
        if self.reads().optional::<(String,)>(FIND, arguments(1)).await?.is_none() {
            return Ok(Vec::new());
        }
        let lease = args![BUSY, ms(after(now, looker.lease))];
        let mut tx = self.begin().await?;
        let ids = tx.scalars(TAKE, arguments(most).into_iter().chain(lease)).await?;
        read_lookups(tx, ids, looker, now).await
    }

    /// Gives a delivery back that was taken and is not asked about now. Its owner keeps it.
    pub async fn put_lookup_back(&self, lookup: &Lookup) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(
            sql!("update delivery set lease_token = $2 where id = $1 and lease_token = $3"),
            args![&lookup.delivery_id, &lookup.owner, format!("{}{BUSY}", lookup.owner)],
        )
        .await?;
        tx.commit().await
    }

    /// Which of these messages belong to attempts already.
    pub async fn owned_messages(&self, provider: &str, list: &[Listed]) -> Result<HashSet<String>, StoreError> {
        const OWNED: Sql = sql!(
            "select t.message_id from ",
            TextRow::ROWS,
            " cross join attempt t
             where t.provider = $2 and t.message_id = r.text"
        );
        let rows = texts(list.iter().map(|message| message.message_id.as_str()));
        let owned: Vec<String> = self.reads().scalars(OWNED, args![rows, provider]).await?;
        Ok(owned.into_iter().collect())
    }

    /// Whether a call is under way for the same text to the same number: then a message in the list may be that one's.
    pub async fn has_identical_on_its_way(&self, lookup: &Lookup) -> Result<bool, StoreError> {
        let identical: Option<String> = self
            .reads()
            .optional_scalar(
                sql!("select id from delivery where phone = $1 and message = $2 and state = 'sending' and id <> $3 limit 1"),
                args![lookup.to.as_e164(), &lookup.message, &lookup.delivery_id],
            )
            .await?;
        Ok(identical.is_some())
    }

    /// The provider has it, or told more of it. Returns whether that moved the delivery: not if the message turns out to
    /// be another attempt's.
    pub async fn record_found(
        &self,
        lookup: &Lookup,
        found: &Listed,
        poll_after: SignedDuration,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let Some(LookedUp {
            delivery,
            attempt,
            owners,
            waiting,
        }) = lock_unmoved(&mut tx, lookup, &found.message_id).await?
        else {
            return Ok(false);
        };
        let mut set = WorkingSet::default();
        let place = set.add(delivery, attempt);
        let (delivery, attempt) = set.get(place);
        if !attempt.own(&found.message_id, owners) {
            return Ok(false);
        }
        let update = StatusUpdate {
            attempt: attempt.number,
            message_id: &found.message_id,
            word: &found.word,
            status: Some(MessageStatus::Accepted),
            error_code: None,
            at: now,
            poll_after,
        };
        delivery.update(&update);
        if found.status != update.status {
            delivery.update(&StatusUpdate {
                status: found.status,
                error_code: found.error_code,
                ..update
            });
        }
        if found.opted_out {
            opt_outs::insert(&mut tx, lookup.to.as_e164(), None, Some(opt_outs::BY_PROVIDER), now).await?;
        }
        let known: Vec<_> = (waiting > 0)
            .then(|| waiting::Known::new(place, delivery, &update))
            .into_iter()
            .collect();
        waiting::apply(&mut tx, &mut set, &known).await?;
        let moved = set.get(place).0.state != lookup.state;
        set.save(&mut tx).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// The provider's lists prove that it never had it: the slot goes back, and it is owed again. Returns whether it was
    /// recorded: not if meanwhile it moved, or its time became doubtful.
    pub async fn record_absent(
        &self,
        lookup: &Lookup,
        day: LocalDay,
        configured_limit: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        limits::lock_day(&mut tx, day).await?;
        let Some(LookedUp { delivery, attempt, .. }) = lock_unmoved(&mut tx, lookup, "").await? else {
            return Ok(false);
        };
        let known = NotSent::of(&mut tx, std::slice::from_ref(&delivery.id))
            .await?
            .remove(&delivery.id)
            .unwrap_or_default();
        if known.is_doubtful() {
            return Ok(false);
        }
        let mut set = WorkingSet::default();
        let place = set.add(delivery, attempt);
        let (delivery, attempt) = set.get(place);
        attempt.is_absent();
        attempt.return_slot(now);
        let landing = Landing {
            due_at: Some(now),
            detail: format!(
                "attempt {}: the provider's lists prove that it was never sent",
                lookup.attempt
            ),
            ..Default::default()
        };
        delivery.not_sent(known.closed_at, landing, now);
        known.set_broken_aside(delivery, now);
        set.save(&mut tx).await?;
        aging::release(&mut tx, day, configured_limit, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The provider's lists do not have it, and it is not to be sent again by itself: a person decides.
    pub async fn record_not_found(
        &self,
        lookup: &Lookup,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let why = "the provider's lists do not have it, and `sms.resend_when_absent` is off";
        self.give_up(lookup, Some(Reason::NotFound), why, next_at, now).await
    }

    /// Looking led nowhere: people are warned, and the next lookup is at `next_at` (`None`: never again).
    pub async fn record_cannot_tell(
        &self,
        lookup: &Lookup,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let why = "nobody can tell whether the provider had it";
        self.give_up(lookup, None, why, next_at, now).await
    }

    async fn give_up(
        &self,
        lookup: &Lookup,
        reason: Option<Reason>,
        why: &str,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let Some(LookedUp { mut delivery, .. }) = lock_unmoved(&mut tx, lookup, "").await? else {
            return Ok(());
        };
        let landing = Landing {
            reason,
            due_at: next_at,
            detail: format!("attempt {}: {why}", lookup.attempt),
            ..Default::default()
        };
        if delivery.apply(Change::GiveUp, landing, now).is_some() {
            let id = &lookup.delivery_id;
            let detail = format!("delivery {id} may or may not have been sent ({why})");
            let about = About {
                alert_id: Some(delivery.alert_id.as_str()),
                delivery_id: Some(id.as_str()),
            };
            let subject = format!("{id}/{}", lookup.attempt);
            alarms::raise(&mut tx, AlarmKind::Unconfirmed, &subject, about, detail, now).await?;
        }
        delivery::save(&mut tx, &mut [delivery]).await?;
        tx.commit().await
    }

    /// Nothing new: the next lookup is at `next_at` (`None`: it is settled as it stands). Kept by its owner until then.
    pub async fn look_up_again(
        &self,
        lookup: &Lookup,
        next_at: Option<Timestamp>,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(
            sql!("update delivery set due_at = $2, lease_until = $3, lease_token = $6, looks = looks + 1, updated_at = $7
             where id = $1 and state = $4 and attempts = $5"),
            args![
                &lookup.delivery_id,
                next_at.map(ms),
                next_at.map(|next_at| ms(after(next_at, lease))),
                lookup.state.as_str(),
                lookup.attempt,
                &lookup.owner,
                ms(now)
            ],
        )
        .await?;
        tx.commit().await
    }
}

/// Reads what was taken, and commits.
async fn read_lookups(
    mut tx: Tx,
    ids: Vec<DeliveryId>,
    looker: Looker<'_>,
    now: Timestamp,
) -> Result<Vec<Lookup>, StoreError> {
    const READ: Sql = sql!(
        "select d.id as delivery_id, d.state, t.number as attempt, d.channel, t.provider, t.account,
            coalesce(d.provider_message_id, t.message_id) as message_id, d.phone, d.message, t.begun_at, t.answered_at,
            d.looks, d.received_at, d.round, a.closed_at, t.clock_doubtful_at, t.machine_start, t.begun_uptime
         from ",
        delivery::IDS,
        " cross join delivery d join alert a on a.id = d.alert_id
            join attempt t on t.delivery_id = d.id and t.number = d.attempts
         where d.id = r.id order by d.due_at, d.id"
    );
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<LookupRow> = tx.all(READ, args![delivery::id_rows(&ids)]).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(|row| row.into_lookup(looker, now)).collect())
}

impl LookupRow {
    fn into_lookup(self, looker: Looker<'_>, now: Timestamp) -> Lookup {
        let written = (at(self.begun_at), self.answered_at.map_or(now, at));
        let begun = self.machine_start.zip(self.begun_uptime);
        let begun = begun.map(|(machine_start, ms)| Uptime { machine_start, ms });
        let (begun_at, ended_at) = match (looker.uptime, begun) {
            (Some(uptime), Some(begun)) => uptime.span_of(&begun, written, now),
            (Some(_) | None, _) => written,
        };
        Lookup {
            delivery_id: self.delivery_id,
            state: self.state,
            attempt: self.attempt,
            channel: self.channel,
            provider: self.provider,
            account: self.account,
            message_id: self.message_id,
            to: PhoneNumber::from_stored(self.phone),
            message: self.message,
            begun_at,
            ended_at,
            lookups: self.looks,
            received_at: at(self.received_at),
            is_over: self.closed_at.is_some() && self.round == 0,
            is_doubtful: self.clock_doubtful_at.is_some(),
            owner: looker.owner.to_owned(),
        }
    }
}

impl Lookup {
    /// Whether it went through the account of this route.
    pub fn is_through(&self, route: &Route) -> bool {
        Channel::parse(&self.channel) == Some(route.channel)
            && self.provider == route.provider.as_str()
            && self.account == route.account
    }
}

#[derive(sqlx::FromRow)]
struct LookedUp {
    #[sqlx(flatten)]
    delivery: Delivery,
    #[sqlx(flatten)]
    attempt: Attempt,
    owners: i64,
    waiting: i64,
}

/// Locks the delivery if it still stands where the lookup found it, with the attempt that became this message: it may be an
/// older one, whose good status counts and whose bad one does not. Else with the newest.
async fn lock_unmoved(tx: &mut Tx, lookup: &Lookup, message_id: &str) -> Result<Option<LookedUp>, StoreError> {
    const LOCK: Sql = sql!(
        "select (select count(*) from attempt o where o.provider = t.provider and o.message_id = $3) as owners,
            (select count(*) from receipt w where w.provider = t.provider and w.message_id = $3
                and w.applied_at is null) as waiting, ",
        delivery::COLUMNS,
        ", ",
        attempt::COLUMNS,
        " from delivery d join alert a on a.id = d.alert_id join attempt t on t.delivery_id = d.id
            and t.number = coalesce((select o.number from attempt o
                where o.provider = $4 and o.message_id = $3 and o.delivery_id = d.id), $2)
         where d.id = $1 for update of d"
    );
    let arguments = args![&lookup.delivery_id, lookup.attempt, message_id, &lookup.provider];
    let locked: Option<LookedUp> = tx.optional(LOCK, arguments).await?;
    Ok(locked.filter(|locked| locked.delivery.state == lookup.state && locked.delivery.attempts == lookup.attempt))
}
