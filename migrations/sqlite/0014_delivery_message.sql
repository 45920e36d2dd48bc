-- What clean-up looks for.
create index delivery_message on delivery (received_at) where alert_id is null and message <> '';
