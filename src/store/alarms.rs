//! Alarms: a row here and a line in the log, once for each thing they are about; and the check whether an opt-out left
//! a source with nobody to tell. Absent: their mails (see `outbox`).

use super::{
    Db,
    error::StoreError,
    lifecycle, opt_outs,
    query::Query,
    sql::{args, sql},
    tx::{Effect, Tx},
    types::{at, ms, new_id},
};
use crate::domain::{
    alarm::{Alarm, AlarmKind, TicketRef},
    day::after,
    id::{AlertId, DeliveryId},
    lifecycle::EventType,
    phone,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;

/// What an alarm is about, for its mail.
#[derive(Clone, Copy, Default)]
pub struct About<'a> {
    pub alert_id: Option<&'a str>,
    pub delivery_id: Option<&'a str>,
}

/// Whom a source named within this time, it still names.
const RECENT: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Raises an alarm about `subject`, unless it was raised already.
pub async fn raise(
    tx: &mut Tx,
    kind: AlarmKind,
    subject: &str,
    about: About<'_>,
    detail: String,
    now: Timestamp,
) -> Result<(), StoreError> {
    let new = tx
        .execute(
            sql!(
                "insert into alarm (id, kind, subject, raised_at, detail, alert_id, delivery_id)
            values ($1, $2, $3, $4, $5, $6, $7) on conflict (kind, subject) do nothing"
            ),
            args![
                new_id(),
                kind.as_str(),
                subject,
                ms(now),
                &detail,
                about.alert_id,
                about.delivery_id
            ],
        )
        .await?;
    if new > 0 {
        let alert_id = about.alert_id.map(AlertId::from);
        let delivery_id = about.delivery_id.map(DeliveryId::from);
        let told = lifecycle::About {
            alert_id: alert_id.as_ref(),
            delivery_id: delivery_id.as_ref(),
            ..Default::default()
        };
        tx.tell(
            EventType::AlarmRaised,
            &told,
            now,
            || json!({ "alarm": kind, "title": kind.title(), "detail": detail, "advice": kind.advice() }),
        );
        tx.then(Effect::Alarm { kind, detail });
    }
    Ok(())
}

/// An alarm with what its mail says of it.
#[derive(sqlx::FromRow)]
pub struct AlarmRow {
    id: String,
    kind: String,
    raised_at: i64,
    detail: String,
    source: Option<String>,
    ticket_id: Option<String>,
    ticket_number: Option<String>,
    subject: Option<String>,
    url: Option<String>,
    name: Option<String>,
    phone: Option<String>,
}

impl AlarmRow {
    /// `None` for a kind that this version does not know: the one that wrote it mails it.
    pub fn into_alarm(self) -> Option<Alarm> {
        let ticket = self.source.zip(self.ticket_id).map(|(source, id)| TicketRef {
            source,
            id,
            number: self.ticket_number,
            subject: self.subject,
            url: self.url,
        });
        let phone = self.phone.as_deref().map(phone::mask);
        let person = match (self.name, phone) {
            (Some(name), Some(phone)) => Some(format!("{name}, {phone}")),
            (name, phone) => name.or(phone),
        };
        Some(Alarm {
            id: self.id,
            kind: AlarmKind::parse(&self.kind)?,
            raised_at: at(self.raised_at),
            detail: self.detail,
            ticket,
            person,
        })
    }
}

impl Db {
    /// Checks opt-outs that nobody has checked yet: where everybody that a source names has opted out, its alarm is
    /// raised. `fallback` holds the configured numbers of each source, in E.164.
    pub async fn check_opt_outs(
        &self,
        fallback: &BTreeMap<String, Vec<String>>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let unchecked: Option<(String, i64)> = self
            .reads()
            .optional(
                sql!("select phone, opted_out_at from opt_out where checked_at is null order by opted_out_at limit 1"),
                args![],
            )
            .await?;
        let Some((phone, opted_out_at)) = unchecked else {
            return Ok(());
        };
        let mut people = self.people_of_sources(&phone, now).await?;
        for (source, numbers) in fallback {
            if numbers.contains(&phone) || people.contains_key(source) {
                people.entry(source.clone()).or_default().extend_from_slice(numbers);
            }
        }
        let mut tx = self.begin().await?;
        for (source, numbers) in people {
            let mut all_out = true;
            for number in &numbers {
                all_out &= opt_outs::contains(&mut tx, number).await?;
            }
            if all_out {
                let detail = format!(
                    "everybody that source {source} names has opted out of texts; {} was the last",
                    phone::mask(&phone)
                );
                let subject = format!("{source}/{opted_out_at}");
                let kind = AlarmKind::LastRecipientOptedOut;
                raise(&mut tx, kind, &subject, About::default(), detail, now).await?;
            }
        }
        tx.execute(
            sql!("update opt_out set checked_at = $2 where phone = $1"),
            args![&phone, ms(now)],
        )
        .await?;
        tx.commit().await
    }

    /// The numbers that were lately told of alerts of each source that also named this one.
    async fn people_of_sources(
        &self,
        phone: &str,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        let rows: Vec<(String, String)> = self
            .reads()
            .all(
                sql!(
                    "select distinct a.source, d.phone from delivery d join alert a on a.id = d.alert_id
                 where d.received_at > $2 and d.phone is not null and a.source in (
                    select o.source from alert o join delivery p on p.alert_id = o.id
                    where p.phone = $1 and p.received_at > $2)"
                ),
                args![phone, ms(after(now, -RECENT))],
            )
            .await?;
        let mut people: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (source, number) in rows {
            people.entry(source).or_default().push(number);
        }
        Ok(people)
    }
}
