-- no-transaction
-- What clean-up looks for.
create index concurrently if not exists delivery_message on delivery (received_at)
    where alert_id is null and message <> '';
