//! Messages that people sent us: kept, and done what they ask for, in one transaction. Exact repeats change nothing. Absent:
//! what a text means (see `domain::reply`), and reading them back (see `inbound_lists`).
//!
//! Opt-outs and opt-ins share transactions, because a thousand may come at once; every other message has its own, because
//! it may lock an alert, and alerts are locked before deliveries.

use super::{
    Db,
    acknowledge::{self, AcknowledgeRules, ByReply, ToldAlert},
    error::StoreError,
    incoming::{Incoming, Taken},
    jobs::{Done, Job},
    ledger,
    lifecycle::About,
    limits, opt_outs,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    strangers, threads,
    tx::{Effect, Tx},
    types::{ms, new_id},
};
use crate::domain::{
    auto_reply::{AutoReply, Named},
    id::{AlertId, DeliveryId},
    inbound::{HelpAnswers, Inbound, InboundKind, InboundOutcome},
    lifecycle::EventType,
    phone::PhoneNumber,
    reply::{self, Keyword, Meaning},
};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Instant,
};

impl Db {
    /// Keeps a message and does what it asks for. Durable when this returns.
    pub async fn take_inbound(&self, incoming: Arc<Incoming>) -> Result<Taken, StoreError> {
        match self.batchers.inbound.submit(Job::Inbound(incoming)).await? {
            Done::Inbound(taken) => Ok(taken),
            _ => Err(StoreError::Broken),
        }
    }

    /// Whether a person opted out, by a text to this process, after `begun`: what was begun before must not be sent.
    pub fn has_opted_out_since(&self, phone: &PhoneNumber, begun: Instant) -> bool {
        self.engine.effects.just_opted_out.has_since(phone.as_e164(), begun)
    }

    /// Whether this number has opted out, of which another process may have heard. Only where there may be one.
    pub async fn has_opted_out_elsewhere(&self, phone: &PhoneNumber) -> Result<bool, StoreError> {
        const OPTED_OUT: Sql = sql!("select 1 from opt_out where phone = $1");
        Ok(self.is_shared() && self.reads().exists(OPTED_OUT, args![phone.as_e164()]).await?)
    }
}

/// A message as it is kept, and what came of it.
struct Draft<'a> {
    incoming: &'a Incoming,
    id: String,
    kind: InboundKind,
    code: Option<String>,
    is_known: bool,
    outcome: InboundOutcome,
    alert_id: Option<AlertId>,
    delivery_id: Option<DeliveryId>,
    answer_id: Option<DeliveryId>,
}

row! {
    NewRow<'a>(draft: &'a Draft<'a>, message: &'a Inbound, media: Option<String>) {
        id: text = draft.id,
        provider: text = message.provider.as_str(),
        provider_message_id: text = message.provider_message_id,
        channel: text = message.channel,
        from_phone: text = message.phone.as_ref().map(PhoneNumber::as_e164).or(message.from.as_deref()),
        to_phone: text = message.to,
        body: text = message.text,
        unknown_at: number = (!draft.is_known).then_some(ms(draft.incoming.now)),
        kind: text = draft.kind.as_str(),
        outcome: text = draft.outcome.as_str(),
        media: text = media,
        form: text = message.form,
        received_at: number = ms(draft.incoming.now),
    }
}

const INSERT: Sql = sql!(
    "insert into inbound_message (id, provider, provider_message_id, channel, from_phone, to_phone, text, unknown_at, kind,
        outcome, media, form, received_at)
     select r.id, r.provider, r.provider_message_id, r.channel, r.from_phone, r.to_phone, r.body, r.unknown_at, r.kind,
        r.outcome, r.media, r.form, r.received_at from ",
    NewRow::ROWS,
    " where true order by r.provider_message_id on conflict (provider, provider_message_id) do nothing returning id"
);

row! {
    OutcomeRow<'a>(draft: &'a Draft<'a>) {
        id: text = draft.id,
        outcome: text = draft.outcome.as_str(),
        alert_id: text = draft.alert_id,
        delivery_id: text = draft.delivery_id,
        answer_id: text = draft.answer_id,
    }
}

const SAVE_OUTCOMES: Sql = sql!(
    "update inbound_message set outcome = r.outcome, alert_id = r.alert_id, delivery_id = r.delivery_id,
        answer_id = r.answer_id
     from ",
    OutcomeRow::ROWS,
    " where inbound_message.id = r.id"
);

