-- A source's own daily limit counts its attempts of a day.
create index if not exists attempt_limited on attempt (limited_source, limit_day) where limited_source is not null;
