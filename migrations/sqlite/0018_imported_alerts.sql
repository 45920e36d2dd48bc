-- When an alert was taken over from the system before, which told its people: such a ticket is never told of again. Null
-- for all others.
alter table alert add column imported_at integer;
