-- When the last closing event says that the ticket was closed, at most when it came. Stays when the alert is opened again:
-- what happened before it is no news.
alter table alert add column close_occurred_at integer;

-- The ids of events that an alert has seen, but for the first one's, which stands in alert.event_id.
create table alert_event (
    alert_id    text not null references alert (id),
    -- What it said: critical or over.
    kind        text not null,
    event_id    text not null,
    received_at integer not null,
    primary key (alert_id, kind, event_id)
) strict, without rowid;
