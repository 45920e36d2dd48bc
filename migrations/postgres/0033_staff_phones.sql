-- no-transaction
-- Whether somebody who texts us is in the directory.
create index concurrently if not exists staff_phone on staff (phone);
