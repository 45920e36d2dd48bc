-- Trouble with the provider: holds that end, and a provider that is out of reach.

-- What is at fault and what its alarm says, which is repeated every day. trial_at: when one delivery may be tried though
-- all is held; null: never. hurried_at: a restart brought the next probe forward, so it proves nothing against anybody.
alter table provider_hold add column fault text;
alter table provider_hold add column detail text;
alter table provider_hold add column trial_at integer;
alter table provider_hold add column hurried_at integer;

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
    -- When a hold was last lifted: because the probe was accepted, or a delivery.
    probe_accepted_at integer,
    trial_accepted_at integer,
    primary key (provider, account)
) strict;
