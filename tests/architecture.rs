//! The architecture: who imports whom, no circles, each provider's words in its carrier alone, and the same tables, keys
//! and indexes in both databases. Every check is also shown to fail.

mod checks;
mod schema;
mod source;

use crate::support::{database::Database, env::Plan};
use checks::{Exceptions, Map, Provider, circles, foreign_words, named_outside, wrong_imports};
use source::{Files, Sources};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// What each module may import, beside itself: `main -> cli -> app -> {http, worker, source} -> intake -> {store, carrier,
/// mail, notify} -> domain`. Beside the line stand `config`, which each carrier and source reads its own section with, `telemetry`
/// and `supervise`.
const MAP: &Map = &[
    ("main", &["cli"]),
    (
        "cli",
        &["app", "carrier", "config", "domain", "notify", "source", "telemetry"],
    ),
    (
        "app",
        &[
            "carrier",
            "config",
            "domain",
            "http",
            "intake",
            "mail",
            "notify",
            "source",
            "store",
            "supervise",
            "telemetry",
            "worker",
        ],
    ),
    ("config", &["carrier", "domain", "source"]),
    ("telemetry", &["config"]),
    ("http", &["carrier", "config", "domain", "intake", "notify", "store"]),
    (
        "worker",
        &["carrier", "domain", "intake", "mail", "notify", "store", "supervise"],
    ),
    ("source", &["config", "domain", "intake", "store"]),
    ("intake", &["domain", "store"]),
    ("store", &["domain", "supervise"]),
    ("carrier", &["config", "domain"]),
    ("mail", &["domain"]),
    ("notify", &["config", "domain"]),
    ("supervise", &[]),
    ("domain", &[]),
];

const TWILIO: Provider = Provider {
    homes: &["carrier/twilio"],
    words: &["twilio", "messagesid", "accountsid", "smssid", "_sid"],
    codes: 20_000..40_000,
};

/// Where Twilio may be named outside its carrier.
const TWILIO_OUTSIDE: &Exceptions = &[
    (
        "domain/route.rs",
        "the name by which deliveries and attempts are stored",
    ),
    ("carrier/mod.rs", "the enum of carriers"),
    ("http/twilio", "the routes that Twilio calls"),
    ("http/webhooks.rs", "the same, as long as it serves Twilio alone"),
    ("http/public.rs", "lists those routes"),
    ("http/mod.rs", "declares those"),
    ("app/parts.rs", "hands their settings to the webhooks"),
    ("app/demo.rs", "a code whose meaning the demo shows"),
    (
        "source/osticket/old_sms.rs",
        "the name of a table of the code that sent SMS before Nightbell",
    ),
    ("cli", "`nightbell receipt verify` checks a signature of Twilio's"),
    (
        "source/osticket/old_sms.rs",
        "a table of the code that Nightbell replaces",
    ),
];

fn program() -> Sources {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Files::new();
    read_folder(&source, &source, &mut files);
    Sources::read(&files)
}