/// Takes messages in the caller's transaction, in their order.
pub async fn receive(tx: &mut Tx, all: &[&Arc<Incoming>]) -> Result<Vec<Taken>, StoreError> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let stops = || all.iter().filter(|incoming| incoming.wants(Keyword::Stop).is_some());
    // The day is locked before any delivery, by everybody. So whoever begins to send has committed it, and is seen below, or
    // sees the opt-out.
    if tx.has_neighbours() {
        for day in stops()
            .flat_map(|incoming| incoming.days.iter())
            .collect::<BTreeSet<_>>()
        {
            limits::lock_day(tx, *day).await?;
        }
    }
    let mut drafts = Vec::with_capacity(all.len());
    for incoming in all {
        drafts.push(draft(tx, incoming).await?);
    }
    let rows = drafts.iter().flatten().map(|draft| NewRow {
        draft,
        message: &draft.incoming.message,
        media: media(&draft.incoming.message),
    });
    let new: HashSet<String> = HashSet::from_iter(tx.scalars(INSERT, [rows.collect::<Rows>().into()]).await?);
    let stopping: BTreeSet<&str> = drafts
        .iter()
        .flatten()
        .filter(|draft| new.contains(&draft.id))
        .filter_map(|draft| Some(draft.incoming.wants(Keyword::Stop)?.as_e164()))
        .collect();
    if let Some(newest) = all.iter().map(|incoming| incoming.now).max()
        && !stopping.is_empty()
    {
        ledger::suppress(tx, &stopping, newest).await?;
    }
    for draft in drafts.iter_mut().flatten().filter(|draft| new.contains(&draft.id)) {
        draft.act(tx).await?;
        draft.tell(tx);
    }
    let outcomes = drafts.iter().flatten().filter(|draft| new.contains(&draft.id));
    tx.queue(SAVE_OUTCOMES, outcomes.map(|draft| OutcomeRow { draft }).collect());
    let phones: BTreeSet<&str> = stops()
        .filter_map(|incoming| Some(incoming.wants(Keyword::Stop)?.as_e164()))
        .collect();
    let calling = match phones.is_empty() {
        true => Vec::new(),
        false => ledger::calling(tx, &phones).await?,
    };
    let calling_of = |incoming: &Incoming| {
        let phone = incoming.wants(Keyword::Stop).map(PhoneNumber::as_e164);
        let own = calling.iter().filter(|(called, _)| Some(called.as_str()) == phone);
        own.map(|(_, id)| id.clone()).collect::<Vec<_>>()
    };
    Ok(drafts
        .into_iter()
        .zip(all)
        .map(|(draft, incoming)| match draft {
            None => Taken::TooMany,
            Some(draft) if new.contains(&draft.id) => Taken::Kept {
                calling: calling_of(incoming),
                is_answered: draft.answer_id.is_some(),
                id: draft.id,
                kind: draft.kind,
                outcome: draft.outcome,
            },
            Some(_) => Taken::Repeat {
                calling: calling_of(incoming),
            },
        })
        .collect())
}

/// How a message is to be kept; `None` if it is one too many of people whom nobody knows.
async fn draft<'a>(tx: &mut Tx, incoming: &'a Incoming) -> Result<Option<Draft<'a>>, StoreError> {
    let phone = incoming.message.phone.as_ref();
    let mut code = None;
    let (kind, outcome) = match (&incoming.meaning, phone) {
        (Meaning::Keyword(Keyword::Stop), Some(_)) => (InboundKind::OptOut, InboundOutcome::OptedOutBefore),
        (Meaning::Keyword(Keyword::Start), Some(_)) => (InboundKind::OptIn, InboundOutcome::NotOptedOut),
        (Meaning::Keyword(Keyword::Help), Some(_)) => (InboundKind::Help, InboundOutcome::NotHelped),
        (Meaning::Acknowledge { code: given }, Some(_)) => {
            code.clone_from(given);
            (InboundKind::Acknowledge, InboundOutcome::NothingOpen)
        }
        (Meaning::PerhapsCode(word), Some(phone)) if acknowledge::is_code(tx, phone, word).await? => {
            code = Some(word.clone());
            (InboundKind::Acknowledge, InboundOutcome::NothingOpen)
        }
        (Meaning::PerhapsCode(_) | Meaning::Text, Some(_)) | (_, None) => (InboundKind::Reply, InboundOutcome::ToNone),
    };
    // Whoever wants no more texts, or wants them again, need not be known.
    let always_counts = matches!(kind, InboundKind::OptOut | InboundKind::OptIn);
    let is_known = always_counts || strangers::knows(tx, phone).await?;
    if !is_known && strangers::are_too_many(tx, &incoming.message, incoming.now).await? {
        return Ok(None);
    }
    Ok(Some(Draft {
        incoming,
        id: new_id(),
        kind,
        code,
        is_known,
        outcome,
        alert_id: None,
        delivery_id: None,
        answer_id: None,
    }))
}

fn media(message: &Inbound) -> Option<String> {
    let (count, types) = message.media.as_ref()?;
    Some(json!({ "count": count, "types": types }).to_string())
}

