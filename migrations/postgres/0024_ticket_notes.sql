-- What is to be written on a helpdesk's ticket once it is known who was reached; one note for each alert.
create table ticket_note (
    alert_id    text primary key not null references alert (id),
    source      text not null,
    ticket_id   text not null,
    text        text not null,
    -- When it is tried next; null: it is written, or given up.
    due_at      bigint,
    tries       bigint not null,
    lease_until bigint,
    written_at  bigint,
    last_error  text,
    created_at  bigint not null
);
create index ticket_note_due on ticket_note (source, due_at) where due_at is not null;
