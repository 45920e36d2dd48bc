-- Helpdesks that are polled: how far each was read, and what it last said of tickets that are or were critical.
create table source_poll (
    source        text primary key not null,
    -- After which nothing was seen yet, in the poller's own words; null: never asked.
    position      text,
    owner         text,
    lease_until   bigint,
    due_at        bigint not null,
    polled_at     bigint,
    swept_at      bigint,
    failing_since bigint,
    failures      bigint not null,
    last_error    text
);

create table source_ticket (
    source      text not null,
    ticket_id   text not null,
    -- What the poll last saw: 'critical', 'lower', 'closed' or 'unknown', and a digest of whom it named; null: only heard of.
    state       text,
    people      text,
    -- How often its state has changed.
    changes     bigint not null,
    critical_at bigint not null,
    -- When a webhook brought it, and when the poll saw it critical.
    heard_at    bigint,
    seen_at     bigint,
    -- When it was noted that no webhook had brought it.
    missed_at   bigint,
    primary key (source, ticket_id)
);
create index source_ticket_state on source_ticket (source, state);
create index source_ticket_critical on source_ticket (source, critical_at);

-- Words for urgency that nobody has explained.
create table unknown_urgency (
    source   text not null,
    word     text not null,
    count    bigint not null,
    first_at bigint not null,
    last_at  bigint not null,
    primary key (source, word)
);