impl Draft<'_> {
    /// Does what the message asks for.
    async fn act(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        let (incoming, now) = (self.incoming, self.incoming.now);
        let Some(phone) = &incoming.message.phone else {
            return Ok(());
        };
        match self.kind {
            InboundKind::OptOut => {
                if opt_outs::insert_texted(tx, phone.as_e164(), &self.id, now).await? {
                    self.outcome = InboundOutcome::OptedOut;
                }
                tx.then(Effect::OptedOut(phone.as_e164().to_owned()));
            }
            InboundKind::OptIn => {
                if opt_outs::remove(tx, phone.as_e164(), Some(&self.id), now).await? {
                    self.outcome = InboundOutcome::OptedIn;
                }
            }
            InboundKind::Help => self.help(tx, phone).await?,
            InboundKind::Acknowledge => {
                let rules = AcknowledgeRules {
                    cancels_others: incoming.rules.cancels_others,
                };
                let led_to = acknowledge::by_reply(tx, phone, self.code.as_deref(), rules, now).await?;
                self.acknowledge(tx, phone, led_to).await?;
            }
            InboundKind::Reply => {
                if let Some((alert_id, delivery_id)) =
                    threads::newest(tx, phone, incoming.message.to.as_deref(), now).await?
                {
                    self.outcome = InboundOutcome::ToAlert;
                    (self.alert_id, self.delivery_id) = (Some(alert_id), Some(delivery_id));
                }
            }
        }
        Ok(())
    }

    async fn help(&mut self, tx: &mut Tx, phone: &PhoneNumber) -> Result<(), StoreError> {
        let (message, rules) = (&self.incoming.message, &self.incoming.rules);
        // What the provider named help is a word of its own, whatever the text.
        let is_usual = message.keyword.is_some() || reply::is_usual_help(&message.text);
        if !rules.help.answers(message.provider_answers, is_usual) {
            if rules.help == HelpAnswers::Auto {
                self.outcome = InboundOutcome::HelpedByProvider;
            }
            return Ok(());
        }
        if self.answer(tx, phone, &AutoReply::Help).await? {
            self.outcome = InboundOutcome::Helped;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, tx: &mut Tx, phone: &PhoneNumber, led_to: ByReply) -> Result<(), StoreError> {
        let code = self.code.clone().unwrap_or_default();
        match led_to {
            ByReply::Acknowledged { alert } => {
                self.outcome = InboundOutcome::Acknowledged;
                self.belongs_to(&alert);
            }
            ByReply::Already { alert, by, by_self, at } => {
                self.outcome = InboundOutcome::AcknowledgedBefore;
                self.belongs_to(&alert);
                let reply = AutoReply::AlreadyAcknowledged {
                    alert: named(&alert, None),
                    by: by.as_deref(),
                    by_self,
                    at,
                };
                self.answer(tx, phone, &reply).await?;
            }
            ByReply::Closed { alert } => {
                self.outcome = InboundOutcome::NotCritical;
                self.belongs_to(&alert);
                self.answer(tx, phone, &AutoReply::NotCritical(named(&alert, None)))
                    .await?;
            }
            ByReply::Several(open) => {
                self.outcome = InboundOutcome::SeveralOpen;
                let open = all_named(&open);
                self.answer(tx, phone, &AutoReply::OpenAlerts(&open)).await?;
            }
            ByReply::WrongCode(open) => {
                self.outcome = InboundOutcome::WrongCode;
                let (code, open) = (code.as_str(), all_named(&open));
                self.answer(tx, phone, &AutoReply::WrongCode { code, open: &open })
                    .await?;
            }
            ByReply::Nothing => {
                self.answer(tx, phone, &AutoReply::NothingOpen).await?;
            }
        }
        Ok(())
    }

    fn belongs_to(&mut self, alert: &ToldAlert) {
        self.alert_id = Some(alert.alert_id.clone());
        self.delivery_id = Some(alert.delivery_id.clone());
    }

    /// Owes an answer, if this person may be answered; whether it is owed.
    async fn answer(&mut self, tx: &mut Tx, phone: &PhoneNumber, reply: &AutoReply<'_>) -> Result<bool, StoreError> {
        let now = self.incoming.now;
        if !self.is_known || !threads::may_answer(tx, phone, now).await? {
            return Ok(false);
        }
        let warn = |error: &_| tracing::warn!(%error, "the template of an answer failed; the built-in one is used");
        let text = self.incoming.rules.replies.write(reply, now, warn);
        self.answer_id = Some(threads::owe(tx, phone, text, now).await?);
        Ok(true)
    }

    /// Lets others hear of it.
    fn tell(&self, tx: &mut Tx) {
        let about = About {
            alert_id: self.alert_id.as_ref(),
            delivery_id: self.delivery_id.as_ref(),
            message_id: Some(&self.id),
            ..About::default()
        };
        tx.tell(EventType::MessageReceived, &about, self.incoming.now, || json!({}));
    }
}

fn named<'a>(alert: &'a ToldAlert, code: Option<&'a str>) -> Named<'a> {
    Named {
        number: alert.ticket_number.as_deref().unwrap_or(&alert.ticket_id),
        subject: alert.subject.as_deref(),
        code,
    }
}

fn all_named(open: &[(ToldAlert, String)]) -> Vec<Named<'_>> {
    open.iter().map(|(alert, code)| named(alert, Some(code))).collect()
}
