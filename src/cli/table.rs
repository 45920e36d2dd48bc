//! Tables, lists and times for people. Absent: what programs get (`--json`).

use crate::{
    app::{Admin, Answer},
    domain::text::clean_line,
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;
use textwrap::core::display_width;
use unicode_segmentation::UnicodeSegmentation;

/// Longer texts of a helpdesk are cut.
const MAX_CELL: usize = 200;
/// The longest page that the admin API gives.
const PAGE: usize = 200;

/// A table under these titles. In a terminal each row has one line, cut where the terminal ends, so what matters most stands
/// first; elsewhere nothing is cut.
pub fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    format_table(titles, rows, width)
}

fn format_table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>, width: Option<usize>) -> String {
    let titles = titles.iter().map(|title| title.to_uppercase()).collect();
    let clean = |row: Vec<String>| row.iter().map(|cell| clean_line(cell, MAX_CELL)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows.into_iter().map(clean)).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = display_width(cell).max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell}{}  ", " ".repeat(width - display_width(cell))));
        let line = padded.collect::<String>();
        cut(line.trim_end(), width) + "\n"
    };
    rows.iter().map(line).collect()
}

/// The beginning of a line that is as wide as this, with a mark where there is more.
fn cut(line: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| display_width(line) > *width) else {
        return line.to_owned();
    };
    let mut kept = String::new();
    for grapheme in line.graphemes(true) {
        if display_width(&kept) + display_width(grapheme) >= width {
            break;
        }
        kept += grapheme;
    }
    kept + "…"
}

/// A time in the configured time zone, to the minute, for lists.
pub fn minute(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%F %R %Z").to_string()
}

/// A time in the configured time zone, which it names.
pub fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%F %T %Z").to_string()
}

/// What there may be, or a dash.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// The first of a list, and whether there are more.
pub struct Listed {
    pub items: Vec<Value>,
    pub more: bool,
}

impl Listed {
    /// Asks for page after page until there are `limit`.
    pub async fn read(admin: &Admin, path: &[&str], query: &[(&str, &str)], limit: usize) -> anyhow::Result<Self> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let size = (limit - items.len()).min(PAGE).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &size));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let answer: Answer = admin.get(path, &query).await?.good()?;
            let mut page: Value = answer.read()?;
            if let Value::Array(read) = page["items"].take() {
                items.extend(read);
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() || items.len() >= limit {
                let more = cursor.is_some();
                return Ok(Self { items, more });
            }
        }
    }

    /// What `--json` prints.
    pub fn document(&self) -> Value {
        serde_json::json!({"items": self.items, "more": self.more})
    }

    /// What is said below a table: that it is not all, or that there is nothing.
    pub fn remark(&self, nothing: &str) -> String {
        match (self.items.is_empty(), self.more) {
            (true, _) => format!("{nothing}\n"),
            (false, true) => format!(
                "\nThere are more: ask for them with `--limit {}`.\n",
                self.items.len() * 10
            ),
            (false, false) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Vec<String>; 2] {
        [["1", "Grace \u{1b}[31mHopper", "x"], ["22", "\u{4f60}\u{597d}", ""]]
            .map(|row| row.map(str::to_owned).to_vec())
    }

    #[test]
    fn columns_are_aligned_by_what_is_seen_and_no_control_character_is_left() {
        assert_eq!(
            format_table(&["id", "name", "more"], rows(), None),
            "ID  NAME              MORE\n1   Grace [31mHopper  x\n22  \u{4f60}\u{597d}\n"
        );
    }

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(
            format_table(&["id", "name", "more"], rows(), Some(8)),
            "ID  NAM…\n1   Gra…\n22  \u{4f60}\u{597d}\n"
        );
        assert_eq!(cut("\u{4f60}\u{597d}", Some(3)), "\u{4f60}…");
    }

    #[test]
    fn a_time_names_its_zone_on_both_sides_of_a_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();

        assert_eq!(
            local("2026-10-25T00:30:00Z".parse().unwrap(), &zone),
            "2026-10-25 02:30:00 CEST"
        );
        assert_eq!(
            local("2026-10-25T01:30:00Z".parse().unwrap(), &zone),
            "2026-10-25 02:30:00 CET"
        );
    }
}
