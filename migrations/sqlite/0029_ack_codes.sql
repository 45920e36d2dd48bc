-- Short codes by which the person with this phone acknowledges one of several alerts.
create table ack_code (
    phone       text not null,
    code        text not null,
    alert_id    text not null,
    delivery_id text not null,
    created_at  integer not null,
    primary key (phone, code)
) strict;
create unique index ack_code_delivery on ack_code (delivery_id);
create index ack_code_alert on ack_code (alert_id);
