-- When it was seen that a clock had been wrong while this attempt's outcome was open: its absence can then not be proven.
alter table attempt add column clock_doubtful_at bigint;
-- When it began by a clock that nobody turns: the machine's start that it counts from, and milliseconds since. A wall clock
-- that was wrong then and is right now, or the other way round, does not hide when that was.
alter table attempt add column machine_start text;
alter table attempt add column begun_uptime bigint;
