//! Lists as CSV files, as spreadsheets save and read them: out as a stream, in line by line. Absent: what the columns mean
//! (see `opt_out_files`, `staff_files`).

use crate::{
    domain::{
        phone::{PhoneNumber, Region},
        spreadsheet::{MARK, harmless, unmarked},
    },
    http::error::{Kind, Problem},
    store::StoreError,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use csv::{ReaderBuilder, StringRecord, Trim};
use futures::{StreamExt, stream};

/// So many are read or written at once, so that others get their turn.
pub const AT_ONCE: usize = 1_000;

/// The same, as lists take it.
pub fn at_once() -> i64 {
    i64::try_from(AT_ONCE).unwrap_or(i64::MAX)
}

/// Lines of a file to be written, and after which of them the next begin, if there are more.
pub type Lines = (Vec<Vec<String>>, Option<String>);

/// Answers with a file of this name: no cell is a formula, and it can be read again. `lines` gives those after a place; an
/// error in the middle breaks the answer off, so that nobody takes a part for the whole.
pub async fn export<F, Answer>(name: &str, columns: &[&str], lines: F) -> Result<Response, Problem>
where
    F: Fn(Option<String>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Lines, StoreError>> + Send + 'static,
{
    let head = format!("{MARK}{}\r\n", columns.join(","));
    // Asked for before the answer begins, so that a database that is out is said so.
    let (first, after) = lines(None).await?;
    let others = stream::try_unfold((after, lines), |(after, lines)| async move {
        let Some(after) = after else { return Ok(None) };
        let (next, after) = lines(Some(after)).await?;
        Ok::<_, StoreError>(Some((write(next), (after, lines))))
    });
    let text = stream::iter([Ok(Bytes::from(head)), Ok(write(first))]).chain(others);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from_stream(text)).into_response())
}

fn write(lines: Vec<Vec<String>>) -> Bytes {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for cells in lines {
        let _ = writer.write_record(cells.iter().map(|cell| harmless(cell)));
    }
    writer.into_inner().unwrap_or_default().into()
}

/// Fails where a request brings something else.
pub fn expect_csv(headers: &HeaderMap) -> Result<(), Problem> {
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

/// The text of a file.
pub fn read_text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.iter().take(error.valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Problem::new(
            Kind::InvalidFile,
            format!("line {line} is not UTF-8, so nothing was read: save the file as \"CSV UTF-8\""),
        )
    })
}

/// How a file is laid out.
pub struct Layout<'a> {
    /// A first line with this name in it names the columns, in any order and with others beside them.
    pub key: &'a str,
    /// What stands in the columns of a file without such a line.
    pub unnamed: &'a [&'a str],
    /// By which numbers are read that bring no country of their own.
    pub region: Region,
}

/// A line of a file.
pub struct Line<'a> {
    /// From 1, as a text editor counts.
    pub number: u64,
    cells: &'a StringRecord,
    columns: &'a [String],
    /// Whether its cells cannot be relied on: a quote has taken whole lines in.
    pub hides_others: bool,
}

impl<'a> Line<'a> {
    /// What stands in a column; `None` if nothing does.
    pub fn cell(&self, name: &str) -> Option<&'a str> {
        let place = self.columns.iter().position(|column| column == name)?;
        self.cells.get(place).map(unmarked).filter(|cell| !cell.is_empty())
    }
}

/// Why a line is refused that hides others.
pub const HIDDEN: &str = "a quote that opens here is closed only in a later line, or never, and the numbers in between were not read: close it in the same line";

/// Hands every line that is not empty to `take`. Cells are separated by commas, semicolons or tabs, whichever the first line
/// has most. Returns whether the first line named the columns.
pub fn read_lines(text: &str, layout: &Layout<'_>, mut take: impl FnMut(&Line<'_>)) -> bool {
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
    let (mut cells, mut is_named) = (StringRecord::new(), false);
    // Of a text there is nothing that cannot be read.
    while reader.read_record(&mut cells).unwrap_or(false) {
        if cells.iter().all(str::is_empty) {
            continue;
        }
        let hides_others = hides_a_number(&cells, delimiter, layout.region);
        let names: Vec<String> = cells.iter().map(|cell| unmarked(cell).to_lowercase()).collect();
        if columns.is_none() && !hides_others && names.iter().any(|name| name == layout.key) {
            (columns, is_named) = (Some(names), true);
            continue;
        }
        let unnamed = || layout.unnamed.iter().map(|name| (*name).to_owned()).collect();
        // A line that cannot be relied on says nothing of the columns.
        let columns = match hides_others {
            true => columns.as_deref().unwrap_or_default(),
            false => columns.get_or_insert_with(unnamed),
        };
        take(&Line {
            number: cells.position().map_or(0, |position| line_of(text, position)),
            cells: &cells,
            columns,
            hides_others,
        });
    }
    is_named
}

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
