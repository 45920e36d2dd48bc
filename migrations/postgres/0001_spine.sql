-- Times are UTC milliseconds since 1970, bound from Rust. Ids are UUIDv7 as text. The same tables stand in
-- ../sqlite; a test compares the columns.

create table alert (
    id                 text primary key not null,
    source             text not null,
    ticket_id          text not null,
    ticket_number      text,
    subject            text,
    url                text,
    client_name        text,
    client_organisation text,
    estimated_hours    double precision,
    confidence_percent double precision,
    event_id           text,
    event_type         text,
    occurred_at        bigint not null,
    received_at        bigint not null,
    closed_at          bigint,
    -- The dedup key: an alert is raised once, for ever. Clean-up never deletes this row.
    unique (source, ticket_id)
);
create index alert_ticket on alert (ticket_id);

create table delivery (
    id                  text primary key not null,
    alert_id            text not null references alert (id),
    channel             text not null,
    phone               text,
    phone_raw           text,
    round               bigint not null,
    resend_of           text references delivery (id),
    staff_id            text,
    role                text,
    name                text,
    message             text not null,
    segments            bigint not null,
    state               text not null,
    reason              text,
    attempts            bigint not null,
    provider            text,
    provider_message_id text,
    provider_status     text,
    error_code          bigint,
    provider_at         bigint,
    read_at             bigint,
    due_at              bigint,
    claims              bigint not null,
    lease_token         text,
    lease_until         bigint,
    looks               bigint not null,
    timeline_length     bigint not null,
    received_at         bigint not null,
    created_at          bigint not null,
    updated_at          bigint not null,
    unique (alert_id, channel, phone, round)
);
create index delivery_due on delivery (state, due_at, id);
create index delivery_lease on delivery (lease_until) where lease_until is not null;
create index delivery_waiting on delivery (received_at, id) where state in ('pending', 'deferred');
create index delivery_phone on delivery (phone, id);
create index delivery_received on delivery (received_at, id);

create table attempt (
    delivery_id      text not null references delivery (id),
    number           bigint not null,
    provider         text not null,
    account          text not null,
    message_id       text,
    limit_day        text not null,
    begun_at         bigint not null,
    deadline_at      bigint not null,
    answered_at      bigint,
    outcome          text,
    error_code       bigint,
    slot_returned_at bigint,
    primary key (delivery_id, number)
);
-- A message of the provider belongs to one attempt only.
create unique index attempt_message on attempt (provider, message_id) where message_id is not null;

create table timeline (
    delivery_id text not null references delivery (id),
    seq         bigint not null,
    at          bigint not null,
    what        text not null,
    detail      text,
    primary key (delivery_id, seq)
);

create table receipt (
    id          text primary key not null,
    provider    text not null,
    message_id  text not null,
    status      text not null,
    news        text,
    error_code  text not null,
    read_at     bigint,
    opted_out_at bigint,
    delivery_id text not null,
    attempt     bigint not null,
    received_at bigint not null,
    applied_at  bigint,
    -- Exact repeats are recognised by this. What is missing is '' or 0.
    unique (provider, message_id, status, error_code, delivery_id, attempt)
);
create index receipt_received on receipt (received_at);
create index receipt_waiting on receipt (provider, message_id) where applied_at is null;

create table opt_out (
    phone        text primary key not null,
    staff_id     text,
    reason       text,
    opted_out_at bigint not null
);

create table daily_count (
    day  text primary key not null,
    used bigint not null
);

create table setting (
    name       text primary key not null,
    value      text not null,
    updated_at bigint not null
);

create table provider_hold (
    provider   text not null,
    account    text not null,
    since      bigint not null,
    error_code bigint,
    probe_at   bigint not null,
    primary key (provider, account)
);

create table alarm (
    id        text primary key not null,
    kind      text not null,
    -- What the alarm is about; one alarm for each.
    subject   text not null,
    raised_at bigint not null,
    detail    text not null,
    mailed_at bigint,
    unique (kind, subject)
);

create table job_run (
    job         text not null,
    day         text not null,
    owner       text,
    lease_until bigint,
    finished_at bigint,
    primary key (job, day)
);
