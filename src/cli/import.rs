//! `import`: an export of Nightbell into an empty database, or what the SMS code before Nightbell knew.

use super::common::{FAILED, print, print_json, with_admin, with_good_configuration};
use crate::{
    app::{self, Access, Loaded, Part, TakeOver, TakenOver},
    domain::{event::DEFAULT_SOURCE, phone::Region, report::plural},
    source::osticket::{self, Connection, read_old_sms},
};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use secrecy::SecretString;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Import {
    /// What `export` wrote; the database must be empty, of either kind
    #[arg(required = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    from: Option<From>,
}

#[derive(Subcommand)]
enum From {
    /// Take over what PHP code for SMS left in osTicket's database: tickets texted already, and opt-outs
    OsticketSms(OsticketSms),
}

#[derive(Args)]
struct OsticketSms {
    /// The helpdesk's name in `sources`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SOURCE)]
    source: String,
    /// osTicket's database, as `mysql://USER:PASSWORD@HOST/DATABASE`; others on this machine can read it here
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What the names of its tables begin with
    #[arg(long, value_name = "TEXT")]
    table_prefix: Option<String>,
    /// The country of numbers without a country code, like `DE` [default: that of the source]
    #[arg(long, value_name = "CODE", value_parser = read_region)]
    region: Option<Region>,
    /// Only one of the two
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Only>,
    /// Only count; nothing is changed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    /// The tickets
    Alerts,
    /// The numbers
    OptOuts,
}

fn read_region(text: &str) -> Result<Region, String> {
    Region::parse(text).ok_or_else(|| "write a country code like `DE`".to_owned())
}

pub fn run(loaded: Loaded, import: Import) -> anyhow::Result<ExitCode> {
    if let Some(From::OsticketSms(request)) = import.from {
        let access = if request.dry_run { Access::Read } else { Access::Change };
        return with_admin(loaded, access, async |admin, loaded| {
            let taken = request.run(admin, loaded).await?;
            request.show(&taken)
        });
    }
    let file = import.file.context("no file is named")?;
    with_good_configuration(loaded, async move |loaded| app::import(&loaded.config, &file).await)
}

impl OsticketSms {
    async fn run(&self, admin: &app::Admin, loaded: &Loaded) -> anyhow::Result<TakenOver> {
        let name = &self.source;
        let source = loaded.config.sources.get(name);
        let source = source.ok_or_else(|| wrong(format!("no source `{name}` is configured: see `--source`")))?;
        let parts = match self.only {
            None => &[osticket::Part::Alerts, osticket::Part::OptOuts][..],
            Some(Only::Alerts) => &[osticket::Part::Alerts],
            Some(Only::OptOuts) => &[osticket::Part::OptOuts],
        };
        let connection = self.connection(loaded)?;
        let old = read_old_sms(&connection, parts).await?;
        let take_over = TakeOver {
            source: name,
            region: self.region.unwrap_or(source.region),
            is_dry_run: self.dry_run,
        };
        take_over.run(admin, old).await
    }

    /// To the database that is named here, else to the one that the source is polled from.
    fn connection(&self, loaded: &Loaded) -> anyhow::Result<Connection> {
        let mut polled = loaded.config.polled.iter();
        let settings = polled.find(|settings| settings.source == self.source);
        let configured = settings.and_then(|settings| settings.osticket_database());
        let given = self.url.as_deref().map(SecretString::from);
        let url = given.as_ref().or(configured.map(|(url, _)| url));
        let url = url.ok_or_else(|| {
            let name = &self.source;
            wrong(format!("osTicket's database is not named: set `sources.{name}.kind = \"osticket\"` and `sources.{name}.url`, or see `--url`"))
        })?;
        let prefix = self.table_prefix.as_deref().or(configured.map(|(_, prefix)| prefix));
        Connection::new(url, prefix.unwrap_or("ost_")).map_err(|error| {
            let option = error.name.replace('_', "-");
            wrong(format!("`--{option}` {}", error.problem))
        })
    }

    fn show(&self, taken: &TakenOver) -> anyhow::Result<ExitCode> {
        let parts = [
            ("opt-outs", "opt-out", &taken.opt_outs),
            ("alerts", "ticket", &taken.alerts),
        ];
        if self.json {
            print_json(taken)?;
        } else {
            for (title, thing, part) in parts {
                if let Some(part) = part {
                    print(in_words(title, thing, part, taken.dry_run))?;
                }
            }
        }
        let is_whole = parts
            .iter()
            .all(|(.., part)| part.as_ref().is_none_or(|part| part.refused.is_empty()));
        Ok(if is_whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FAILED)
        })
    }
}

/// A part, with the columns that were found and the rows that were left out.
fn in_words(title: &str, thing: &str, part: &Part, is_dry_run: bool) -> String {
    let columns: Vec<String> = part
        .columns
        .iter()
        .map(|(what, column)| format!("{what} from `{column}`"))
        .collect();
    let mut text = format!("{title}: `{}`, {}", part.table, columns.join(", "));
    if !part.unread.is_empty() {
        text += &format!("; not read: {}", part.unread.join(", "));
    }
    let (done, refused) = (if is_dry_run { "would be added" } else { "added" }, part.refused.len());
    text += &format!(
        "\n  {} {thing}{} {done}, {} known before, {refused} line{} left out\n",
        part.added,
        plural(usize::try_from(part.added).unwrap_or(usize::MAX)),
        part.known,
        plural(refused),
    );
    for refused in &part.refused {
        text += &format!("  left out: `{}`: {}\n", refused.text, refused.detail);
    }
    text
}

fn wrong(text: String) -> anyhow::Error {
    app::AdminError::WrongCall(text).into()
}
