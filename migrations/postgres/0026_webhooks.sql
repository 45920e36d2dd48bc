-- Who hears of lifecycle events, by the name in the configuration, and how far each has heard.
create table webhook_endpoint (
    name          text primary key not null,
    -- Everything up to here was posted, or is in `webhook_hold`.
    place         bigint not null,
    -- How often in a row nothing was taken, and until when it is left alone because of it.
    tries         bigint not null,
    due_at        bigint,
    failing_since bigint,
    last_error    text,
    succeeded_at  bigint,
    -- When it was given up; null: it is not.
    disabled_at   bigint,
    -- Which process posts to it.
    lease_owner   text,
    lease_until   bigint,
    -- The number of the newest try.
    tried         bigint not null,
    created_at    bigint not null
);
-- Events up to the endpoint's place that it has not taken: each waits for those of its stream before it.
create table webhook_hold (
    endpoint   text not null,
    place      bigint not null,
    stream     text not null,
    tries      bigint not null,
    -- When it is tried; null: once those of its stream before it are through.
    due_at     bigint,
    -- Since when it waits here: it is given up some days after.
    since      bigint not null,
    last_error text,
    primary key (endpoint, place)
);
create index webhook_hold_stream on webhook_hold (endpoint, stream, place);
create index webhook_hold_due on webhook_hold (endpoint, due_at) where due_at is not null;
-- The newest tries of each endpoint.
create table webhook_try (
    endpoint   text not null,
    number     bigint not null,
    event_id   text not null,
    event_type text not null,
    at         bigint not null,
    took_ms    bigint not null,
    -- What the endpoint answered; null: nothing.
    status     bigint,
    -- `taken`, `failed`, or `given_up`.
    outcome    text not null,
    error      text,
    primary key (endpoint, number)
);
