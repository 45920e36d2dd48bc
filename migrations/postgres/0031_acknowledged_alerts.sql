-- no-transaction
create index concurrently if not exists alert_acknowledged on alert (acknowledged_at, id) where acknowledged_at is not null;
