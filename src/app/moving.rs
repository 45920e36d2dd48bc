//! Commands about the database as a whole: bringing its tables up to date, backing it up, and moving to another one.

use crate::{
    config::Config,
    store::{Db, OpenError, PAGE, TABLES},
};
use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

/// The first line of an export says what it is. The number changes when old exports can no longer be read.
const FORMAT: &str = "nightbell-export-1";

/// Brings the tables up to date, or says what is to be done.
pub async fn migrate(config: &Config, dry_run: bool) -> anyhow::Result<()> {
    let url = config.database_url.expose_secret();
    if dry_run {
        let pending = Db::pending_migrations(url).await?;
        for name in &pending {
            println!("to do: {name}");
        }
        if pending.is_empty() {
            println!("the tables are up to date");
        }
        return Ok(());
    }
    let store = Db::open(url).await?;
    println!("the tables are up to date");
    store.close().await;
    Ok(())
}

/// Copies a SQLite database to a new file, also while the service runs.
pub async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let store = Db::open_read_only(config.database_url.expose_secret()).await?;
    if file.exists() {
        bail!("{} is there already: name a new file", file.display());
    }
    let path = file.to_str().context("the path is no UTF-8 text")?;
    match store.copy_to(path).await {
        Ok(true) => {}
        Ok(false) => {
            bail!("this database is a PostgreSQL one: back it up with `pg_dump`, or by its own continuous archiving")
        }
        Err(error) => bail!("cannot write {}: {}", file.display(), error.explain()),
    }
    // VACUUM INTO leaves the copy to the operating system; a back-up is one only when it is on the disk.
    File::open(file)
        .and_then(|copy| copy.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

/// Writes every row to a file. The database must be at rest: on SQLite no service may run on it.
pub async fn export(config: &Config, file: &Path) -> anyhow::Result<()> {
    let store = open_at_rest(config).await?;
    let out = File::create_new(file).with_context(|| format!("cannot make {}: name a new file", file.display()))?;
    let mut out = BufWriter::new(out);
    let counts = store.counts().await.map_err(|error| anyhow::anyhow!(error.explain()))?;
    let counts_json: serde_json::Map<String, Value> = counts
        .iter()
        .map(|(table, count)| ((*table).to_owned(), json!(count)))
        .collect();
    writeln!(
        out,
        "{}",
        json!({"format": FORMAT, "from": store.engine(), "counts": counts_json})
    )?;
    for table in TABLES {
        let written = store
            .export_table(table, |row| writeln!(out, "{{\"table\":\"{table}\",\"row\":{row}}}"))
            .await
            .map_err(|error| anyhow::anyhow!(error.explain()))?
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{table}: {written}");
    }
    let out = out
        .into_inner()
        .map_err(|error| error.into_error())
        .context("cannot write the end of the file")?;
    out.sync_all()?;
    store.close().await;
    println!(
        "wrote {}; do not start the service on this database again once it is imported elsewhere",
        file.display()
    );
    Ok(())
}

/// Reads what `export` wrote into an empty database, and compares the counts at the end.
pub async fn import(config: &Config, file: &Path) -> anyhow::Result<()> {
    let store = open_at_rest(config).await?;
    let failed = |error: crate::store::StoreError| anyhow::anyhow!(error.explain());
    for (table, count) in store.counts().await.map_err(failed)? {
        if count > 0 {
            bail!("the database is not empty (`{table}` has {count} rows): import into a new one");
        }
    }
    let mut lines =
        BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?).lines();
    let head: Value = serde_json::from_str(&lines.next().context("the file is empty")??)
        .context("the first line is no JSON: is this an export of Nightbell?")?;
    if head["format"] != FORMAT {
        bail!(
            "the file is of format `{}`, but this version reads `{FORMAT}`",
            head["format"]
        );
    }
    let mut rows: Vec<Value> = Vec::new();
    let mut table: Option<&'static str> = None;
    for line in lines {
        let mut line: Value =
            serde_json::from_str(&line?).context("the file breaks off or is damaged: export again")?;
        let name = line["table"].as_str().unwrap_or_default();
        let next = TABLES
            .into_iter()
            .find(|known| *known == name)
            .with_context(|| format!("the file has a table `{name}` that this version does not know"))?;
        if table.is_some_and(|table| table != next) || rows.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX) {
            store.import_rows(table.unwrap_or(next), &rows).await.map_err(failed)?;
            rows.clear();
        }
        table = Some(next);
        rows.push(line["row"].take());
    }
    if let Some(table) = table {
        store.import_rows(table, &rows).await.map_err(failed)?;
    }
    let mut agree = true;
    for (table, count) in store.counts().await.map_err(failed)? {
        let wanted = head["counts"][table].as_i64().unwrap_or(0);
        agree &= count == wanted;
        println!(
            "{table}: {count} of {wanted}{}",
            if count == wanted { "" } else { "  <- differs" }
        );
    }
    store.close().await;
    if !agree {
        bail!("the counts differ: throw this database away, export again and import into a new one");
    }
    println!("everything is here");
    Ok(())
}

/// Opens the database so that nothing else writes to it: SQLite's lock sees to that. On PostgreSQL it is the admin's word.
async fn open_at_rest(config: &Config) -> anyhow::Result<Db> {
    match Db::open(config.database_url.expose_secret()).await {
        Err(OpenError::Locked(path)) => {
            bail!(
                "`nightbell serve` is running on {}: stop it first, so that nothing is written meanwhile",
                path.display()
            )
        }
        opened => Ok(opened?),
    }
}
