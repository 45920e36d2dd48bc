//! `opt-out`: numbers that must not be texted.

use super::{
    common::{FAILED, Shown, print, print_json, read_input, read_phone, with_admin, write_output},
    shapes::OptOut,
    table::{Listed, local, or_dash, table},
};
use crate::{
    app::{Access, Admin, Content, Loaded},
    domain::{phone, report::plural, text::clean_line},
};
use clap::Subcommand;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Subcommand)]
pub enum Command {
    /// Show the numbers that must not be texted
    List {
        /// How many at most
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        shown: Shown,
    },
    /// Never text a number again
    Add {
        /// The number, with `+` and country code
        #[arg(value_name = "PHONE", value_parser = read_phone)]
        phone: String,
        /// The person's id in the helpdesk
        #[arg(long, value_name = "ID")]
        staff_id: Option<String>,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Text a number again
    Remove {
        /// The number, with `+` and country code
        #[arg(value_name = "PHONE", value_parser = read_phone)]
        phone: String,
    },
    /// Add the numbers of a CSV file; every line that is left out is named
    Import {
        /// Columns `phone`, and if you like `staff_id`, `reason`, `opted_out_at`; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
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

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { limit, shown } => with_admin(loaded, Access::Read, async |admin, loaded| {
            list(admin, loaded, usize::try_from(limit)?, &shown).await
        }),
        Command::Add {
            phone,
            staff_id,
            reason,
            shown,
        } => with_admin(loaded, Access::Change, async |admin, loaded| {
            let new = json!({"phone": phone, "staff_id": staff_id, "reason": reason});
            add(admin, loaded, &new, &shown).await
        }),
        Command::Remove { phone } => with_admin(loaded, Access::Change, async |admin, _| remove(admin, &phone).await),
        Command::Import { file, json } => with_admin(loaded, Access::Change, async |admin, _| {
            import(admin, &file, json).await
        }),
        Command::Export { file } => with_admin(loaded, Access::Read, async |admin, _| {
            let answer = admin.get(&["v1", "opt-outs.csv"], &[]).await?.good()?;
            write_output(file.as_deref(), &answer.body)
        }),
    }
}

async fn list(admin: &Admin, loaded: &Loaded, limit: usize, shown: &Shown) -> anyhow::Result<ExitCode> {
    let mut listed = Listed::read(admin, &["v1", "opt-outs"], &[], limit).await?;
    if !shown.reveal {
        listed.items.iter_mut().for_each(mask);
    }
    if shown.json {
        print_json(&listed.document())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for item in &listed.items {
        let opt_out = OptOut::deserialize(item)?;
        rows.push(vec![
            opt_out.phone,
            or_dash(opt_out.staff_id),
            or_dash(opt_out.reason),
            local(opt_out.opted_out_at, &loaded.config.time_zone),
        ]);
    }
    if !rows.is_empty() {
        print(table(&["phone", "staff id", "reason", "since"], rows))?;
    }
    print(listed.remark("Nobody has opted out. `nightbell opt-out add PHONE` adds a number."))?;
    Ok(ExitCode::SUCCESS)
}

/// The admin API gives these numbers in full.
fn mask(opt_out: &mut Value) {
    for name in ["phone", "phone_text"] {
        if let Some(text) = opt_out[name].as_str() {
            opt_out[name] = phone::mask(text).into();
        }
    }
}

async fn add(admin: &Admin, loaded: &Loaded, new: &Value, shown: &Shown) -> anyhow::Result<ExitCode> {
    let path = ["v1", "opt-outs"];
    let answer = admin.ask(Method::POST, &path, &[], Content::Json(new)).await?.good()?;
    let mut kept: Value = answer.read()?;
    if !shown.reveal {
        mask(&mut kept);
    }
    if shown.json {
        print_json(&kept)?;
        return Ok(ExitCode::SUCCESS);
    }
    let opt_out = OptOut::deserialize(&kept)?;
    let since = local(opt_out.opted_out_at, &loaded.config.time_zone);
    let said = if answer.status == StatusCode::CREATED {
        "will not be texted any more".to_owned()
    } else {
        format!("is on the list already, since {since}; nothing was changed")
    };
    print(format!("{} {said}\n", opt_out.phone))?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(admin: &Admin, phone: &str) -> anyhow::Result<ExitCode> {
    let path = ["v1", "opt-outs", phone];
    admin.ask(Method::DELETE, &path, &[], Content::None).await?.good()?;
    print("removed: this number may be texted again\n")?;
    Ok(ExitCode::SUCCESS)
}

/// What became of the lines of a file.
#[derive(Deserialize)]
struct Imported {
    added: u64,
    known: u64,
    refused: Vec<RefusedLine>,
}

#[derive(Deserialize)]
struct RefusedLine {
    line: u64,
    phone: String,
    detail: String,
}

async fn import(admin: &Admin, file: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let bytes = read_input(file)?;
    let path = ["v1", "opt-outs.csv"];
    let answer = admin
        .ask(Method::POST, &path, &[], Content::Csv(&bytes))
        .await?
        .good()?;
    let imported: Imported = answer.read()?;
    if as_json {
        print_json(&answer.read::<Value>()?)?;
    } else {
        let Imported { added, known, refused } = &imported;
        let lines = format!("{} line{} left out", refused.len(), plural(refused.len()));
        print(format!("{added} added, {known} known before, {lines}\n"))?;
        for RefusedLine { line, phone, detail } in refused {
            eprintln!("line {line}: {}{detail}", text_before(phone));
        }
    }
    let is_whole = imported.refused.is_empty();
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// What stands in a line for a number, before what is wrong with it.
fn text_before(phone: &str) -> String {
    match phone {
        "" => String::new(),
        phone => format!("`{}`: ", clean_line(phone, 40)),
    }
}