fn read_folder(source: &Path, folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(source, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(source).unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn modules_import_only_what_the_map_allows() {
    assert_none(&wrong_imports(&program(), MAP));
}

#[test]
fn only_the_store_and_a_helpdesk_without_another_way_know_sql_and_only_the_worker_apalis() {
    let program = program();
    // Another program's database is no store of ours: a helpdesk without any other way out is asked by SQL where it is read.
    assert_none(&named_outside(&program, "sqlx", &["store/", "source/osticket/"]));
    assert_none(&named_outside(&program, "apalis", &["worker/"]));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_none(&circles(&program()));
}

/// Births and resends included: who else wrote one of these tables would forget its timeline, its slot or its alarm.
#[test]
fn only_the_ledger_writes_deliveries_attempts_and_timelines() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Files::new();
    read_folder(&source, &source, &mut files);
    assert_none(&checks::written_outside(
        &files,
        "store/ledger/",
        &["delivery", "attempt", "timeline"],
    ));
}

#[test]
fn only_its_carrier_speaks_twilios_words() {
    assert_none(&foreign_words(&program(), &TWILIO, TWILIO_OUTSIDE));
}

/// A change that locks several tables could stand across a transaction of the version before: each waits for the other.
#[test]
fn a_migration_changes_one_table_that_is_there_already() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // The first four came before this rule, and run on no big database any more.
        if name.as_str() < "0005" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let changed: BTreeSet<&str> = words
            .windows(3)
            .filter(|words| matches!(words, ["alter" | "drop", "table", _]))
            .map(|words| words[2])
            .chain(
                words
                    .windows(2)
                    .filter(|words| words[0] == "update")
                    .map(|words| words[1]),
            )
            .collect();
        assert!(changed.len() <= 1, "{name} changes {changed:?}");
        let builds_index = text.contains("create index") || text.contains("create unique index");
        let is_new = text.contains("create table");
        assert!(
            !builds_index || is_new || text.starts_with("-- no-transaction") && text.contains(" concurrently "),
            "{name} builds an index in the way of everybody"
        );
    }
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let Some(postgres) = Database::postgres("both_databases_have_the_same_tables_and_columns").await else {
        return;
    };
    let sqlite = Plan::on(Database::sqlite()).build().await;
    let postgres = Plan::on(postgres).build().await;
    let sqlite_sql = "select m.name || '.' || p.name || ' ' || replace(replace(lower(p.type), 'integer', 'bigint'), 'real', 'double precision')
        || case when p.\"notnull\" = 1 then ' not null' else '' end
        from sqlite_master m join pragma_table_info(m.name) p where m.type = 'table' and m.name not like 'sqlite_%' and m.name not like '_sqlx%'";
    let postgres_sql = "select table_name || '.' || column_name || ' ' || data_type || case when is_nullable = 'NO' then ' not null' else '' end
        from information_schema.columns where table_schema = 'public' and table_name not like '\\_sqlx%'";

    let (left, right) = (
        sqlite.database.texts(sqlite_sql).await,
        postgres.database.texts(postgres_sql).await,
    );

    let by_column = |lines: Vec<String>| -> BTreeMap<String, String> {
        lines
            .into_iter()
            .map(|line| {
                line.split_once(' ')
                    .map(|(column, kind)| (column.to_owned(), kind.to_owned()))
                    .unwrap()
            })
            .collect()
    };
    assert_eq!(by_column(left), by_column(right));
}

#[tokio::test]
async fn both_databases_have_the_same_keys_and_indexes() {
    let Some(postgres) = Database::postgres("both_databases_have_the_same_keys_and_indexes").await else {
        return;
    };
    let sqlite = Plan::on(Database::sqlite()).build().await;
    let postgres = Plan::on(postgres).build().await;

    let left = schema::keys_and_indexes(&sqlite.database).await;
    let right = schema::keys_and_indexes(&postgres.database).await;

    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect::<Vec<_>>();
    let (in_sqlite, in_postgres) = (only(&left, &right), only(&right, &left));
    assert!(
        in_sqlite.is_empty() && in_postgres.is_empty(),
        "only in SQLite: {in_sqlite:#?}, only in PostgreSQL: {in_postgres:#?}"
    );
    // What would be found missing if a statement above returned nothing.
    for known in [
        "attempt primary key delivery_id,number",
        "alert unique source,ticket_id",
        "delivery foreign key alert_id references alert id",
        "create unique index attempt_message on attempt provider,message_id where message_id is not null",
    ] {
        assert!(left.contains(known), "{known} is not in {left:#?}");
    }
}

/// Made-up files, on which each check can be seen to fail.
mod fixtures {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Sources {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Sources::read(&files.collect())
    }

