-- The source whose own daily limit holds a delivery until there is a slot; null for all others.
alter table delivery add column held_source text;
