-- What is known of a route, which is a channel, a provider, an account and a sender as one text. These take the place of
-- provider_hold, provider_account and pace, in which all senders of an account were one; replicas of the version before
-- go on using those until they are gone.

-- All sends by this route are held: since when, what the provider refused, what the alarm says, when it is asked next, and
-- when one delivery may be tried though all is held (null: never).
create table route_hold (
    route      text primary key not null,
    since      bigint not null,
    error_code bigint,
    fault      text,
    detail     text,
    probe_at   bigint not null,
    trial_at   bigint
);

create table route_contact (
    route        text primary key not null,
    -- Since when calls bring no answer at all, and when the last of them failed; null: the provider can be reached.
    silent_since bigint,
    failed_at    bigint,
    -- When people were told of it.
    alarmed_at   bigint,
    -- When it is asked next whether it is back.
    probe_at     bigint
);

-- When the next message of a route may go, by the clock of the database server: those of replicas differ. Unused on SQLite,
-- which has a single process and keeps the pace in memory.
create table route_pace (
    route   text primary key not null,
    next_at bigint not null
);
