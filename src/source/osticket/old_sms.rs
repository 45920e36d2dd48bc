//! What PHP code for SMS left in osTicket's database before Nightbell: the tickets it texted about, and the numbers that opted
//! out. Nobody described these two tables, so their columns are looked up by what such columns are usually called, and what
//! was found is told. Absent: what becomes of it (see `app::take_over`).

use super::connection::Connection;
use crate::source::seen::HelpdeskError;
use jiff::Timestamp;
use sqlx::FromRow;

/// Which of the two tables is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Alerts,
    OptOuts,
}

/// What was left. `None` for a part that was not asked for.
pub struct OldSms {
    pub alerts: Option<OldTable<OldAlert>>,
    pub opt_outs: Option<OldTable<OldOptOut>>,
}

/// A table as it was found.
pub struct OldTable<T> {
    pub name: String,
    /// What was looked for, and the column that was found for it.
    pub columns: Vec<(&'static str, String)>,
    /// The columns that say nothing to us.
    pub unread: Vec<String>,
    pub rows: Vec<T>,
}

/// A ticket that was texted about.
pub struct OldAlert {
    /// As it stands there.
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub told_at: Option<Timestamp>,
}

/// A number that opted out.
pub struct OldOptOut {
    /// As it stands there.
    pub phone: String,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub opted_out_at: Option<Timestamp>,
}

/// A column that is looked for: what it is, how it may be called, the likeliest first.
struct Wanted {
    what: &'static str,
    names: &'static [&'static str],
    is_needed: bool,
    is_time: bool,
}

