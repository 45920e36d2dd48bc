-- Messages that no alert is the cause of. SQLite cannot take a NOT NULL away; this is the way that its documentation gives
-- for changes that leave the rows as they are (lang_altertable, 7). The table that follows makes everybody read the schema
-- again.
pragma writable_schema = on;
update sqlite_schema set sql = replace(sql, 'alert_id            text not null references', 'alert_id            text references')
    where type = 'table' and name = 'delivery';
pragma writable_schema = reset;

-- By what a request for a message is known when it comes again: the caller's key, what was asked for, and the answer.
create table message_request (
    key         text primary key not null,
    digest      text not null,
    answer      text not null,
    delivery_id text not null,
    received_at integer not null
) strict;
create index message_request_received on message_request (received_at);
