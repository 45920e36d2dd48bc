-- The night: what the report counts by, the mails, and what clean-up has done.

-- When a delivery came into its state, and which day's report tells of it. A move clears the latter: a new outcome is
-- told anew.
alter table delivery add column moved_at bigint not null default 0;
alter table delivery add column report_day text;
update delivery set moved_at = updated_at;
create index delivery_untold on delivery (moved_at)
    where report_day is null and state in ('failed', 'undelivered', 'unconfirmed', 'expired', 'suppressed');
create index delivery_reported on delivery (report_day) where report_day is not null;

-- When the personal data was taken out. The row stays: it is the dedup key.
alter table alert add column stripped_at bigint;
create index alert_unstripped on alert (received_at) where stripped_at is null;

-- What an alarm's mail links to.
alter table alarm add column alert_id text;
alter table alarm add column delivery_id text;
create index alarm_unmailed on alarm (raised_at) where mailed_at is null;

-- When it was looked at whether this person was the last one of a source.
alter table opt_out add column checked_at bigint;
update opt_out set checked_at = opted_out_at;
create index opt_out_unchecked on opt_out (opted_out_at) where checked_at is null;

-- A run covers the local days from first_day to day. composed_at: its own work is done, only the mail is still to go.
alter table job_run add column first_day text not null default '';
alter table job_run add column composed_at bigint;

create table mail (
    id              text primary key not null,
    kind            text not null,
    -- What the mail is about; one mail for each.
    subject_key     text not null unique,
    message_id      text not null,
    subject         text not null,
    body_text       text not null,
    body_html       text not null,
    attachment_name text,
    attachment      text,
    created_at      bigint not null,
    -- When it is tried next; null: it is kept and not sent.
    due_at          bigint,
    tries           bigint not null,
    -- The addresses that need it no more, as JSON.
    settled         text not null,
    last_error      text,
    lease_token     text,
    lease_until     bigint,
    sent_at         bigint
);
create index mail_due on mail (due_at) where sent_at is null and due_at is not null;
create index mail_created on mail (created_at);
