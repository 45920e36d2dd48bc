//! Lookups: deliveries that the provider has to be asked about, and what came of asking. `unknown` and `unconfirmed` ones
//! are searched for in its list, `accepted` and `sent` ones asked about by their message id. Absent: the asking itself
//! (see `worker::reconcile`).

use super::{
    aging,
    answer::NotSent,
    attempt::{self, Located, WorkingSet},
    delivery::{self, Landing, StatusUpdate},
    waiting,
};
use crate::{
    domain::{
        alarm::AlarmKind,
        clock::Uptime,
        day::{LocalDay, after},
        delivery::{Change, Reason, State},
        id::{AlertId, AttemptNo, DeliveryId},
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
        sql::{Argument, Rows, Sql, args, row, sql},
        tx::Tx,
        types::{Ms, ms},
    },
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::HashSet, sync::Arc};

/// A delivery that is due to be asked about, and the newest attempt of it.
#[derive(Debug, sqlx::FromRow)]
pub struct Lookup {
    pub delivery_id: DeliveryId,
    pub state: State,
    pub attempt: AttemptNo,
    channel: String,
    pub provider: String,
    account: String,
    pub message_id: Option<String>,
    #[sqlx(rename = "phone")]
    pub to: PhoneNumber,
    pub message: String,
    #[sqlx(try_from = "Ms")]
    pub begun_at: Timestamp,
    /// When its answer was recorded; now, if none was: it may still be written by a process that was frozen.
    #[sqlx(try_from = "Ms")]
    pub ended_at: Timestamp,
    /// How often it was looked up since it last moved.
    pub lookups: i64,
    #[sqlx(try_from = "Ms")]
    pub received_at: Timestamp,
    /// Whether the ticket's end has made it pointless: then it is not sent again, whatever the lists prove.
    pub is_over: bool,
    /// Whether our clock was wrong, or turned, while its outcome was open: then its absence cannot be proven.
    pub is_doubtful: bool,
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

fn texts(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Rows {
    let mut rows = Rows::default();
    for text in texts {
        rows.push(&TextRow { text: text.as_ref() });
    }
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
            "update delivery set lease_token = $2 || '",
            BUSY,
            "', lease_until = $8, updated_at = $3 where id in (",
            OURS,
            " for update of d skip locked) returning id"
        );
        let route = looker.route;
        let arguments = args![
            texts(but),
            looker.owner,
            ms(now),
            most,
            route.channel.as_str(),
            route.provider.as_str(),
            &route.account
        ];
        self.take(FIND, TAKE, arguments, looker, now).await
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
            "update delivery set lease_token = $2 || '",
            BUSY,
            "', lease_until = $5, updated_at = $3 where id in (",
            OTHERS,
            " for update of d skip locked) returning id"
        );
        let accounts = routes.iter();
        let accounts = accounts.map(|route| format!("{}/{}/{}", route.channel, route.provider, route.account));
        let arguments = args![texts(accounts), looker.owner, ms(now), most];
        self.take(FIND, TAKE, arguments, looker, now).await
    }

    /// Takes what `find` shows to be there. The end of the lease is the last argument of `take`.
    async fn take(
        &self,
        find: Sql,
        take: Sql,
        arguments: impl IntoIterator<Item = Argument> + Clone,
        looker: Looker<'_>,
        now: Timestamp,
    ) -> Result<Vec<Lookup>, StoreError> {
        const READ: Sql = sql!(
            "select d.id as delivery_id, d.state, t.number as attempt, d.channel, t.provider, t.account,
                coalesce(d.provider_message_id, t.message_id) as message_id, d.phone, d.message, t.begun_at,
                coalesce(t.answered_at, $2) as ended_at, d.looks as lookups, d.received_at,
                (a.closed_at is not null or coalesce(d.received_at <= a.quieted_at, false)) and d.round = 0 as is_over, t.clock_doubtful_at is not null as is_doubtful,
                t.machine_start, t.begun_uptime
             from ",
            delivery::IDS,
            " cross join delivery d left join alert a on a.id = d.alert_id
                join attempt t on t.delivery_id = d.id and t.number = d.attempts
             where d.id = r.id order by d.due_at, d.id"
        );
        if !self.reads().exists(find, arguments.clone()).await? {
            return Ok(Vec::new());
        }
        let lease = args![ms(after(now, looker.lease))];
        let mut tx = self.begin().await?;
        let ids: Vec<DeliveryId> = tx.scalars(take, arguments.into_iter().chain(lease)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut lookups: Vec<Lookup> = tx.all(READ, args![delivery::id_rows(&ids), ms(now)]).await?;
        tx.commit().await?;
        for lookup in &mut lookups {
            lookup.mind_uptime(looker, now);
        }
        Ok(lookups)
    }

    /// Gives a delivery back that was taken and is not asked about now. Its owner keeps it.
    pub async fn put_lookup_back(&self, lookup: &Lookup, owner: &str) -> Result<(), StoreError> {
        const PUT_BACK: Sql = sql!("update delivery set lease_token = $2 where id = $1 and lease_token = $3");
        let arguments = args![&lookup.delivery_id, owner, format!("{owner}{BUSY}")];
        self.execute(PUT_BACK, arguments).await.map(drop)
    }

    /// Which of these messages belong to attempts already.
    pub async fn owned_messages(&self, provider: &str, list: &[Listed]) -> Result<HashSet<String>, StoreError> {
        const OWNED: Sql = sql!(
            "select t.message_id from ",
            TextRow::ROWS,
            " cross join attempt t
             where t.provider = $2 and t.message_id = r.text"
        );
        let rows = texts(list.iter().map(|message| &message.message_id));
        let owned: Vec<String> = self.reads().scalars(OWNED, args![rows, provider]).await?;
        Ok(owned.into_iter().collect())
    }

    /// Whether a call is under way for the same text to the same number: then a message in the list may be that one's.
    pub async fn has_identical_on_its_way(&self, lookup: &Lookup) -> Result<bool, StoreError> {
        const IDENTICAL: Sql = sql!(
            "select id from delivery where phone = $1 and message = $2 and state = 'sending' and id <> $3 limit 1"
        );
        let arguments = args![lookup.to.as_e164(), &lookup.message, &lookup.delivery_id];
        self.reads().exists(IDENTICAL, arguments).await
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
        let Some(located) = lock_unmoved(&mut tx, lookup, &found.message_id).await? else {
            return Ok(false);
        };
        let mut set = WorkingSet::default();
        let place = set.add(located.delivery, located.attempt);
        let (delivery, attempt) = set.get(place);
        if !attempt.own(&found.message_id, located.owners) {
            return Ok(false);
        }
        let update = StatusUpdate {
            attempt: attempt.number,
            message_id: &found.message_id,
            word: &found.word,
            status: found.status,
            error_code: found.error_code,
            at: now,
            poll_after,
        };
        delivery.update_accepted(&update);
        if found.opted_out {
            opt_outs::insert_reported(&mut tx, lookup.to.as_e164(), now).await?;
        }
        let known = (located.waiting > 0).then(|| waiting::Known::new(place, delivery, &update));
        waiting::apply(&mut tx, &mut set, known.as_slice()).await?;
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
        let Some(Located { delivery, attempt, .. }) = lock_unmoved(&mut tx, lookup, "").await? else {
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
        delivery.not_sent(known.end, landing, now);
        known.set_broken_aside(delivery, now);
        set.save(&mut tx).await?;
        aging::release(&mut tx, day, configured_limit, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Looking led nowhere, or it `is_absent` and not to be sent again by itself: people are warned, and the next lookup is at
    /// `next_at` (`None`: never again).
    pub async fn give_up(
        &self,
        lookup: &Lookup,
        is_absent: bool,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let why = if is_absent {
            "the provider's lists do not have it, and `sms.resend_when_absent` is off"
        } else {
            "nobody can tell whether the provider had it"
        };
        let mut tx = self.begin().await?;
        let Some(Located { mut delivery, .. }) = lock_unmoved(&mut tx, lookup, "").await? else {
            return Ok(());
        };
        let landing = Landing {
            reason: is_absent.then_some(Reason::NotFound),
            due_at: next_at,
            detail: format!("attempt {}: {why}", lookup.attempt),
            ..Default::default()
        };
        if delivery.apply(Change::GiveUp, landing, now).is_some() {
            let id = &lookup.delivery_id;
            let detail = format!("delivery {id} may or may not have been sent ({why})");
            let about = About {
                alert_id: delivery.alert_id.as_ref().map(AlertId::as_str),
                delivery_id: Some(id.as_str()),
            };
            let subject = format!("{id}/{}", lookup.attempt);
            alarms::raise(&mut tx, AlarmKind::Unconfirmed, &subject, about, detail, now).await?;
        }
        delivery::save(&mut tx, &mut [delivery]).await?;
        tx.commit().await
    }

    /// Nothing new: the next lookup is at `next_at` (`None`: it is settled as it stands). Kept by its owner until then.
    /// `lookups`: how many there were, as the gaps count them.
    pub async fn look_up_again(
        &self,
        lookup: &Lookup,
        owner: &str,
        (next_at, lookups): (Option<Timestamp>, i64),
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const AGAIN: Sql = sql!(
            "update delivery set due_at = $2, lease_until = $3, lease_token = $6, looks = $8, updated_at = $7
             where id = $1 and state = $4 and attempts = $5"
        );
        let arguments = args![
            &lookup.delivery_id,
            next_at.map(ms),
            next_at.map(|next_at| ms(after(next_at, lease))),
            lookup.state.as_str(),
            lookup.attempt,
            owner,
            ms(now),
            lookups
        ];
        self.execute(AGAIN, arguments).await.map(drop)
    }
}

impl Lookup {
    /// Widens the time of the attempt if the clock was turned since it began, as the one that nobody turns shows.
    fn mind_uptime(&mut self, looker: Looker<'_>, now: Timestamp) {
        let begun = self.machine_start.take().zip(self.begun_uptime);
        if let (Some(uptime), Some((machine_start, ms))) = (looker.uptime, begun) {
            let written = (self.begun_at, self.ended_at);
            (self.begun_at, self.ended_at) = uptime.span_of(&Uptime { machine_start, ms }, written, now);
        }
    }

    /// Whether it went through the account of this route.
    pub fn is_through(&self, route: &Route) -> bool {
        Channel::parse(&self.channel) == Some(route.channel)
            && self.provider == route.provider.as_str()
            && self.account == route.account
    }
}

/// Locks the delivery if it still stands where the lookup found it, with the attempt that became this message: of an older
/// one a good status counts and a bad one does not. Else with the newest.
async fn lock_unmoved(tx: &mut Tx, lookup: &Lookup, message_id: &str) -> Result<Option<Located>, StoreError> {
    let newest = (&lookup.delivery_id, lookup.attempt);
    let located = attempt::locate(tx, newest, (&lookup.provider, message_id)).await?;
    Ok(located.filter(|located| located.delivery.state == lookup.state && located.delivery.attempts == lookup.attempt))
}
