//! The state machine of a delivery: one message owed to one recipient. Pure: the store applies what is decided here,
//! inside its transactions. Absent: what carries the message (SMS today, other channels later).

use super::words::{sets, words};
use jiff::{SignedDuration, Timestamp};

words! {
    /// Where a delivery stands.
    #[derive(utoipa::ToSchema)]
    #[schema(as = DeliveryState)]
    State as state_word {
        /// Waits to be sent at `due_at`.
        Pending = "pending",
        /// Held by the daily limit.
        Deferred = "deferred",
        /// A call to the provider may be under way.
        Sending = "sending",
        /// The provider may have it, or not.
        Unknown = "unknown",
        /// Nobody could tell whether the provider had it; people were warned.
        Unconfirmed = "unconfirmed",
        /// The provider has it.
        Accepted = "accepted",
        /// The provider handed it to the carrier.
        Sent = "sent",
        Delivered = "delivered",
        Undelivered = "undelivered",
        Failed = "failed",
        /// The person opted out.
        Suppressed = "suppressed",
        /// The ticket was closed, or a person canceled, before it was sent.
        Canceled = "canceled",
        /// Too old to be of use.
        Expired = "expired",
    }
}

sets! {
    State by state_word {
        /// To be sent, and not begun.
        is_owed, OWED = Pending | Deferred;
        /// Not settled: something may still happen to it by itself. Sent again meanwhile, its person could be told twice.
        is_open, OPEN = Pending | Deferred | Sending | Unknown | Unconfirmed | Accepted | Sent;
        /// Its person was told by it, will be, or may have been: nobody is told again on account of it. `unconfirmed` is
        /// among these, because that message may well have arrived; what it hides from the question whether anybody was
        /// told is made up for by an alarm and a row of the report of its own.
        is_told, TOLD = Pending | Deferred | Sending | Unknown | Unconfirmed | Accepted | Sent | Delivered;
        /// Its person may have got it, or is about to: what they text us may be about it.
        may_be_answered, ANSWERABLE = Sending | Unknown | Unconfirmed | Accepted | Sent | Delivered | Undelivered;
        /// Nobody knows whether the provider has it.
        is_uncertain, UNCERTAIN = Sending | Unknown | Unconfirmed;
        /// The provider is asked about it from time to time.
        is_asked_about, ASKED_ABOUT = Unknown | Unconfirmed | Accepted | Sent;
        /// What the failure report lists.
        is_bad, BAD = Failed | Undelivered | Unconfirmed | Expired | Suppressed;
    }
}

words! {
    /// Why a delivery stands where it stands.
    #[derive(utoipa::ToSchema)]
    #[schema(as = DeliveryReason)]
    Reason {
        InvalidNumber = "invalid_number",
        NoNumber = "no_number",
        OptedOut = "opted_out",
        TicketClosed = "ticket_closed",
        Canceled = "canceled",
        Limit = "limit",
        Expired = "expired",
        Refused = "refused",
        ProviderFailed = "provider_failed",
        ProviderRefusedCredentials = "provider_refused_credentials",
        NotFound = "not_found",
        InternalError = "internal_error",
    }
}

words! {
    /// What a provider says of a message: by an answer, a receipt or a lookup, all alike. In order of rank.
    MessageStatus {
        Accepted = "accepted",
        Sent = "sent",
        Undelivered = "undelivered",
        Failed = "failed",
        Delivered = "delivered",
    }
}

impl MessageStatus {
    /// The state that this status alone would lead to.
    pub fn state(self) -> State {
        match self {
            Self::Accepted => State::Accepted,
            Self::Sent => State::Sent,
            Self::Undelivered => State::Undelivered,
            Self::Failed => State::Failed,
            Self::Delivered => State::Delivered,
        }
    }
}

/// What can happen to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A call to the provider is about to begin.
    Begin,
    /// No slot of today's limit is free.
    Defer,
    /// A slot is free again.
    Release,
    /// The person opted out.
    Suppress,
    /// The ticket was closed.
    Cancel,
    /// Too old.
    Expire,
    /// The ticket is critical again and nobody was told: a canceled delivery is owed once more.
    Revive,
    /// Handling it went wrong too often.
    SetAside,
    /// The newest attempt surely did not reach the provider; `closed` if the ticket was closed meanwhile.
    NotSent { closed: bool },
    /// The provider refused the newest attempt for good.
    Refuse,
    /// Nobody knows whether the newest attempt reached the provider.
    Lose,
    /// Looking for the newest attempt led nowhere.
    GiveUp,
    /// The provider reported the status of an attempt's message.
    Update {
        status: MessageStatus,
        newest_attempt: bool,
    },
}

