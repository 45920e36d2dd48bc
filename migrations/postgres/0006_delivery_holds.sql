-- How often this delivery brought a hold upon all the others, and when it did last.
alter table delivery add column holds bigint not null default 0;
alter table delivery add column held_at bigint;