    /// The imports outside of tests, as `from -> to`.
    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let imports = sources(files).imports();
        let mut found: Vec<String> = imports
            .iter()
            .filter(|import| !import.is_test)
            .map(|import| format!("{} -> {}", import.from, import.to))
            .collect();
        found.dedup();
        found
    }

    #[test]
    fn a_use_tree_leads_to_every_file_that_it_names() {
        let files = [
            ("main.rs", "mod a; mod b; mod c;"),
            ("a/mod.rs", "mod x; mod y;"),
            (
                "a/x.rs",
                "use super::{y::{self, Why}, z as zed}; use crate::{b::{Bee as Honey}, c}; use std::fmt;",
            ),
            ("a/y.rs", "pub struct Why;"),
            ("b.rs", "pub struct Bee;"),
            ("c.rs", ""),
        ];
        assert_eq!(
            imports(&files),
            [
                "a/x.rs -> a/mod.rs",
                "a/x.rs -> a/y.rs",
                "a/x.rs -> b.rs",
                "a/x.rs -> c.rs"
            ]
        );
    }

    #[test]
    fn a_name_that_is_passed_on_leads_to_the_file_that_defines_it() {
        let files = [
            (
                "a/mod.rs",
                "mod x; mod y; pub use x::Thing as Named; pub(crate) use y::call; pub struct Own;",
            ),
            ("a/x.rs", "pub struct Thing;"),
            (
                "a/y.rs",
                "macro_rules! call { () => { $crate::a::Own } } pub(super) use call;",
            ),
            ("b.rs", "use crate::a::{Named, call}; fn f() { crate::a::Own::new() }"),
        ];
        assert_eq!(
            imports(&files),
            [
                "a/y.rs -> a/mod.rs",
                "b.rs -> a/mod.rs",
                "b.rs -> a/x.rs",
                "b.rs -> a/y.rs"
            ]
        );
    }

    #[test]
    fn paths_in_the_code_count_and_comments_texts_and_tests_do_not() {
        let files = [
            (
                "a.rs",
                "//! See `crate::d::D`.
                 use crate::b;
                 fn f() -> Vec<b::Bee> { let text = \"crate::d::D\"; other!(crate::c::call(1)) }
                 #[cfg(test)] mod tests { use super::*; use crate::d::D; }
                 mod inner { fn g() { super::super::e::call() } }",
            ),
            ("b.rs", "pub struct Bee;"),
            ("c.rs", ""),
            ("d.rs", ""),
            ("e.rs", ""),
            ("main.rs", ""),
        ];
        assert_eq!(imports(&files), ["a.rs -> b.rs", "a.rs -> c.rs", "a.rs -> e.rs"]);
    }

    #[test]
    fn a_circle_is_found() {
        let files = [
            ("a/mod.rs", "mod x; mod y; mod z; pub use z::Zed;"),
            ("a/x.rs", "use super::y::Why; pub struct Ex;"),
            ("a/y.rs", "pub struct Why; fn f() { super::Zed::new() }"),
            ("a/z.rs", "use super::x; pub struct Zed(x::Ex);"),
        ];

        let found = circles(&sources(&files));

        let [circle] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(
            circle.starts_with("a circle of 3 files, the shortest: a/x.rs -> a/y.rs -> a/z.rs -> a/x.rs\n"),
            "{circle}"
        );
        assert!(circle.contains("a/y.rs -> a/z.rs: Zed"), "{circle}");
    }

    #[test]
    fn a_module_that_only_declares_and_passes_on_makes_no_circle() {
        let child = ("a/x.rs", "use super::Own; pub struct Ex(Own);");
        let files = [("a/mod.rs", "mod x; pub use x::Ex; pub struct Own;"), child];
        assert_none(&circles(&sources(&files)));

        let files = [
            ("a/mod.rs", "mod x; pub use x::Ex; pub struct Own; fn f(ex: Ex) {}"),
            child,
        ];
        assert_eq!(circles(&sources(&files)).len(), 1, "it uses what it passes on");
    }

    #[test]
    fn a_wrong_import_is_found() {
        let map: &Map = &[("http", &["store"]), ("store", &[]), ("domain", &[])];
        let files = [
            ("http/mod.rs", "use crate::store::Db;"),
            (
                "store/mod.rs",
                "#[cfg(test)] mod tests { use crate::{domain::{day, text}, http}; } pub struct Db;",
            ),
            ("domain/mod.rs", ""),
        ];
        let wrong = wrong_imports(&sources(&files), map);
        assert_eq!(
            wrong,
            [
                "store/mod.rs imports domain::day",
                "store/mod.rs imports domain::text",
                "store/mod.rs imports http"
            ]
        );

        let files = [("extra.rs", "use crate::store::Db;"), ("store.rs", "")];
        assert_eq!(wrong_imports(&sources(&files), map), ["`extra` is not on the map"]);
    }

    #[test]
    fn a_library_outside_its_folder_is_found() {
        let files = [
            ("store/mod.rs", "use sqlx::Connection;"),
            ("http/mod.rs", "// sqlx is not for us\nfn f() { ::sqlx::query(\"\") }"),
            ("worker/send.rs", "use apalis::prelude::*;"),
            ("app.rs", "use apalis_core::worker;"),
        ];
        let sources = sources(&files);
        assert_eq!(
            named_outside(&sources, "sqlx", &["store/"]),
            ["http/mod.rs:2 names `sqlx`"]
        );
        assert_eq!(
            named_outside(&sources, "apalis", &["worker/"]),
            ["app.rs:1 names `apalis_core`"]
        );
    }

    #[test]
    fn a_write_outside_its_folder_is_found() {
        let files = Files::from([
            (
                "store/ledger/a.rs".to_owned(),
                "sql!(\"update delivery set x = 1\")".to_owned(),
            ),
            (
                "store/b.rs".to_owned(),
                "sql!(\"select 1 from delivery\"); sql!(\"delete from attempt\")".to_owned(),
            ),
        ]);

        let found = checks::written_outside(&files, "store/ledger/", &["delivery", "attempt"]);

        assert_eq!(found, ["store/b.rs writes attempt"]);
    }

    #[test]
    fn a_providers_word_outside_its_carrier_is_found() {
        let exceptions: &Exceptions = &[("http/twilio.rs", "the routes"), ("cli.rs", "the command")];
        let files = [
            ("carrier/twilio/mod.rs", "const HEADER: &str = \"X-Twilio-Signature\";"),
            ("http/twilio.rs", "fn twilio_status() {}"),
            ("cli.rs", "/// Twilio's.\nfn verify() {}"),
            (
                "store/receipts.rs",
                "// Twilio sends this.
                 fn f(message_sid: &str) { read(\"MessageSid\", 21610, 30_000) }
                 #[cfg(test)] mod tests { const ONE: &str = \"twilio\"; }",
            ),
        ];
        assert_eq!(
            foreign_words(&sources(&files), &TWILIO, exceptions),
            [
                "store/receipts.rs:2 says message_sid",
                "store/receipts.rs:2 says \"MessageSid\"",
                "store/receipts.rs:2 says 21610",
                "nothing in cli.rs needs its exception any more: take it out (the command)"
            ]
        );
    }

    #[test]
    fn both_databases_definitions_come_to_one_form_and_a_difference_stays() {
        let same = [
            (
                "create index delivery_line on delivery ((case when state in ('pending', 'deferred') then received_at end), id)
                    where (case when state in ('pending', 'deferred') then received_at end) is not null",
                "CREATE INDEX delivery_line ON public.delivery USING btree ((CASE WHEN (state = ANY (ARRAY['pending'::text,
                    'deferred'::text])) THEN received_at ELSE NULL::bigint END), id) WHERE (CASE WHEN (state = ANY
                    (ARRAY['pending'::text, 'deferred'::text])) THEN received_at ELSE NULL::bigint END IS NOT NULL)",
            ),
            ("alert unique source,ticket_id", "alert UNIQUE (source, ticket_id)"),
            (
                "create unique index m on attempt (provider, message_id) where message_id is not null",
                "CREATE UNIQUE INDEX m ON public.attempt USING btree (provider, message_id) WHERE (message_id IS NOT NULL)",
            ),
        ];
        for (sqlite, postgres) in same {
            assert_eq!(schema::in_one_form(sqlite), schema::in_one_form(postgres));
        }
        let index = "create index i on t (a, b) where c in ('x', 'y')";
        for other in [
            "create unique index i on t (a, b) where c in ('x', 'y')",
            "create index j on t (a, b) where c in ('x', 'y')",
            "create index i on t (b, a) where c in ('x', 'y')",
            "create index i on t (a, b desc) where c in ('x', 'y')",
            "create index i on t (a, b) where c in ('x')",
            "create index i on t (a, b)",
        ] {
            assert_ne!(schema::in_one_form(index), schema::in_one_form(other));
        }
    }
}
