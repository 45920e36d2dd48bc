//! Tables, lists and times for people. Absent: what programs get (`--json`).

use crate::{
    app::{Admin, Answer},
    domain::text::clean_line,
};
use comfy_table::{ColumnConstraint, ContentArrangement, presets::NOTHING};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

/// Longer texts of a helpdesk are cut.
const MAX_CELL: usize = 200;
/// The longest page that the admin API gives.
const PAGE: usize = 200;

/// A table under these titles. In a terminal, what is too wide is broken within its column, but never the first column:
/// what stands there is copied.
pub fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(NOTHING)
        .set_header(titles.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| clean_line(cell, MAX_CELL)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((terminal_size::Width(width), _)) => {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        None => drop(table.set_content_arrangement(ContentArrangement::Disabled)),
    }
    table.trim_fmt() + "\n"
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

    #[test]
    fn a_table_has_its_titles_and_no_control_characters() {
        let shown = table(
            &["id", "name"],
            [
                vec!["1".to_owned(), "Grace \u{1b}[31mHopper".to_owned()],
                vec!["22".to_owned(), String::new()],
            ],
        );

        assert_eq!(shown, "ID  NAME\n1   Grace [31mHopper\n22\n");
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
