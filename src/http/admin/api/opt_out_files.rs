//! `/v1/opt-outs.csv`: the numbers that must not be texted, as a file that people keep in a spreadsheet.

use super::{
    csv_files::{self, AT_ONCE, HIDDEN, Layout, Line},
    opt_outs::MAX_LINE,
    query::NO_PHONE,
};
use crate::{
    domain::{
        day::to_millisecond,
        phone::{self, PhoneNumber, Region},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{FileBody, ForAdmins, Problem},
        state::{AppState, SharedState},
    },
    store::{NewOptOut, OptOut},
};
use axum::{Json, body::Body, extract::State, http::HeaderMap, response::Response};
use jiff::Timestamp;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

const COLUMNS: [&str; 5] = ["phone", "staff_id", "reason", "opted_out_at", "phone_text"];

/// What became of the lines of a file.
#[derive(Serialize, ToSchema)]
pub struct Import {
    /// Numbers that are on the list now and were not before.
    pub added: u64,
    /// Lines whose number was on the list, or in the file, already; it stays as it was.
    known: u64,
    refused: Vec<RefusedLine>,
}

/// A line that was left out.
#[derive(Serialize, ToSchema)]
pub struct RefusedLine {
    /// From 1, as a text editor counts.
    line: u64,
    /// What stands there for a number, masked.
    phone: String,
    detail: String,
}

/// Exports all opt-outs as CSV
///
/// For a spreadsheet: no cell is read as a formula, and the file can be imported again.
#[utoipa::path(
    get,
    path = "/v1/opt-outs.csv",
    operation_id = "exportOptOuts",
    tag = "opt-outs",
    responses(
        (status = 200, body = String, content_type = "text/csv", description = "Columns: `phone`, `staff_id`, `reason`, `opted_out_at`, `phone_text`"),
        ForAdmins,
    ),
    security(("admin" = []))
)]
pub async fn export(State(app): SharedState) -> Result<Response, Problem> {
    let name = format!("opt-outs-{}.csv", app.today());
    let lines = move |after: Option<String>| {
        let app = Arc::clone(&app);
        async move {
            let page = app.store.opt_outs(after.as_deref(), csv_files::at_once()).await?;
            Ok((page.items.iter().map(cells).collect(), page.next))
        }
    };
    csv_files::export(&name, &COLUMNS, lines).await
}

fn cells(opt_out: &OptOut) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        opt_out.phone.clone(),
        text(&opt_out.staff_id),
        text(&opt_out.reason),
        opt_out.opted_out_at.to_string(),
        text(&opt_out.phone_text),
    ]
}

/// Imports opt-outs from CSV
///
/// Each line counts for itself, and numbers that are there already stay as they were, so a file may be sent again. The first
/// line may name the columns (`phone`, `staff_id`, `reason`, `opted_out_at`, `phone_text`; others are ignored), between
/// commas, semicolons or tabs.
#[utoipa::path(
    post,
    path = "/v1/opt-outs.csv",
    operation_id = "importOptOuts",
    tag = "opt-outs",
    request_body(content(("text/csv")), description = "At most 16 MiB of UTF-8"),
    responses((status = 200, body = Import, description = "What became of the lines"), ForAdmins, FileBody),
    security(("admin" = []))
)]
pub async fn import(State(app): SharedState, headers: HeaderMap, raw: Body) -> Result<Json<Import>, Problem> {
    csv_files::expect_csv(&headers)?;
    let bytes = body::read(raw, body::FILE).await?;
    import_file(&app, &bytes).await.map(Json)
}

/// Adds the numbers of a file that was read.
pub async fn import_file(app: &AppState, bytes: &[u8]) -> Result<Import, Problem> {
    let text = csv_files::read_text(bytes)?;
    let File { lines, refused } = read_file(text, app.default_region, now());
    let mut added = 0;
    for some in lines.chunks(AT_ONCE) {
        added += app.store.add_opt_outs(some).await?;
    }
    let known = u64::try_from(lines.len()).unwrap_or(u64::MAX).saturating_sub(added);
    tracing::info!(added, known, refused = refused.len(), "opt-outs imported");
    Ok(Import { added, known, refused })
}

/// What a file says.
#[derive(Default)]
struct File {
    lines: Vec<NewOptOut>,
    refused: Vec<RefusedLine>,
}

/// Reads a file: with a first line that names its columns, in any order and with others beside them, or without one and with
/// `phone, staff_id, reason` in this order; between commas, semicolons or tabs, whichever the first line has.
fn read_file(text: &str, region: Region, now: Timestamp) -> File {
    let layout = Layout {
        key: "phone",
        unnamed: &COLUMNS[..3],
        region,
    };
    let mut file = File::default();
    csv_files::read_lines(text, &layout, |line| match read_line(line, region, now) {
        Ok(new) => file.lines.push(new),
        Err((phone, detail)) => file.refused.push(RefusedLine {
            line: line.number,
            phone,
            detail,
        }),
    });
    file
}

