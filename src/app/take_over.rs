//! Taking over what the SMS code before Nightbell knows: tickets that it texted about never cause a message again, and
//! opt-outs stay. Through the admin API, as every change that a command makes; what is known already stays as it was, so it
//! may be done again. Absent: reading the old tables (see `source::osticket`).

use super::admin::{Admin, Content};
use crate::{
    domain::{
        phone::{self, PhoneNumber, Region},
        text::clean_line,
    },
    source::osticket::{OldAlert, OldOptOut, OldSms, OldTable},
};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// As many as the admin API takes at once.
const AT_ONCE: usize = 2_000;
/// The longest page that the admin API gives.
const PAGE: &str = "200";
/// Longer ids are none.
const MAX_ID: usize = 200;
/// Noted of an opt-out whose reason nobody wrote down.
const REASON: &str = "opted out before Nightbell";

/// What it is done by.
pub struct TakeOver<'a> {
    /// The helpdesk's name here.
    pub source: &'a str,
    /// Of numbers without a country code.
    pub region: Region,
    /// Only counts.
    pub is_dry_run: bool,
}

/// What became of it.
#[derive(Serialize)]
pub struct TakenOver {
    pub dry_run: bool,
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_outs: Option<Part>,
}

/// What became of a table's rows.
#[derive(Serialize)]
pub struct Part {
    pub table: String,
    /// What was read, and from which column.
    pub columns: BTreeMap<&'static str, String>,
    pub unread: Vec<String>,
    pub added: u64,
    pub known: u64,
    pub refused: Vec<Refused>,
}

/// A row that was left out.
#[derive(Serialize)]
pub struct Refused {
    /// What stands there: an id, or a number, which is masked.
    pub text: String,
    pub detail: &'static str,
}

/// Counts of what the admin API took.
#[derive(Deserialize)]
struct Counts {
    added: u64,
    known: u64,
}

impl TakeOver<'_> {
    pub async fn run(&self, admin: &Admin, old: OldSms) -> anyhow::Result<TakenOver> {
        Ok(TakenOver {
            dry_run: self.is_dry_run,
            source: self.source.to_owned(),
            // First: whoever opted out must not be texted, whatever goes wrong afterwards.
            opt_outs: match old.opt_outs {
                Some(table) => Some(self.opt_outs(admin, table).await?),
                None => None,
            },
            alerts: match old.alerts {
                Some(table) => Some(self.alerts(admin, table).await?),
                None => None,
            },
        })
    }

    async fn alerts(&self, admin: &Admin, table: OldTable<OldAlert>) -> anyhow::Result<Part> {
        let (alerts, refused) = read_alerts(&table.rows);
        let query: &[(&str, &str)] = if self.is_dry_run { &[("dry_run", "true")] } else { &[] };
        let mut sum = Counts { added: 0, known: 0 };
        for some in alerts.chunks(AT_ONCE) {
            let body = json!({"source": self.source, "alerts": some});
            let path = ["v1", "alerts", "imported"];
            let answer = admin.ask(Method::POST, &path, query, Content::Json(&body)).await?;
            let counts: Counts = answer.good()?.read()?;
            sum.added += counts.added;
            sum.known += counts.known;
        }
        Ok(part(table, sum, refused))
    }

    async fn opt_outs(&self, admin: &Admin, table: OldTable<OldOptOut>) -> anyhow::Result<Part> {
        let (opt_outs, refused) = read_opt_outs(&table.rows, self.region);
        let counts = if self.is_dry_run {
            count_new(&opt_outs, &known_numbers(admin).await?)
        } else {
            let file = write_csv(&opt_outs)?;
            let path = ["v1", "opt-outs.csv"];
            let answer = admin.ask(Method::POST, &path, &[], Content::Csv(&file)).await?;
            answer.good()?.read()?
        };
        Ok(part(table, counts, refused))
    }
}

fn part<T>(table: OldTable<T>, counts: Counts, refused: Vec<Refused>) -> Part {
    Part {
        table: table.name,
        columns: table.columns.into_iter().collect(),
        unread: table.unread,
        added: counts.added,
        known: counts.known,
        refused,
    }
}

