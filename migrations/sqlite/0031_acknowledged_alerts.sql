create index if not exists alert_acknowledged on alert (id) where acknowledged_at is not null;
