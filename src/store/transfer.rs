//! Export and import: the tables as they stand, out of one database and into another, and a back-up while the service runs.
//! Rows travel as JSON, one on each line, which both databases read and write themselves. Absent: files (see
//! `app::transfer`).

use super::{
    Db,
    engine::{Kind, read},
    error::StoreError,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Every table, in the order in which rows may be inserted: what others refer to comes first. Not `route_pace`, which is
/// the old server's time of day, nor `admin_session`: who is logged in there logs in here anew.
pub const TABLES: [&str; 28] = [
    "alert",
    "alert_event",
    "delivery",
    "attempt",
    "timeline",
    "message_request",
    "receipt",
    "opt_out",
    "staff",
    "staff_key",
    "source_poll",
    "source_ticket",
    "unknown_urgency",
    "ticket_note",
    "inbound_message",
    "ack_code",
    "lifecycle_place",
    "lifecycle_event",
    "webhook_endpoint",
    "webhook_hold",
    "webhook_try",
    "daily_count",
    "setting",
    "route_hold",
    "route_contact",
    "alarm",
    "job_run",
    "mail",
];

/// Tables of earlier versions whose rows say nothing any more: what an account refused, or was out of reach, shows again.
pub const SUPERSEDED: [&str; 2] = ["provider_hold", "provider_account"];

/// Rows that are read or written at once.
pub const PAGE: usize = 500;

impl Db {
    /// How many rows each table has.
    pub async fn counts(&self) -> Result<Vec<(&'static str, i64)>, StoreError> {
        count_rows(&mut self.reads()).await
    }

    /// The names of a table's columns, and of those that make its key.
    async fn columns(&self, table: &str) -> Result<(Vec<String>, Vec<String>), StoreError> {
        const COLUMNS: Sql = Sql {
            sqlite: "select name, cast(pk as integer) from pragma_table_info($1) order by cid",
            postgres: "select c.column_name::text, coalesce(k.ordinal_position, 0)::bigint
                from information_schema.columns c
                left join information_schema.table_constraints t on t.table_schema = c.table_schema
                    and t.table_name = c.table_name and t.constraint_type = 'PRIMARY KEY'
                left join information_schema.key_column_usage k on k.constraint_name = t.constraint_name
                    and k.table_schema = c.table_schema and k.column_name = c.column_name
                where c.table_schema = current_schema() and c.table_name = $1 order by c.ordinal_position",
            sqlite_queued: None,
        };
        let rows: Vec<(String, i64)> = self.reads().all(COLUMNS, args![table]).await?;
        let mut key: Vec<(i64, String)> = rows
            .iter()
            .filter(|(_, place)| *place > 0)
            .map(|(name, place)| (*place, name.clone()))
            .collect();
        key.sort();
        Ok((
            rows.into_iter().map(|(name, _)| name).collect(),
            key.into_iter().map(|(_, name)| name).collect(),
        ))
    }

    /// Hands every row of a table to `take`, as JSON, in the order of its key. The caller sees to it that nobody writes.
    pub async fn export_table(
        &self,
        table: &str,
        mut take: impl FnMut(String) -> std::io::Result<()>,
    ) -> Result<Result<u64, std::io::Error>, StoreError> {
        use futures::TryStreamExt;
        let (columns, key) = self.columns(table).await?;
        let pairs: Vec<String> = columns
            .iter()
            .map(|column| format!("'{column}', \"{column}\""))
            .collect();
        let object = match &self.engine.kind {
            Kind::Sqlite { .. } => format!("json_object({})", pairs.join(", ")),
            Kind::Postgres(_) => format!("json_build_object({})::text", pairs.join(", ")),
        };
        // A resend comes after what it repeats, whatever the clocks said when their ids were made.
        let order = if table == "delivery" {
            "round, id".to_owned()
        } else {
            key.join(", ")
        };
        let sql = sqlx::AssertSqlSafe(format!("select {object} from {table} order by {order}"));
        let (mut count, mut failed) = (0, None);
        let read = read!(self, |pool| sqlx::query_scalar::<_, String>(sql)
            .fetch(pool)
            .try_for_each(|row| {
                count += 1;
                // The reading ends with the writing; which error it ends with is decided below.
                let written = take(row).map_err(|error| {
                    failed = Some(error);
                    sqlx::Error::RowNotFound
                });
                std::future::ready(written)
            })
            .await);
        match failed {
            Some(error) => Ok(Err(error)),
            None => Ok(Ok(read.map(|()| count)?)),
        }
    }

    /// Begins an import: everything or nothing, and nobody sees it before its end.
    pub async fn begin_import(&self) -> Result<Import, StoreError> {
        let mut columns = BTreeMap::new();
        for table in TABLES {
            columns.insert(table, self.columns(table).await?.0);
        }
        Ok(Import {
            tx: self.begin().await?,
            columns,
        })
    }

    /// Writes a copy of the database to a file that does not exist yet, while others go on writing. SQLite only.
    pub async fn copy_to(&self, path: &str) -> Result<bool, StoreError> {
        let Kind::Sqlite { reader, .. } = &self.engine.kind else {
            return Ok(false);
        };
        sqlx::query("vacuum into $1").bind(path).execute(reader).await?;
        Ok(true)
    }
}

async fn count_rows(query: &mut impl Query) -> Result<Vec<(&'static str, i64)>, StoreError> {
    let mut counts = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let sql = Sql::leaked(format!("select count(*) from {table}"));
        counts.push((table, query.scalar(sql, args![]).await?));
    }
    Ok(counts)
}

