-- Trouble with the provider: holds that end, and a provider that is out of reach.

-- What is at fault and what its alarm says, which is repeated every day. trial_at: when one delivery may be tried though
-- all is held; null: never.
alter table provider_hold add column fault text;
alter table provider_hold add column detail text;
alter table provider_hold add column trial_at integer;

-- What is known of an account beside its hold.
create table provider_account (
    provider          text not null,
    account           text not null,
    -- Since when calls bring no answer at all, and when the last of them failed; null: the provider can be reached.
    silent_since      integer,
    failed_at         integer,
    -- When people were told of it.
    alarmed_at        integer,
    -- When it is asked next whether it is back.
    probe_at          integer,
    primary key (provider, account)
) strict;
