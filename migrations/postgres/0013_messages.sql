-- Messages that no alert is the cause of.
alter table delivery alter column alert_id drop not null;

-- By what a request for a message is known when it comes again: the caller's key, what was asked for, and the answer.
create table message_request (
    key         text primary key not null,
    digest      text not null,
    answer      text not null,
    delivery_id text not null,
    received_at bigint not null
);
create index message_request_received on message_request (received_at);
