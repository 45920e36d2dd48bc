//! `staff`: people whom helpdesks name without telling their phones.

use super::{
    common::{FAILED, Shown, print, print_json, read_input, read_phone, with_admin, write_output},
    shapes::StaffMember,
    table::{Listed, or_dash, table},
};
use crate::{
    app::{Access, Admin, Content, Loaded},
    domain::{event::DEFAULT_SOURCE, report::plural, text::clean_line},
};
use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Subcommand)]
pub enum Command {
    /// Show the people who are kept with their phones
    List {
        /// Only those of one source
        #[arg(long, value_name = "SOURCE")]
        source: Option<String>,
        /// A part of an id, login, e-mail address, name or managed group, or a whole number
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        shown: Shown,
    },
    /// Add a person, or replace the entry that is there
    Add(Box<Add>),
    /// Forget a person and their phone
    Remove {
        /// The person's id in the helpdesk
        #[arg(value_name = "ID", value_parser = read_staff_id)]
        staff_id: String,
        /// Whose staff it is
        #[arg(long, value_name = "SOURCE", default_value = DEFAULT_SOURCE)]
        source: String,
    },
    /// Add the people of a CSV file, or replace their entries; every line that is left out is named
    Import {
        /// The first line names the columns: `staff_id`, `phone`, and any of `name`, `email`, `login`, `role`, `region`,
        /// `manages`, `source`; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The source of lines that name none
        #[arg(long, value_name = "SOURCE", default_value = DEFAULT_SOURCE)]
        source: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write all of them as a CSV file, numbers in full
    Export {
        /// A new file [default: standard output]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// What is to be known of a person.
#[derive(Args)]
pub struct Add {
    /// The person's id in the helpdesk
    #[arg(value_name = "ID", value_parser = read_staff_id)]
    staff_id: String,
    /// The number, with `+` and country code
    #[arg(value_name = "PHONE", value_parser = read_phone)]
    phone: String,
    /// Whose staff it is
    #[arg(long, value_name = "SOURCE", default_value = DEFAULT_SOURCE)]
    source: String,
    /// As the helpdesk writes it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// What the person logs in to the helpdesk with
    #[arg(long, value_name = "TEXT")]
    login: Option<String>,
    /// For tickets that tell none, like `assignee`
    #[arg(long, value_name = "TEXT")]
    role: Option<String>,
    /// Whose rules a number without country code follows, like `DE`
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Groups of whose critical tickets this person is told too, with commas between; `*` is every group
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    manages: Vec<String>,
    #[command(flatten)]
    shown: Shown,
}

/// An id becomes a part of an address, in which two texts mean something else.
fn read_staff_id(text: &str) -> Result<String, String> {
    match text.trim() {
        "" | "." | ".." => Err("write the id that the helpdesk gives the person".to_owned()),
        id => Ok(id.to_owned()),
    }
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List {
            source,
            search,
            limit,
            shown,
        } => with_admin(loaded, Access::Read, async |admin, _| {
            let query = shown.query_with(&[("source", &source), ("q", &search)]);
            list(admin, &query, usize::try_from(limit)?, &shown).await
        }),
        Command::Add(new) => with_admin(loaded, Access::Change, async |admin, _| add(admin, &new).await),
        Command::Remove { staff_id, source } => with_admin(loaded, Access::Change, async |admin, _| {
            remove(admin, &source, &staff_id).await
        }),
        Command::Import { file, source, json } => with_admin(loaded, Access::Change, async |admin, _| {
            import(admin, &file, &source, json).await
        }),
        Command::Export { file } => with_admin(loaded, Access::Read, async |admin, _| {
            let answer = admin.get(&["v1", "staff.csv"], &[]).await?.good()?;
            write_output(file.as_deref(), &answer.body)
        }),
    }
}

async fn list(admin: &Admin, query: &[(&str, &str)], limit: usize, shown: &Shown) -> anyhow::Result<ExitCode> {
    let listed = Listed::read(admin, &["v1", "staff"], query, limit).await?;
    if shown.json {
        print_json(&listed.document())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for item in &listed.items {
        let person = StaffMember::deserialize(item)?;
        let groups = Some(person.manages.join(", ")).filter(|groups| !groups.is_empty());
        rows.push(vec![
            person.source,
            person.staff_id,
            or_dash(person.name),
            person.phone,
            or_dash(person.email),
            or_dash(person.login),
            or_dash(groups),
        ]);
    }
    if !rows.is_empty() {
        let titles = ["source", "id", "name", "phone", "e-mail", "login", "manages"];
        print(table(&titles, rows))?;
    }
    print(listed.remark("Nobody is found. `nightbell staff add ID PHONE` adds a person."))?;
    Ok(ExitCode::SUCCESS)
}

async fn add(admin: &Admin, new: &Add) -> anyhow::Result<ExitCode> {
    let Add {
        staff_id,
        phone,
        source,
        name,
        email,
        login,
        role,
        region,
        manages,
        shown,
    } = new;
    let body = json!({
        "phone": phone, "name": name, "email": email, "login": login, "role": role, "region": region, "manages": manages,
    });
    let path = ["v1", "staff", source, staff_id];
    let content = Content::Json(&body);
    let answer = admin.ask(Method::PUT, &path, shown.query(), content).await?.good()?;
    let kept: Value = answer.read()?;
    if shown.json {
        print_json(&kept)?;
        return Ok(ExitCode::SUCCESS);
    }
    let person = StaffMember::deserialize(&kept)?;
    let done = if answer.status == StatusCode::CREATED {
        "added"
    } else {
        "replaced"
    };
    let (who, phone) = (person.name.unwrap_or(person.staff_id), person.phone);
    print(format!("{done}: {}, {phone}\n", clean_line(&who, 200)))?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(admin: &Admin, source: &str, staff_id: &str) -> anyhow::Result<ExitCode> {
    let path = ["v1", "staff", source, staff_id];
    admin.ask(Method::DELETE, &path, &[], Content::None).await?.good()?;
    print("removed: events that name this person without a phone reach nobody by it\n")?;
    Ok(ExitCode::SUCCESS)
}

/// What became of the lines of a file.
#[derive(Deserialize)]
struct Imported {
    added: u64,
    changed: u64,
    unchanged: u64,
    refused: Vec<RefusedPerson>,
}

#[derive(Deserialize)]
struct RefusedPerson {
    line: u64,
    staff_id: String,
    detail: String,
}

async fn import(admin: &Admin, file: &Path, source: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let bytes = read_input(file)?;
    let (path, query) = (["v1", "staff.csv"], [("source", source)]);
    let answer = admin.ask(Method::POST, &path, &query, Content::Csv(&bytes)).await?;
    let answer = answer.good()?;
    let imported: Imported = answer.read()?;
    if as_json {
        print_json(&answer.read::<Value>()?)?;
    } else {
        let Imported {
            added,
            changed,
            unchanged,
            refused,
        } = &imported;
        let lines = format!("{} line{} left out", refused.len(), plural(refused.len()));
        print(format!(
            "{added} added, {changed} changed, {unchanged} as they were, {lines}\n"
        ))?;
        for RefusedPerson { line, staff_id, detail } in refused {
            eprintln!("line {line}: `{}`: {detail}", clean_line(staff_id, 40));
        }
    }
    let is_whole = imported.refused.is_empty();
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
