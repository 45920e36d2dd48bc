-- Several processes on one PostgreSQL. Unused on SQLite, which has a single process and keeps the pace in memory.

-- When the next message of a sender may go, in milliseconds by the database server's own clock: the replicas' clocks
-- differ.
create table pace (
    provider text not null,
    account  text not null,
    next_at  integer not null,
    primary key (provider, account)
) strict;
