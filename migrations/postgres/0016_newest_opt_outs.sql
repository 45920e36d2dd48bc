-- no-transaction
-- Pages list opt-outs with the newest first.
create index concurrently if not exists opt_out_newest on opt_out (opted_out_at, phone);
