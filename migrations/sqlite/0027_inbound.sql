-- Messages that people sent to us, whole.
create table inbound_message (
    id              text primary key not null,
    provider        text not null,
    -- The provider's own id: exact repeats have the same.
    provider_message_id text not null,
    channel         text not null,
    -- Null once personal data was taken out.
    from_phone      text,
    to_phone        text,
    text            text,
    -- When it came, if nobody knew its sender; null: somebody did, or it did not matter.
    unknown_at      integer,
    -- The message of ours that answers it.
    answer_id       text,
    -- What it was understood as: `opt_out`, `opt_in`, `help`, `acknowledge`, `reply`.
    kind            text not null,
    -- What came of it, in a word.
    outcome         text not null,
    -- To which alert, and to which message of ours, it belongs.
    alert_id        text references alert (id),
    delivery_id     text references delivery (id),
    -- How many attachments, and of which types, as JSON; they are not fetched.
    media           text,
    -- Everything that the provider said, as JSON.
    form            text,
    received_at     integer not null,
    stripped_at     integer
) strict;
create unique index inbound_message_provider on inbound_message (provider, provider_message_id);
create index inbound_message_from on inbound_message (from_phone, id) where from_phone is not null;
create index inbound_message_kind on inbound_message (kind, id);
create index inbound_message_unknown on inbound_message (unknown_at) where unknown_at is not null;
create index inbound_message_alert on inbound_message (alert_id, id) where alert_id is not null;
create index inbound_message_delivery on inbound_message (delivery_id) where delivery_id is not null;
create index inbound_message_unstripped on inbound_message (received_at) where stripped_at is null;