/// Reads one line; else what stands for its number, masked, and what is wrong.
fn read_line(line: &Line<'_>, region: Region, now: Timestamp) -> Result<NewOptOut, (String, String)> {
    if line.hides_others {
        return Err((String::new(), HIDDEN.to_owned()));
    }
    let cell = |name: &str| line.cell(name);
    let raw_phone = cell("phone").unwrap_or_default();
    let refuse = |detail: String| (phone::mask(&clean_line(raw_phone, 40)), detail);
    let opted_out_at = match cell("opted_out_at") {
        None => now,
        Some(text) => text
            .parse::<Timestamp>()
            .map(|at| to_millisecond(at.min(now)))
            .map_err(|_| refuse("`opted_out_at` is not a time: write it like `2026-11-20T13:00:00Z`".to_owned()))?,
    };
    let phone = PhoneNumber::parse(raw_phone, region).ok_or_else(|| refuse(NO_PHONE.to_owned()))?;
    let text = |name: &str| cell(name).map(|text| clean_line(text, MAX_LINE));
    Ok(NewOptOut {
        phone,
        phone_text: text("phone_text").unwrap_or_else(|| clean_line(raw_phone, MAX_LINE)),
        staff_id: text("staff_id"),
        reason: text("reason"),
        opted_out_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    /// The numbers with their persons and reasons, and the lines that are refused.
    fn read(text: &str) -> (Vec<String>, Vec<u64>) {
        let file = read_file(text, Region::UNKNOWN, NOW);
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let line = |new: &NewOptOut| {
            format!(
                "{} {} {}",
                new.phone.as_e164(),
                or_none(&new.staff_id),
                or_none(&new.reason)
            )
        };
        (
            file.lines.iter().map(line).collect(),
            file.refused.iter().map(|refused| refused.line).collect(),
        )
    }

    #[test]
    fn a_file_is_read_with_and_without_names_of_columns() {
        let lines = vec!["+14155550101 7 asked".to_owned(), "+14155550102 - -".to_owned()];
        for text in [
            "+14155550101,7,asked\n+14155550102\n",
            "phone,staff_id,reason\n+14155550101,7,asked\n\n+14155550102,,\n",
            "Reason;Phone;other;STAFF_ID\r\nasked;+14155550101;x;7\r\n;+14155550102;;\r\n",
            "\u{FEFF}phone\tstaff_id\treason\n\"'+14155550101\"\t 7 \tasked\n'+1 (415) 555-0102\t\t\n",
        ] {
            assert_eq!(read(text), (lines.clone(), Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn a_bad_line_is_refused_by_its_number_and_the_others_are_read() {
        let (lines, refused) = read(
            "phone,opted_out_at\n+14155550101,\nabc,\n\n,x\n+14155550102,yesterday\n+14155550103,2026-11-20T00:00:00Z\n",
        );

        assert_eq!(lines, ["+14155550101 - -", "+14155550103 - -"]);
        assert_eq!(refused, [3, 5, 6]);
        assert_eq!(read(""), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_quote_that_is_not_closed_hides_no_number() {
        let hidden = "+14155550101,1,\"asked\n+14155550102,2,\n";
        assert_eq!(read(hidden), (Vec::new(), vec![1]));
        let closed_later = "+14155550100,0,\n+14155550101,1,\"a\n+14155550102,2,\"b\n+14155550103,3,\n";
        let (lines, refused) = read(closed_later);
        assert_eq!((lines.len(), refused), (2, vec![2]));
        assert_eq!(read("phone,\"reason\n+14155550101,asked\n"), (Vec::new(), vec![1]));
        let (lines, refused) = read("+14155550101,1,\"asked\nby phone\"\n");
        assert_eq!((lines.len(), refused), (1, Vec::new()));
    }

    #[test]
    fn a_comma_in_a_text_separates_nothing_where_semicolons_do() {
        let (lines, refused) = read("+14155550101;7;asked, twice\n");

        assert_eq!(
            (lines, refused),
            (vec!["+14155550101 7 asked, twice".to_owned()], Vec::new())
        );
    }

    #[test]
    fn a_time_that_lies_ahead_is_now() {
        let file = read_file(
            "phone,opted_out_at\n+14155550101,2999-01-01T00:00:00Z\n",
            Region::UNKNOWN,
            NOW,
        );

        assert_eq!(file.lines[0].opted_out_at, NOW);
    }
}