impl State {
    /// Where `change` leads from here; `None` if it changes nothing.
    pub fn after(self, change: Change) -> Option<Self> {
        use State::*;
        let (from, to): (&[Self], Self) = match change {
            Change::Begin => (&[Pending], Sending),
            Change::Defer => (&[Pending], Deferred),
            Change::Release => (&[Deferred], Pending),
            Change::Suppress => (&[Pending, Deferred], Suppressed),
            Change::Cancel => (&[Pending, Deferred], Canceled),
            Change::Expire => (&[Pending, Deferred], Expired),
            Change::Revive => (&[Canceled], Pending),
            Change::SetAside => (&[Pending], Failed),
            Change::NotSent { closed: false } => (&[Sending, Unknown, Unconfirmed], Pending),
            Change::NotSent { closed: true } => (&[Sending, Unknown, Unconfirmed], Canceled),
            Change::Refuse => (&[Sending, Unknown, Unconfirmed], Failed),
            // A process that was frozen long enough for its attempt to be written off, and then sent after all.
            Change::Lose => (&[Sending, Pending, Deferred, Canceled], Unknown),
            Change::GiveUp => (&[Unknown], Unconfirmed),
            Change::Update { status, newest_attempt } => {
                let to = status.state();
                let counts = newest_attempt || !to.is_bad();
                return (counts && to.rank() > self.rank()).then_some(to);
            }
        };
        from.contains(&self).then_some(to)
    }

    /// How much the provider has reported: a status only ever raises it, so repeats and order do not matter.
    fn rank(self) -> u8 {
        match self {
            Self::Pending
            | Self::Deferred
            | Self::Sending
            | Self::Unknown
            | Self::Unconfirmed
            | Self::Suppressed
            | Self::Canceled
            | Self::Expired => 0,
            Self::Accepted => 1,
            Self::Sent => 2,
            Self::Undelivered | Self::Failed => 3,
            Self::Delivered => 4,
        }
    }

    /// Whether nobody is being told by this delivery now: it is at its end without success, or held until tomorrow.
    pub fn leaves_untold(self) -> bool {
        !self.is_told() || self == Self::Deferred
    }
}

/// What is known of a delivery in the moment before it is sent.
#[derive(Clone, Copy, Debug)]
pub struct BeforeSend {
    pub now: Timestamp,
    pub received_at: Timestamp,
    pub expire_after: SignedDuration,
    pub ticket_closed: bool,
    pub opted_out: bool,
    /// Slots of today's limit that are not taken.
    pub free_slots: i64,
    /// Older deliveries that wait for a slot too.
    pub ahead: i64,
}

/// Whether a delivery may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Send,
    /// Others are before it in the queue for the last slots: ask again in a moment.
    Wait,
    Stop(Change, Reason),
}

impl BeforeSend {
    /// Decides. The oldest go first, so a delivery takes no slot that one ahead of it still needs.
    pub fn decide(self) -> Gate {
        if self.ticket_closed {
            Gate::Stop(Change::Cancel, Reason::TicketClosed)
        } else if self.opted_out {
            Gate::Stop(Change::Suppress, Reason::OptedOut)
        } else if self.now.duration_since(self.received_at) > self.expire_after {
            Gate::Stop(Change::Expire, Reason::Expired)
        } else if self.free_slots <= 0 {
            Gate::Stop(Change::Defer, Reason::Limit)
        } else if self.free_slots <= self.ahead {
            Gate::Wait
        } else {
            Gate::Send
        }
    }
}

/// How often a delivery may be claimed without ever beginning to send, before it is set aside.
pub const MAX_CLAIMS: i64 = 5;

/// How often our own code may fail around the calls of one delivery, before it is set aside.
pub const MAX_BROKEN: i64 = 5;

