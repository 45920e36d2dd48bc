-- What a source holds is released in this order.
create index if not exists delivery_held on delivery (held_source, received_at, id) where held_source is not null;
