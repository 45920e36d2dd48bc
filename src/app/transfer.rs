//! Commands about the database as a whole: bringing its tables up to date, backing it up, and the transfer to another one.

use super::settings::Config;
use crate::store::{Db, Limits, OpenError, PAGE, SUPERSEDED, TABLES};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

/// The first line of an export says what it is. The number changes when old exports can no longer be read.
const FORMAT: &str = "nightbell-export-1";

/// Brings the tables up to date, or says what is to be done.
pub async fn migrate(config: &Config, dry_run: bool) -> anyhow::Result<()> {
    let url = &config.database_url;
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
    let store = Db::open(url, Limits::COMMAND).await?;
    println!("the tables are up to date");
    store.close().await;
    Ok(())
}

/// Copies a SQLite database to a new file, also while the service runs, and before an upgrade.
pub async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let store = Db::open_as_it_is(&config.database_url).await?;
    let part = Part::of(file)?;
    match store.copy_to(part.path()?).await {
        Ok(true) => {}
        Ok(false) => {
            bail!("this database is a PostgreSQL one: back it up with `pg_dump`, or by its own continuous archiving")
        }
        Err(error) => bail!("cannot write {}: {}", file.display(), error),
    }
    part.finish()?;
    println!("wrote {}", file.display());
    Ok(())
}

/// Writes every row to a file. The database must be at rest: on SQLite no service may run on it.
pub async fn export(config: &Config, file: &Path) -> anyhow::Result<()> {
    let url = &config.database_url;
    let store = Db::open_read_only(url).await?;
    let guard = Db::lock_out_services(url).map_err(running)?;
    let part = Part::of(file)?;
    let mut out = BufWriter::new(File::create(&part.part)?);
    let counts: BTreeMap<&str, i64> = store.counts().await?.into_iter().collect();
    if counts.values().all(|count| *count == 0) {
        eprintln!("the database is empty: is `database_url` the right one?");
    }
    let head = json!({"format": FORMAT, "from": store.engine(), "counts": counts});
    writeln!(out, "{head}")?;
    for table in TABLES {
        let written = store
            .export_table(table, |row| writeln!(out, "{{\"table\":\"{table}\",\"row\":{row}}}"))
            .await?
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{table}: {written}");
    }
    out.flush()
        .with_context(|| format!("cannot write the end of {}", file.display()))?;
    part.finish()?;
    drop(guard);
    println!(
        "wrote {}; do not start the service on this database again once it is imported elsewhere",
        file.display()
    );
    Ok(())
}

/// Reads what `export` wrote into an empty database: everything or, if anything is wrong or the counts differ, nothing.
pub async fn import(config: &Config, file: &Path) -> anyhow::Result<()> {
    let mut lines =
        BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?).lines();
    let head: Value = serde_json::from_str(&lines.next().context("the file is empty")??)
        .context("the first line is not JSON: is this an export of Nightbell?")?;
    if head["format"] != FORMAT {
        bail!(
            "the file is of format `{}`, but this version reads `{FORMAT}`",
            head["format"]
        );
    }
    let store = Db::open(&config.database_url, Limits::COMMAND).await.map_err(running)?;
    let mut import = store.begin_import().await?;
    for (table, count) in import.counts().await? {
        if count > 0 {
            bail!("the database is not empty (`{table}` has {count} rows): import into a new one");
        }
    }
    let (mut table, mut rows) = (TABLES[0], Vec::new());
    for line in lines {
        let mut line: Value =
            serde_json::from_str(&line?).context("the file breaks off or is damaged: export again")?;
        let name = line["table"].as_str().unwrap_or_default();
        if SUPERSEDED.contains(&name) {
            continue;
        }
        let next = TABLES
            .into_iter()
            .find(|known| *known == name)
            .with_context(|| format!("the file has a table `{name}` that this version does not know"))?;
        if table != next || rows.len() >= PAGE {
            import.insert(table, &rows).await?;
            rows.clear();
        }
        table = next;
        rows.push(line["row"].take());
    }
    import.insert(table, &rows).await?;
    let mut agree = true;
    for (table, count) in import.counts().await? {
        let wanted = head["counts"][table].as_i64().unwrap_or(0);
        agree &= count == wanted;
        let mark = if count == wanted { "" } else { "  <- differs" };
        println!("{table}: {count} of {wanted}{mark}");
    }
    if !agree {
        bail!("the counts differ, so nothing was imported: export again");
    }
    import.commit().await?;
    store.close().await;
    println!("everything is here");
    Ok(())
}

/// Says what to do where a service has the database.
fn running(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Locked(path) => anyhow::anyhow!(
            "`nightbell serve` is running on {}: stop it first, so that nothing is written meanwhile",
            path.display()
        ),
        other => other.into(),
    }
}

/// A file that has its name only once it is whole and on the disk.
struct Part {
    part: PathBuf,
    whole: PathBuf,
}

impl Part {
    fn of(whole: &Path) -> anyhow::Result<Self> {
        if whole.exists() {
            bail!("{} is there already: name a new file", whole.display());
        }
        let mut part = whole.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // Left by one that was killed.
        if part.exists() {
            std::fs::remove_file(&part).with_context(|| format!("cannot replace {}", part.display()))?;
        }
        Ok(Self {
            part,
            whole: whole.to_owned(),
        })
    }

    fn path(&self) -> anyhow::Result<&str> {
        self.part.to_str().context("the path is not UTF-8 text")
    }

    fn finish(self) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.whole.display());
        File::open(&self.part)
            .and_then(|file| file.sync_all())
            .with_context(failed)?;
        std::fs::rename(&self.part, &self.whole).with_context(failed)?;
        let folder = self.whole.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .with_context(failed)
    }
}