impl Wanted {
    const fn text(what: &'static str, is_needed: bool, names: &'static [&'static str]) -> Self {
        Self {
            what,
            names,
            is_needed,
            is_time: false,
        }
    }

    const fn time(what: &'static str, names: &'static [&'static str]) -> Self {
        Self {
            what,
            names,
            is_needed: false,
            is_time: true,
        }
    }
}

const OF_ALERTS: [Wanted; 3] = [
    Wanted::text("ticket id", true, &["ticket_id", "ticket"]),
    Wanted::text("ticket number", false, &["ticket_number", "number"]),
    Wanted::time("sent", &["sent_at", "created_at", "created", "sent", "timestamp"]),
];

const OF_OPT_OUTS: [Wanted; 4] = [
    Wanted::text("phone", true, &["phone", "phone_number", "number", "mobile"]),
    Wanted::text("staff id", false, &["staff_id", "staff"]),
    Wanted::text("reason", false, &["reason"]),
    Wanted::time(
        "opted out",
        &[
            "opted_out_at",
            "optout_at",
            "opt_out_at",
            "opted_out",
            "created_at",
            "created",
            "timestamp",
        ],
    ),
];

#[derive(FromRow)]
struct ColumnRow {
    name: String,
    kind: String,
}

/// Reads the tables; nothing is changed there.
pub async fn read(connection: &Connection, parts: &[Part]) -> Result<OldSms, HelpdeskError> {
    let mut old = OldSms {
        alerts: None,
        opt_outs: None,
    };
    for part in parts {
        match part {
            Part::Alerts => {
                let table = find_table(connection, "ticket_sms_alert", &OF_ALERTS).await?;
                old.alerts = Some(table.read(connection, alert).await?);
            }
            Part::OptOuts => {
                let table = find_table(connection, "twilio_sms_optout", &OF_OPT_OUTS).await?;
                old.opt_outs = Some(table.read(connection, opt_out).await?);
            }
        }
    }
    Ok(old)
}

/// A table whose columns are known.
struct Found {
    name: String,
    columns: Vec<(&'static str, String)>,
    unread: Vec<String>,
    question: String,
}

/// Finds a table's columns. Those of a table that may not be read are not shown to us.
async fn find_table(connection: &Connection, name: &str, wanted: &[Wanted]) -> Result<Found, HelpdeskError> {
    let name = format!("{}{name}", connection.prefix());
    let question = format!(
        "select cast(column_name as char) as name, cast(data_type as char) as kind from information_schema.columns
         where table_schema = database() and table_name = '{name}' order by ordinal_position"
    );
    let columns: Vec<ColumnRow> = connection.ask(question).await?;
    choose(name, &columns, wanted).map_err(HelpdeskError::new)
}

/// Chooses among the columns of a table. Fails with what is missing.
fn choose(name: String, columns: &[ColumnRow], wanted: &[Wanted]) -> Result<Found, String> {
    if columns.is_empty() {
        return Err(format!(
            "there is no table `{name}`, or its user may not read it: see `--table-prefix` and `GRANT SELECT`, or leave this part out with `--only`"
        ));
    }
    let (mut found, mut selected) = (Vec::new(), Vec::new());
    for wanted in wanted {
        let chosen = wanted.names.iter().find_map(|name| {
            let mut columns = columns.iter().filter(|column| column.name.eq_ignore_ascii_case(name));
            columns.find_map(|column| Some((column, read_as(column, wanted.is_time)?)))
        });
        match chosen {
            Some((column, expression)) => {
                found.push((wanted.what, column.name.clone()));
                selected.push(expression);
            }
            None if wanted.is_needed => {
                let there: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                return Err(format!(
                    "`{name}` has no column for the {} (looked for {}; it has {}): rename the one that it is, once the old code is off",
                    wanted.what,
                    wanted.names.join(", "),
                    there.join(", ")
                ));
            }
            None => selected.push("null".to_owned()),
        }
    }
    let is_read = |column: &&ColumnRow| found.iter().any(|(_, name)| *name == column.name);
    let unread = columns.iter().filter(|column| !is_read(column));
    Ok(Found {
        unread: unread.map(|column| column.name.clone()).collect(),
        question: format!("select {} from `{name}`", selected.join(", ")),
        name,
        columns: found,
    })
}

/// How a column is read: a time as seconds since 1970, all else as text. `None` for a time that is none.
fn read_as(column: &ColumnRow, is_time: bool) -> Option<String> {
    // One of our own names, in whatever case.
    let name = &column.name;
    match (is_time, column.kind.to_ascii_lowercase().as_str()) {
        (false, _) => Some(format!("cast(`{name}` as char)")),
        (true, "datetime" | "timestamp" | "date") => Some(format!("cast(unix_timestamp(`{name}`) as signed)")),
        (true, "int" | "bigint") => Some(format!("cast(`{name}` as signed)")),
        (true, _) => None,
    }
}

impl Found {
    async fn read<R, T>(self, connection: &Connection, make: fn(R) -> T) -> Result<OldTable<T>, HelpdeskError>
    where
        R: for<'r> FromRow<'r, sqlx::mysql::MySqlRow>,
    {
        let rows: Vec<R> = connection.ask(self.question).await?;
        Ok(OldTable {
            name: self.name,
            columns: self.columns,
            unread: self.unread,
            rows: rows.into_iter().map(make).collect(),
        })
    }
}

fn alert((ticket_id, ticket_number, at): (Option<String>, Option<String>, Option<i64>)) -> OldAlert {
    OldAlert {
        ticket_id: ticket_id.unwrap_or_default(),
        ticket_number,
        told_at: time(at),
    }
}

fn opt_out((phone, staff_id, reason, at): (Option<String>, Option<String>, Option<String>, Option<i64>)) -> OldOptOut {
    OldOptOut {
        phone: phone.unwrap_or_default(),
        staff_id: staff_id.filter(|id| id != "0"),
        reason,
        opted_out_at: time(at),
    }
}

/// The time of a row. MySQL's zero date, and a small number, are none: nobody sent SMS in 1970.
fn time(seconds: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_second(seconds.filter(|seconds| *seconds > 86_400)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(columns: &[(&str, &str)], wanted: &[Wanted]) -> Result<Found, String> {
        let columns: Vec<ColumnRow> = columns
            .iter()
            .map(|(name, kind)| ColumnRow {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
            })
            .collect();
        choose("t".to_owned(), &columns, wanted)
    }

    #[test]
    fn columns_are_found_by_what_they_are_usually_called() {
        let found = chosen(
            &[
                ("ID", "int"),
                ("Ticket", "int"),
                ("sent", "tinyint"),
                ("created", "datetime"),
            ],
            &OF_ALERTS,
        )
        .unwrap();
        assert_eq!(
            found.columns,
            [("ticket id", "Ticket".to_owned()), ("sent", "created".to_owned())]
        );
        assert_eq!(found.unread, ["ID", "sent"]);
        assert_eq!(
            found.question,
            "select cast(`Ticket` as char), null, cast(unix_timestamp(`created`) as signed) from `t`"
        );

        let found = chosen(
            &[
                ("staff_id", "int"),
                ("phone_number", "varchar"),
                ("opted_out", "bigint"),
            ],
            &OF_OPT_OUTS,
        );
        assert_eq!(
            found.unwrap().question,
            "select cast(`phone_number` as char), cast(`staff_id` as char), null, cast(`opted_out` as signed) from `t`"
        );
    }

    #[test]
    fn what_is_needed_and_missing_is_named() {
        let problem = chosen(&[("id", "int"), ("sms_sid", "varchar")], &OF_ALERTS)
            .err()
            .unwrap();
        assert!(
            problem.contains("ticket id") && problem.contains("it has id, sms_sid"),
            "{problem}"
        );
        assert!(chosen(&[], &OF_OPT_OUTS).err().unwrap().contains("no table `t`"));
    }

    #[test]
    fn a_zero_date_is_no_time() {
        assert_eq!((time(Some(0)), time(Some(1)), time(None)), (None, None, None));
        assert_eq!(time(Some(1_800_000_000)), Timestamp::from_second(1_800_000_000).ok());
    }
}