/// The longest wait between two tries while the provider is out of reach.
const MAX_BACK_OFF: SignedDuration = SignedDuration::from_mins(5);
/// A `Retry-After` beyond this is not believed.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// How long to wait after try number `tries` (from 1) surely did not reach the provider: exponential with full jitter
/// (`jitter` from 0 to 1), never earlier than the provider asked.
pub fn back_off(tries: i64, retry_after: Option<SignedDuration>, jitter: f64) -> SignedDuration {
    let doublings = u32::try_from(tries.clamp(1, 16)).unwrap_or(16);
    let ceiling = SignedDuration::from_secs(2_i64.saturating_pow(doublings)).min(MAX_BACK_OFF);
    let jittered = SignedDuration::from_secs_f64(ceiling.as_secs_f64() * jitter.clamp(0.0, 1.0));
    let asked = retry_after
        .unwrap_or(SignedDuration::ZERO)
        .clamp(SignedDuration::ZERO, MAX_RETRY_AFTER);
    asked + jittered.max(SignedDuration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn update(status: MessageStatus, newest_attempt: bool) -> Change {
        Change::Update { status, newest_attempt }
    }

    fn updated(start: State, story: &[MessageStatus]) -> State {
        story.iter().fold(start, |state, status| {
            state.after(update(*status, true)).unwrap_or(state)
        })
    }

    /// Every pair that leads somewhere, written out: a change to the machine must change this list.
    #[test]
    fn every_pair_of_state_and_change_is_as_drawn() {
        use State::*;
        // What no status of the provider has reached.
        let local = [
            Pending,
            Deferred,
            Sending,
            Unknown,
            Unconfirmed,
            Suppressed,
            Canceled,
            Expired,
        ];
        let on_its_way = [&local[..], &[Accepted, Sent]].concat();
        let not_delivered = [&on_its_way[..], &[Undelivered, Failed]].concat();
        let maybe_sent = [Sending, Unknown, Unconfirmed];
        let mut drawn: Vec<(&[State], Change, State)> = vec![
            (&[Pending], Change::Begin, Sending),
            (&[Pending], Change::Defer, Deferred),
            (&[Deferred], Change::Release, Pending),
            (&[Pending, Deferred], Change::Suppress, Suppressed),
            (&[Pending, Deferred], Change::Cancel, Canceled),
            (&[Pending, Deferred], Change::Expire, Expired),
            (&[Canceled], Change::Revive, Pending),
            (&[Pending], Change::SetAside, Failed),
            (&maybe_sent, Change::NotSent { closed: false }, Pending),
            (&maybe_sent, Change::NotSent { closed: true }, Canceled),
            (&maybe_sent, Change::Refuse, Failed),
            (&[Sending, Pending, Deferred, Canceled], Change::Lose, Unknown),
            (&[Unknown], Change::GiveUp, Unconfirmed),
            (&on_its_way, update(MessageStatus::Undelivered, true), Undelivered),
            (&on_its_way, update(MessageStatus::Failed, true), Failed),
            // Bad news of an older attempt does not count.
            (&[], update(MessageStatus::Undelivered, false), Undelivered),
            (&[], update(MessageStatus::Failed, false), Failed),
        ];
        for newest in [true, false] {
            drawn.push((&local, update(MessageStatus::Accepted, newest), Accepted));
            drawn.push((&on_its_way[..=local.len()], update(MessageStatus::Sent, newest), Sent));
            drawn.push((&not_delivered, update(MessageStatus::Delivered, newest), Delivered));
        }

        for (from, change, to) in drawn {
            for state in State::ALL {
                let expected = from.contains(state).then_some(to);
                assert_eq!(state.after(change), expected, "{state} after {change:?}");
            }
        }
    }

    #[test]
    fn the_gate_decides_in_order_of_weight() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let mut before = BeforeSend {
            now,
            received_at: now,
            expire_after: SignedDuration::from_hours(72),
            ticket_closed: false,
            opted_out: false,
            free_slots: 1,
            ahead: 0,
        };

        // Each outweighs all that came before it.
        assert_eq!(before.decide(), Gate::Send);
        before.ahead = 1;
        assert_eq!(before.decide(), Gate::Wait);
        before.free_slots = 0;
        assert_eq!(before.decide(), Gate::Stop(Change::Defer, Reason::Limit));
        before.received_at = now - SignedDuration::from_hours(73);
        assert_eq!(before.decide(), Gate::Stop(Change::Expire, Reason::Expired));
        before.opted_out = true;
        assert_eq!(before.decide(), Gate::Stop(Change::Suppress, Reason::OptedOut));
        before.ticket_closed = true;
        assert_eq!(before.decide(), Gate::Stop(Change::Cancel, Reason::TicketClosed));
    }

    #[test]
    fn the_back_off_doubles_is_capped_and_honours_the_provider() {
        let ceiling = |tries| back_off(tries, None, 1.0).as_secs();

        assert_eq!([1, 2, 3, 8, 9, 100].map(ceiling), [2, 4, 8, 256, 300, 300]);
        assert_eq!(back_off(1, None, 0.0), SignedDuration::from_millis(100));
        assert!(back_off(1, Some(SignedDuration::from_secs(30)), 0.0) >= SignedDuration::from_secs(30));
        assert!(back_off(1, Some(SignedDuration::from_hours(9)), 1.0) <= SignedDuration::from_secs(3_602));
    }

    proptest! {
        #[test]
        fn order_and_repeats_of_updates_do_not_matter(
            (story, shuffled) in prop::collection::vec(prop::sample::select(MessageStatus::ALL), 0..12)
                .prop_flat_map(|story| (Just(story.clone()), Just(story).prop_shuffle())),
        ) {
            let (one, other) = (updated(State::Sending, &story), updated(State::Sending, &shuffled));

            // At equal rank the first stays, so these two are the exception that the contract names.
            let same = |state| if state == State::Undelivered { State::Failed } else { state };
            prop_assert_eq!(same(one), same(other));
            prop_assert_eq!(updated(one, &story), one, "reporting it all again changes nothing");
        }
    }
}