/// The tickets, each once, with the first time that they were texted about; and the rows that name none.
fn read_alerts(rows: &[OldAlert]) -> (Vec<Value>, Vec<Refused>) {
    let mut refused = Vec::new();
    let mut first: HashMap<String, &OldAlert> = HashMap::new();
    let mut order = Vec::new();
    for row in rows {
        let id = clean_line(&row.ticket_id, usize::MAX);
        if id.is_empty() || id == "0" || id.chars().count() > MAX_ID {
            refused.push(Refused {
                text: clean_line(&id, 40),
                detail: "this is no ticket's id",
            });
            continue;
        }
        match first.get_mut(&id) {
            None => {
                first.insert(id.clone(), row);
                order.push(id);
            }
            Some(known) => {
                let is_earlier = row
                    .told_at
                    .is_some_and(|at| known.told_at.is_none_or(|known| at < known));
                if is_earlier {
                    *known = row;
                }
            }
        }
    }
    let alerts = order.iter().filter_map(|id| {
        let row = first.get(id)?;
        let number = row
            .ticket_number
            .as_deref()
            .filter(|number| number.chars().count() <= MAX_ID);
        Some(json!({"ticket_id": id, "ticket_number": number, "told_at": row.told_at.map(|at| at.to_string())}))
    });
    (alerts.collect(), refused)
}

/// The numbers that can be read, and the rows without one.
fn read_opt_outs(rows: &[OldOptOut], region: Region) -> (Vec<(PhoneNumber, &OldOptOut)>, Vec<Refused>) {
    let (mut read, mut refused) = (Vec::new(), Vec::new());
    for row in rows {
        match PhoneNumber::parse(&row.phone, region) {
            Some(phone) => read.push((phone, row)),
            None => refused.push(Refused {
                text: phone::mask(&clean_line(&row.phone, 40)),
                detail: "this is not one phone number, or it has no country code: see `--region`",
            }),
        }
    }
    (read, refused)
}

fn count_new(opt_outs: &[(PhoneNumber, &OldOptOut)], known: &HashSet<String>) -> Counts {
    let numbers = opt_outs.iter().map(|(phone, _)| phone.as_e164());
    let new: HashSet<&str> = numbers.filter(|number| !known.contains(*number)).collect();
    let (all, added) = (opt_outs.len() as u64, new.len() as u64);
    Counts {
        added,
        known: all - added,
    }
}

/// The numbers that have opted out here.
async fn known_numbers(admin: &Admin) -> anyhow::Result<HashSet<String>> {
    let (mut known, mut cursor) = (HashSet::new(), None::<String>);
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: Value = admin.get(&["v1", "opt-outs"], &query).await?.good()?.read()?;
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        known.extend(
            items
                .iter()
                .filter_map(|item| item["phone"].as_str().map(str::to_owned)),
        );
        let next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            return Ok(known);
        }
        cursor = next;
    }
}

/// The file that the admin API takes; numbers are in E.164, so no region is left to choose.
fn write_csv(opt_outs: &[(PhoneNumber, &OldOptOut)]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["phone", "phone_text", "staff_id", "reason", "opted_out_at"])?;
    for (phone, row) in opt_outs {
        // A line break would end the line, and a quote may not stand open.
        let text = |text: &str| clean_line(text, MAX_ID);
        let reason = row.reason.as_deref().map(text).filter(|reason| !reason.is_empty());
        writer.write_record([
            phone.as_e164(),
            &text(&row.phone),
            &row.staff_id.as_deref().map(text).unwrap_or_default(),
            reason.as_deref().unwrap_or(REASON),
            &row.opted_out_at.map(|at| at.to_string()).unwrap_or_default(),
        ])?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_ticket_that_was_texted_about_to_several_people_is_one_alert() {
        let row = |id: &str, at: Option<i64>| OldAlert {
            ticket_id: id.to_owned(),
            ticket_number: None,
            told_at: at.map(|at| Timestamp::from_second(at).unwrap()),
        };

        let (alerts, refused) = read_alerts(&[
            row("7", None),
            row(" 8 ", Some(1_800_000_100)),
            row("8", Some(1_800_000_000)),
            row("7", Some(1_800_000_000)),
            row("0", None),
            row("", None),
        ]);

        let told = |id: &str| json!({"ticket_id": id, "ticket_number": null, "told_at": "2027-01-15T08:00:00Z"});
        assert_eq!((alerts, refused.len()), (vec![told("7"), told("8")], 2));
    }

    #[test]
    fn a_number_that_cannot_be_read_is_masked_and_the_others_stay() {
        let row = |phone: &str| OldOptOut {
            phone: phone.to_owned(),
            staff_id: None,
            reason: None,
            opted_out_at: None,
        };
        let rows = [
            row("(415) 555-0101"),
            row("+4930123456"),
            row("555-01"),
            row("+14155550101"),
        ];

        let (read, refused) = read_opt_outs(&rows, Region::parse("US").unwrap());
        let counts = count_new(&read, &HashSet::from(["+4930123456".to_owned()]));

        assert_eq!((counts.added, counts.known), (1, 2));
        assert!(!refused[0].text.contains("555-01"), "{}", refused[0].text);
        let file = String::from_utf8(write_csv(&read).unwrap()).unwrap();
        assert!(
            file.contains("+14155550101,(415) 555-0101,,opted out before Nightbell,\n"),
            "{file}"
        );
    }
}
