//! Keys and indexes as both databases tell of them, brought into one form. What is compared: primary keys, unique keys and
//! foreign keys with their columns in order; indexes with name, uniqueness, columns or expressions in order, and the
//! condition of a partial one. Absent: names of keys, which SQLite has not, and round brackets, which PostgreSQL adds.

use crate::support::database::Database;
use std::collections::BTreeSet;

const SQLITE: [&str; 4] = [
    "select m.name || ' primary key ' || group_concat(c.name, ',' order by c.pk)
     from sqlite_master m join pragma_table_info(m.name) c where m.type = 'table' and c.pk > 0 group by m.name",
    "select m.name || ' unique ' || group_concat(c.name, ',' order by c.seqno)
     from sqlite_master m join pragma_index_list(m.name) i join pragma_index_info(i.name) c
     where m.type = 'table' and i.origin = 'u' group by m.name, i.name",
    "select m.name || ' foreign key ' || group_concat(f.\"from\", ',' order by f.seq) || ' references ' || f.\"table\" || ' '
        || group_concat(f.\"to\", ',' order by f.seq)
     from sqlite_master m join pragma_foreign_key_list(m.name) f where m.type = 'table' group by m.name, f.id",
    "select sql from sqlite_master where type = 'index' and sql is not null",
];

const POSTGRES: [&str; 2] = [
    "select conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint
     where contype in ('p', 'u', 'f') and connamespace = 'public'::regnamespace",
    "select indexdef from pg_indexes where schemaname = 'public' and indexname not in (select conname from pg_constraint)",
];

/// Every key and index, but for those of sqlx's own table.
pub async fn keys_and_indexes(database: &Database) -> BTreeSet<String> {
    let statements: &[&str] = if database.is_sqlite { &SQLITE } else { &POSTGRES };
    let mut found = BTreeSet::new();
    for statement in statements {
        found.extend(database.texts(statement).await.iter().map(|text| in_one_form(text)));
    }
    found.retain(|line| !line.starts_with("_sqlx"));
    found
}

/// A definition as neither database writes it, and both can be brought to.
pub fn in_one_form(definition: &str) -> String {
    let text = definition.to_lowercase().replace('"', " ");
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (theirs, ours) in [
        ("public.", ""),
        (" using btree", ""),
        (" if not exists", ""),
        (" concurrently", ""),
        (" = any (array[", " in ("),
        (" <> all (array[", " not in ("),
        ("!=", "<>"),
        (" else null", ""),
        ("]", ")"),
    ] {
        text = text.replace(theirs, ours);
    }
    let words = without_casts(&text).replace(['(', ')'], " ").replace(',', " , ");
    words
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" , ", ",")
}

/// Takes `::text` and its like away.
fn without_casts(text: &str) -> String {
    let mut pieces = text.split("::");
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let types = ["character varying", "double precision"];
        let long = types.iter().find_map(|long| piece.strip_prefix(long));
        kept +=
            long.unwrap_or_else(|| piece.trim_start_matches(|sign: char| sign.is_ascii_alphanumeric() || sign == '_'));
    }
    kept
}
