//! The mail outbox: mails are kept here from the moment they are made until the mail server took them. Absent: SMTP, and who
//! they go to.

use super::{
    Db,
    alarms::AlarmRow,
    error::StoreError,
    job_runs::{self, Run},
    page::Page,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{MaybeMs, Ms, at, ms, new_id},
};
use crate::domain::{
    alarm::Alarm,
    day::{LocalDay, after},
    mail::{self, Attachment, MailKind, MailState},
    nightly::NightlyJob,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A mail that this process may send now, until its lease ends.
#[derive(Debug)]
pub struct Mail {
    pub content: mail::Mail,
    /// The same at every try, so that a second copy is recognised.
    pub message_id: String,
    pub created_at: Timestamp,
    /// Which try this is, from 1.
    pub tries: i64,
    /// Addresses that need it no more.
    pub settled: Vec<String>,
    id: String,
    key: String,
    token: String,
}

/// Which mails are to be taken.
#[derive(Clone, Copy, Debug)]
pub enum Mails<'a> {
    /// Those of alarms.
    Alarms,
    /// Those by which people hear of lifecycle events: there may be thousands.
    Notices,
    /// All others.
    Others,
    /// The one with this key, whenever its next try is due.
    Named(&'a str),
}

impl<'a> Mails<'a> {
    /// The key and the word that the statements know.
    fn arguments(self) -> (Option<&'a str>, &'static str) {
        match self {
            Self::Alarms => (None, "alarms"),
            Self::Notices => (None, "notice"),
            Self::Others => (None, "others"),
            Self::Named(key) => (Some(key), ""),
        }
    }
}

/// Mails that should have gone and have not.
#[derive(Debug)]
pub struct MailTrouble {
    pub waiting: i64,
    pub since: Timestamp,
    /// Why the last try failed.
    pub reason: Option<String>,
}

/// A report as it was made.
#[derive(Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
#[schema(as = Report)]
pub struct KeptReport {
    /// The last day that it covers.
    #[schema(format = Date, examples("2026-11-19"))]
    pub day: String,
    #[schema(format = Date, examples("2026-11-19"))]
    pub first_day: String,
    pub subject: String,
    #[sqlx(try_from = "Ms")]
    pub created_at: Timestamp,
    #[sqlx(flatten)]
    pub mail: ReportMail,
    /// The report as plain text; in single views only.
    #[sqlx(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The mail of a kept report, part by part.
#[derive(sqlx::FromRow)]
pub struct ReportParts {
    pub day: String,
    pub text: String,
    pub html: String,
    /// The attachment's name and text.
    pub file_name: Option<String>,
    pub file: Option<String>,
}

/// What became of a report's mail.
#[derive(Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ReportMail {
    #[sqlx(rename = "mail_state")]
    pub state: MailState,
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub sent_at: Option<Timestamp>,
    pub tries: i64,
    /// Why the last try failed.
    #[schema(required)]
    pub last_error: Option<String>,
}

/// The columns of a [`KeptReport`] but its text, of `job_run j join mail m`.
const REPORT: &str = "j.day, j.first_day, m.subject, m.created_at, m.sent_at, m.tries, m.last_error,
    case when m.due_at is null then 'kept' when m.sent_at is null then 'mailing' else 'sent' end as mail_state";
/// Where they are read.
const REPORTS: &str = "from job_run j join mail m on m.subject_key = 'report/' || j.day where j.job = 'report'";

#[derive(sqlx::FromRow)]
struct MailRow {
    id: String,
    kind: String,
    subject_key: String,
    message_id: String,
    subject: String,
    body_text: String,
    body_html: String,
    attachment_name: Option<String>,
    attachment: Option<String>,
    recipients: Option<String>,
    created_at: i64,
    tries: i64,
    settled: String,
}

/// The time between two mails of alarms, so that many of them make one mail a minute.
const ALARM_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// Alarms older than this are not mailed any more: somebody switched mail on later.
const ALARM_AGE: SignedDuration = SignedDuration::from_hours(24);

impl Db {
    /// Keeps the report of a run, to be sent at once or only to be looked at. Returns whether it was this run's to make.
    pub async fn put_report(
        &self,
        run: Run,
        mail: &mail::Mail,
        send: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some((mut tx, _)) = self.begin_step(&run, now).await? else {
            return Ok(false);
        };
        insert(&mut tx, mail, &report_key(run.days.last), send.then_some(now), now).await?;
        job_runs::composed(&mut tx, &run, send, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Keeps a report of a day that is not over, to be sent at once. Returns its key.
    pub async fn put_interim_report(&self, mail: &mail::Mail, now: Timestamp) -> Result<String, StoreError> {
        let key = format!("interim/{}", new_id());
        let mut tx = self.begin().await?;
        insert(&mut tx, mail, &key, Some(now), now).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Keeps the mail of a lifecycle event, to be sent at once. One for each endpoint and event, however often it is asked for.
    pub async fn put_notice(
        &self,
        mail: &mail::Mail,
        endpoint: &str,
        event_id: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = format!("{}/{endpoint}/{event_id}", MailKind::Notice);
        let mut tx = self.begin().await?;
        insert(&mut tx, mail, &key, Some(now), now).await?;
        tx.commit().await
    }

    /// Alarms that no mail has named yet, the oldest first, if a mail of alarms may be made now.
    pub async fn alarms_to_mail(&self, most: i64, now: Timestamp) -> Result<Vec<Alarm>, StoreError> {
        let rows: Vec<AlarmRow> = self.reads().all(sql!("select m.id, m.kind, m.raised_at, m.detail, a.source, a.ticket_id, a.ticket_number, a.subject, a.url,
                    d.name, coalesce(d.phone, d.phone_raw) as phone
                 from alarm m left join alert a on a.id = m.alert_id left join delivery d on d.id = m.delivery_id
                 where m.mailed_at is null and m.raised_at > $1
                    and not exists (select 1 from setting where name = 'alarm_mail' and updated_at > $2 and updated_at <= $3)
                 order by m.raised_at, m.id limit $4"), args![ms(after(now, -ALARM_AGE)), ms(after(now, -ALARM_PAUSE)), ms(now), most]).await?;
        Ok(rows.into_iter().filter_map(AlarmRow::into_alarm).collect())
    }

    /// Keeps the mail of these alarms, unless another process made one within the minute. Returns whether it did.
    pub async fn put_alarms(&self, mail: &mail::Mail, alarms: &[Alarm], now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let is_ours: bool = tx
            .execute(
                sql!(
                    "insert into setting (name, value, updated_at) values ('alarm_mail', '', $1)
             on conflict (name) do update set updated_at = excluded.updated_at
             where setting.updated_at <= $2 or setting.updated_at > $1"
                ),
                args![ms(now), ms(after(now, -ALARM_PAUSE))],
            )
            .await?
            > 0;
        if !is_ours {
            return Ok(false);
        }
        for alarm in alarms {
            let marked = tx
                .execute(
                    sql!("update alarm set mailed_at = $2 where id = $1 and mailed_at is null"),
                    args![&alarm.id, ms(now)],
                )
                .await?;
            if marked == 0 {
                // Another process, whose clock is ahead of ours, named it between our reading and now.
                return Ok(false);
            }
        }
        let key = format!("{}/{}", MailKind::Alarms, new_id());
        insert(&mut tx, mail, &key, Some(now), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A restart may have brought a better server or address: mails that wait for their next try are tried now.
    pub async fn mail_soon(&self, now: Timestamp) -> Result<(), StoreError> {
        const TRY_NOW: Sql = sql!("update mail set due_at = $1 where sent_at is null and due_at > $1");
        self.execute(TRY_NOW, args![ms(now)]).await.map(drop)
    }

    /// Takes the mail of this kind that has waited longest, until `now + lease`.
    pub async fn take_mail(
        &self,
        owner: &str,
        which: Mails<'_>,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<Option<Mail>, StoreError> {
        const WAITING: &str = "select id from mail where sent_at is null and due_at is not null
            and ((due_at <= $1 and $2 is null and case when kind in ('alarms', 'notice') then kind else 'others' end = $3)
                or subject_key = $2) and (lease_until is null or lease_until <= $1)";
        const TAKE: Sql = sql!(
            "update mail set lease_token = $4, lease_until = $5, tries = tries + 1 where id = (",
            WAITING,
            " order by due_at, id limit 1 for update skip locked)
             returning id, kind, subject_key, message_id, subject, body_text, body_html, attachment_name, attachment,
                recipients, created_at, tries, settled"
        );
        let (key, kind) = which.arguments();
        let asking = args![ms(now), key, kind];
        let waiting: Option<String> = self.reads().optional_scalar(sql!(WAITING, " limit 1"), asking).await?;
        if waiting.is_none() {
            return Ok(None);
        }
        let token = format!("{owner}/{}", uuid::Uuid::now_v7().simple());
        let mut tx = self.begin().await?;
        let arguments = args![ms(now), key, kind, &token, ms(after(now, lease))];
        let row: Option<MailRow> = tx.optional(TAKE, arguments).await?;
        let Some(row) = row else { return Ok(None) };
        tx.commit().await?;
        Ok(Some(Mail {
            content: mail::Mail {
                kind: MailKind::parse(&row.kind).unwrap_or(MailKind::Test),
                subject: row.subject,
                text: row.body_text,
                html: row.body_html,
                attachment: row
                    .attachment_name
                    .zip(row.attachment)
                    .map(|(name, content)| Attachment { name, content }),
                to: row.recipients.and_then(|text| text.parse().ok()),
            },
            message_id: row.message_id,
            created_at: at(row.created_at),
            tries: row.tries,
            settled: serde_json::from_str(&row.settled).unwrap_or_default(),
            id: row.id,
            key: row.subject_key,
            token,
        }))
    }

    /// Notes that the mail server took the mail for everybody; the run that it reports for is done with it.
    pub async fn mail_sent(&self, mail: &Mail, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(
            sql!(
                "update mail set sent_at = $2, last_error = null, lease_token = null, lease_until = null where id = $1"
            ),
            args![&mail.id, ms(now)],
        )
        .await?;
        if let Some(day) = mail.key.strip_prefix("report/") {
            tx.execute(
                sql!("update job_run set finished_at = $3 where job = $1 and day = $2 and finished_at is null"),
                args![NightlyJob::Report.as_str(), day, ms(now)],
            )
            .await?;
        }
        tx.commit().await
    }

    /// Whether the mail server took the mail with this key for everybody.
    pub async fn is_mail_sent(&self, key: &str) -> Result<bool, StoreError> {
        const SENT: Sql = sql!("select count(*) from mail where subject_key = $1 and sent_at is not null");
        let sent: i64 = self.reads().scalar(SENT, args![key]).await?;
        Ok(sent > 0)
    }

    /// Puts a mail off that did not go to everybody, with the reason. Those who are `settled` by now do not get it again.
    pub async fn put_off_mail(&self, mail: &Mail, reason: &str, due_at: Timestamp) -> Result<(), StoreError> {
        let settled = serde_json::to_string(&mail.settled).unwrap_or_default();
        self.execute(
            sql!(
                "update mail set due_at = $3, last_error = $4, settled = $5, lease_token = null, lease_until = null
             where id = $1 and lease_token = $2"
            ),
            args![&mail.id, &mail.token, ms(due_at), reason, &settled],
        )
        .await
        .map(drop)
    }

    /// Mails that were tried and did not go; `None` if there are none.
    pub async fn mail_trouble(&self) -> Result<Option<MailTrouble>, StoreError> {
        let (waiting, since, reason): (i64, Option<i64>, Option<String>) = self
            .reads()
            .one(
                sql!(
                    "select count(*), min(created_at), (select last_error from mail where sent_at is null
                    and due_at is not null and last_error is not null order by due_at desc limit 1)
                 from mail where sent_at is null and due_at is not null and last_error is not null"
                ),
                args![],
            )
            .await?;
        Ok(since.map(|since| MailTrouble {
            waiting,
            since: at(since),
            reason,
        }))
    }

    /// Reports that are kept, the newest first, before the cursor (a day).
    pub async fn reports(&self, before: Option<&str>, limit: i64) -> Result<Page<KeptReport>, StoreError> {
        const LIST: Sql = sql!(
            "select ",
            REPORT,
            " ",
            REPORTS,
            " and ($1 is null or j.day < $1) order by j.day desc limit $2"
        );
        let reports = self.reads().all(LIST, args![before, limit + 1]).await?;
        Ok(Page::cut(reports, limit, |report: &KeptReport| report.day.clone()))
    }

    /// The report that covers a day, as it was made.
    pub async fn report_of(&self, day: LocalDay) -> Result<Option<KeptReport>, StoreError> {
        const COVERING: Sql = sql!(
            "select ",
            REPORT,
            ", m.body_text as text ",
            REPORTS,
            " and j.first_day <= $1 and j.day >= $1 order by j.day limit 1"
        );
        self.reads().optional(COVERING, args![day.to_string()]).await
    }

    /// The mail of the report that covers a day.
    pub async fn report_parts(&self, day: LocalDay) -> Result<Option<ReportParts>, StoreError> {
        const PARTS: Sql = sql!(
            "select j.day, m.body_text as text, m.body_html as html, m.attachment_name as file_name, m.attachment as file ",
            REPORTS,
            " and j.first_day <= $1 and j.day >= $1 order by j.day limit 1"
        );
        self.reads().optional(PARTS, args![day.to_string()]).await
    }
}

/// The key of the mail that reports a run.
pub fn report_key(day: LocalDay) -> String {
    format!("{}/{day}", MailKind::Report)
}

async fn insert(
    tx: &mut Tx,
    mail: &mail::Mail,
    key: &str,
    due_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let message_id = format!("{}.{}", key.replace('/', "."), installation(tx, now).await?);
    tx.execute(
        sql!(
            "insert into mail (id, kind, subject_key, message_id, subject, body_text, body_html, attachment_name,
                attachment, created_at, due_at, recipients, tries, settled)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, '[]') on conflict (subject_key) do nothing"
        ),
        args![
            new_id(),
            mail.kind.as_str(),
            key,
            message_id,
            &mail.subject,
            &mail.text,
            &mail.html,
            mail.attachment.as_ref().map(|file| file.name.as_str()),
            mail.attachment.as_ref().map(|file| file.content.as_str()),
            ms(now),
            due_at.map(ms),
            mail.to.as_ref().map(ToString::to_string)
        ],
    )
    .await
    .map(drop)
}

/// A word of this installation's own, so that two of them never make the same Message-ID.
async fn installation(tx: &mut Tx, now: Timestamp) -> Result<String, StoreError> {
    tx.scalar(
        sql!(
            "insert into setting (name, value, updated_at) values ('installation', $1, $2)
         on conflict (name) do update set value = setting.value returning value"
        ),
        args![uuid::Uuid::new_v4().simple().to_string(), ms(now)],
    )
    .await
}
