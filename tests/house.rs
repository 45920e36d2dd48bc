//! The house itself: who imports whom, and that both databases have the same rooms.

use crate::support::{database::Database, town::Plan};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What each room may import, beside itself.
const MAY_IMPORT: [(&str, &[&str]); 13] = [
    (
        "main",
        &[
            "app",
            "cli",
            "config",
            "domain",
            "http",
            "intake",
            "mail",
            "carrier",
            "store",
            "supervise",
            "telemetry",
            "worker",
        ],
    ),
    ("cli", &["app", "config", "domain", "carrier", "telemetry"]),
    (
        "app",
        &[
            "config",
            "domain",
            "http",
            "intake",
            "mail",
            "carrier",
            "store",
            "supervise",
            "telemetry",
            "worker",
        ],
    ),
    ("config", &["domain"]),
    ("telemetry", &["config"]),
    ("http", &["domain", "intake", "carrier", "store"]),
    ("intake", &["domain", "store"]),
    ("worker", &["domain", "mail", "carrier", "store", "supervise"]),
    ("mail", &["domain"]),
    ("store", &["domain", "supervise"]),
    ("supervise", &[]),
    ("carrier", &["config", "domain"]),
    ("domain", &[]),
];

#[test]
fn rooms_import_only_what_the_map_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    for file in files(&source) {
        let relative = file.strip_prefix(&source).unwrap().with_extension("");
        let room = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .to_owned();
        let allowed = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("`{room}` is not on the map"))
            .1;
        let text = std::fs::read_to_string(&file).unwrap();
        for imported in imports(&text) {
            assert!(
                imported == room || allowed.contains(&imported.as_str()),
                "{} imports `{imported}`",
                file.display()
            );
        }
        let speaks_sql = text.contains("sqlx::");
        assert!(!speaks_sql || room == "store", "{} knows SQL", file.display());
        assert!(
            !text.contains("apalis::") || room == "worker",
            "{} names apalis",
            file.display()
        );
        seen.insert(room);
    }
    assert_eq!(seen.len(), MAY_IMPORT.len());
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

/// The rooms named by `use crate::…` lines and paths, also within braces.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            for line in list.lines() {
                if depth == 0 {
                    found.extend(room_at(line.trim_start()));
                }
                depth += line.matches('{').count();
                if depth == 0 && line.starts_with('}') {
                    break;
                }
                depth = depth.saturating_sub(line.matches('}').count());
            }
        } else {
            found.extend(room_at(rest));
        }
    }
    found
}

fn room_at(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_ascii_lowercase() || *c == '_')
        .collect();
    MAY_IMPORT.iter().any(|(room, _)| *room == name).then_some(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
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
