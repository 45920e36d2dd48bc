//! `/v1/opt-outs.csv`: the numbers that must not be texted, as a file that people keep in a spreadsheet.

use super::{opt_outs::MAX_LINE, query::NO_PHONE};
use crate::{
    domain::{
        day::to_millisecond,
        phone::{self, PhoneNumber, Region},
        spreadsheet::{MARK, harmless, unmarked},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{FileBody, ForAdmins, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{NewOptOut, OptOut, StoreError},
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use csv::{ReaderBuilder, StringRecord, Trim};
use futures::stream;
use jiff::Timestamp;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

const COLUMNS: [&str; 5] = ["phone", "staff_id", "reason", "opted_out_at", "phone_text"];
/// So many are read or written at once, so that others get their turn.
const AT_ONCE: usize = 1_000;

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
    let name = format!("attachment; filename=\"opt-outs-{}.csv\"", app.today());
    let head = format!("{MARK}{}\r\n", COLUMNS.join(","));
    // Asked for before the answer begins, so that a database that is out is said so.
    let (first, after) = lines_after(&app, "").await?;
    let others = stream::try_unfold(after, move |after| next_lines(Arc::clone(&app), after));
    let text = stream::StreamExt::chain(stream::iter([Ok(Bytes::from(head)), Ok(first)]), others);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, Body::from_stream(text)).into_response())
}

/// The lines that follow, if there are any. An error breaks the answer off, so that nobody takes a part for the whole.
async fn next_lines(app: Arc<AppState>, after: Option<String>) -> Result<Option<(Bytes, Option<String>)>, StoreError> {
    match after {
        None => Ok(None),
        Some(after) => lines_after(&app, &after).await.map(Some),
    }
}

/// The lines of the numbers after one, and after which one the next begin.
async fn lines_after(app: &AppState, after: &str) -> Result<(Bytes, Option<String>), StoreError> {
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let page = app.store.opt_outs(Some(after), limit).await?;
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for opt_out in &page.items {
        let _ = writer.write_record(cells(opt_out).map(|cell| harmless(&cell)));
    }
    let lines = writer.into_inner().unwrap_or_default();
    Ok((lines.into(), page.next))
}

fn cells(opt_out: &OptOut) -> [String; 5] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
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
    expect_csv(&headers)?;
    let bytes = body::read(raw, body::FILE).await?;
    import_file(&app, &bytes).await.map(Json)
}

/// Adds the numbers of a file that was read.
pub async fn import_file(app: &AppState, bytes: &[u8]) -> Result<Import, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Problem::new(
            Kind::InvalidFile,
            format!("line {line} is not UTF-8, so nothing was read: save the file as \"CSV UTF-8\""),
        )
    })?;
    let File { lines, refused } = read_file(text, app.default_region, now());
    let mut added = 0;
    for some in lines.chunks(AT_ONCE) {
        added += app.store.add_opt_outs(some).await?;
    }
    let known = u64::try_from(lines.len()).unwrap_or(u64::MAX).saturating_sub(added);
    tracing::info!(added, known, refused = refused.len(), "opt-outs imported");
    Ok(Import { added, known, refused })
}

fn expect_csv(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("text/csv") {
        return Ok(());
    }
    Err(Problem::new(
        Kind::UnsupportedMediaType,
        "send CSV, with `Content-Type: text/csv`",
    ))
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
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let count = |delimiter: &char| first.matches(*delimiter).count();
    let delimiter = ['\t', ';', ','].into_iter().max_by_key(count).unwrap_or(',');
    let mut reader = ReaderBuilder::new()
        .delimiter(u8::try_from(delimiter).unwrap_or(b','))
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let mut columns: Option<Vec<String>> = None;
    let (mut cells, mut file) = (StringRecord::new(), File::default());
    // Of a text there is nothing that cannot be read.
    while reader.read_record(&mut cells).unwrap_or(false) {
        let line = cells.position().map_or(0, |position| line_of(text, position));
        if cells.iter().all(str::is_empty) {
            continue;
        }
        if hides_a_number(&cells, delimiter, region) {
            let (phone, detail) = (String::new(), HIDDEN.to_owned());
            file.refused.push(RefusedLine { line, phone, detail });
            continue;
        }
        let names: Vec<String> = cells.iter().map(|cell| unmarked(cell).to_lowercase()).collect();
        if columns.is_none() && names.iter().any(|name| name == "phone") {
            columns = Some(names);
            continue;
        }
        let columns = columns.get_or_insert_with(|| COLUMNS[..3].iter().map(|name| (*name).to_owned()).collect());
        match read_line(&cells, columns, region, now) {
            Ok(new) => file.lines.push(new),
            Err((phone, detail)) => file.refused.push(RefusedLine { line, phone, detail }),
        }
    }
    file
}

const HIDDEN: &str = "a quote that opens here is closed only in a later line, or never, and the numbers in between were not read: close it in the same line";

/// Whether a cell has a line with a number behind its first: a quote that is not closed takes whole lines in, which nobody
/// would miss.
fn hides_a_number(cells: &StringRecord, delimiter: char, region: Region) -> bool {
    let later_lines = cells.iter().flat_map(|cell| cell.lines().skip(1));
    let mut parts = later_lines.flat_map(|line| line.split(delimiter));
    parts.any(|part| PhoneNumber::parse(unmarked(part.trim().trim_matches('"')), region).is_some())
}

/// The line of a record, whose position is before the empty lines that were skipped.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    let skipped = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let empty_lines = skipped.filter(|byte| **byte == b'\n').count();
    position.line() + u64::try_from(empty_lines).unwrap_or(0)
}

/// Reads one line; else what stands for its number, masked, and what is wrong.
fn read_line(
    cells: &StringRecord,
    columns: &[String],
    region: Region,
    now: Timestamp,
) -> Result<NewOptOut, (String, String)> {
    let cell = |name: &str| {
        let place = columns.iter().position(|column| column == name)?;
        cells.get(place).map(unmarked).filter(|cell| !cell.is_empty())
    };
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
