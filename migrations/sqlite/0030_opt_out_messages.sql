-- The inbound message by which a person opted out; null: it came another way.
alter table opt_out add column message_id text;
