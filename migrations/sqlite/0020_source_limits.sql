-- The source whose own daily limit an attempt counts for; null for sources without one.
alter table attempt add column limited_source text;