/// An import under way. Dropped without a commit, it leaves nothing behind.
pub struct Import {
    tx: Tx,
    columns: BTreeMap<&'static str, Vec<String>>,
}

impl Import {
    /// Inserts rows as `export_table` gave them. Columns that a row does not have get their default or null; one that this
    /// version does not know is an error.
    pub async fn insert(&mut self, table: &'static str, rows: &[Value]) -> Result<(), StoreError> {
        let known = self.columns.get(table).map(Vec::as_slice).unwrap_or_default();
        let names_in = |row: &Value| {
            row.as_object()
                .map(|row| row.keys().cloned().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        if let Some(unknown) = rows.iter().flat_map(names_in).find(|name| !known.contains(name)) {
            return Err(StoreError::Unreadable {
                what: "the column".into(),
                value: format!("{table}.{unknown}"),
            });
        }
        let columns: Vec<&String> = known
            .iter()
            .filter(|column| rows.iter().all(|row| row.get(column.as_str()).is_some()))
            .collect();
        let names: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let names = names.join(", ");
        let json = Value::Array(rows.to_vec()).to_string();
        let sql = match self.tx.has_neighbours() {
            false => {
                let values: Vec<String> = columns
                    .iter()
                    .map(|column| format!("json_extract(value, '$.{column}')"))
                    .collect();
                format!(
                    "insert into {table} ({names}) select {} from json_each($1)",
                    values.join(", ")
                )
            }
            true => format!(
                "insert into {table} ({names}) select {names} from json_populate_recordset(null::{table}, $1::json)"
            ),
        };
        let tx = &mut self.tx;
        tx.execute(Sql::leaked(sql), args![&json]).await.map(drop)
    }

    /// How many rows each table has, those of this import among them.
    pub async fn counts(&mut self) -> Result<Vec<(&'static str, i64)>, StoreError> {
        count_rows(&mut self.tx).await
    }

    /// Makes it true.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        // What was inserted with its number has not moved PostgreSQL's counter on.
        const GO_ON: Sql =
            sql!("select setval(pg_get_serial_sequence('lifecycle_event', 'seq'), max(seq)) from lifecycle_event");
        if self.tx.has_neighbours() {
            let _: Vec<(Option<i64>,)> = self.tx.all(GO_ON, args![]).await?;
        }
        self.tx.commit().await
    }
}
