-- Helpdesks that are polled: how far each was read, and what it last said of tickets that are or were critical.
create table source_poll (
    source        text primary key not null,
    -- After which nothing was seen yet, in the poller's own words; null: never asked.
    position      text,
    owner         text,
    lease_until   integer,
    due_at        integer not null,
    polled_at     integer,
    swept_at      integer,
    failing_since integer,
    failures      integer not null,
    last_error    text
) strict;

create table source_ticket (
    source      text not null,
    ticket_id   text not null,
    -- What the poll last saw: 'critical', 'lower', 'closed' or 'unknown', and a digest of whom it named; null: only heard of.
    state       text,
    people      text,
    -- How often its state has changed.
    changes     integer not null,
    critical_at integer not null,
    -- When a webhook brought it, and when the poll saw it critical.
    heard_at    integer,
    seen_at     integer,
    -- When it was noted that no webhook had brought it.
    missed_at   integer,
    primary key (source, ticket_id)
) strict, without rowid;
create index source_ticket_state on source_ticket (source, state);
create index source_ticket_critical on source_ticket (source, critical_at);

-- Words for urgency that nobody has explained.
create table unknown_urgency (
    source   text not null,
    word     text not null,
    count    integer not null,
    first_at integer not null,
    last_at  integer not null,
    primary key (source, word)
) strict, without rowid;
