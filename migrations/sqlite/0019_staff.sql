-- The staff directory: people whom a helpdesk names without telling their phones, as an admin keeps them. phone is E.164,
-- read once by the person's region, else by the source's; manages has the names of groups with commas between, * for all.
create table staff (
    source     text not null,
    -- The helpdesk's own id of the person.
    staff_id   text not null,
    login      text,
    email      text,
    name       text,
    phone      text not null,
    role       text,
    region     text,
    manages    text not null,
    created_at integer not null,
    updated_at integer not null,
    primary key (source, staff_id)
) strict, without rowid;

-- What an event may name a person by: id:2, login:grace, email:grace@acme.test, name:grace hopper, manages:billing. Made of
-- the row above and written with it.
create table staff_key (
    source   text not null,
    key      text not null,
    staff_id text not null,
    primary key (source, key, staff_id),
    foreign key (source, staff_id) references staff (source, staff_id)
) strict, without rowid;
-- For the foreign key, and to replace the keys of a person.
create index staff_key_person on staff_key (source, staff_id);
