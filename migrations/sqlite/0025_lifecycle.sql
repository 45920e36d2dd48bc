-- What became of alerts, written in the transaction that makes it true. Posted to whoever is configured to hear of it.
create table lifecycle_event (
    -- In the order in which they were written: of two events of one alert, the later one has the higher number.
    seq        integer primary key autoincrement not null,
    -- Given once the event is committed, without a gap, in the order of `seq`: what is posted is counted by it.
    place      integer,
    -- What receivers know it by.
    id         text not null,
    type       text not null,
    source     text,
    -- Events of one stream reach a receiver one after the other: those of an alert; of a message that has none.
    stream     text not null,
    alert_id   text,
    delivery_id text,
    -- Of the inbound message that it is about.
    message_id text,
    -- In E.164, of an opt-out.
    phone      text,
    at         integer not null,
    -- JSON.
    data       text not null
) strict;
create index lifecycle_event_unplaced on lifecycle_event (seq) where place is null;
create unique index lifecycle_event_place on lifecycle_event (place) where place is not null;
create table lifecycle_place (
    -- One row: the last place that was given.
    id   integer primary key not null,
    last integer not null
) strict;
