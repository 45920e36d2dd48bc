//! The attachment of a report: every bad outcome and every opt-out to check, for a spreadsheet. Absent: the mail that it
//! goes with (see `render`).

use crate::domain::{
    delivery::Reason,
    report::{DoubtfulOptOut, Report},
};
use jiff::{Timestamp, tz::TimeZone};

const COLUMNS: &str = "ticket,source,subject,url,person,role,phone,state,reason,code,at,nobody_told,meaning,to_do,\
                       delivery_id,alert_id,staff_id";

/// The attachment's text: UTF-8 with its mark, so that Excel reads it too.
pub fn write(report: &Report, zone: &TimeZone) -> String {
    let mut writer = csv::Writer::from_writer(vec![0xEF, 0xBB, 0xBF]);
    let _ = writer.write_record(COLUMNS.split(','));
    let mut write = |cells: [&str; 17]| {
        let _ = writer.write_record(cells.map(harmless));
    };
    let time = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    for row in &report.rows {
        write([
            row.ticket.number.as_deref().unwrap_or(&row.ticket.id),
            &row.ticket.source,
            row.ticket.subject.as_deref().unwrap_or_default(),
            row.ticket.url.as_deref().unwrap_or_default(),
            row.person.as_deref().unwrap_or_default(),
            row.role.as_deref().unwrap_or_default(),
            row.phone.as_deref().unwrap_or_default(),
            row.state.as_str(),
            row.reason.map_or("", Reason::as_str),
            &row.code.map(|code| code.to_string()).unwrap_or_default(),
            &time(row.at),
            if row.nobody_told { "yes" } else { "no" },
            &row.explanation.meaning,
            &row.explanation.advice,
            &row.delivery_id,
            &row.alert_id,
            "",
        ]);
    }
    let explanation = DoubtfulOptOut::explanation();
    for opt_out in &report.doubtful_opt_outs {
        let mut cells = [""; 17];
        let (since, staff_id) = (time(opt_out.since), opt_out.staff_id.as_deref());
        cells[6] = &opt_out.phone;
        cells[7] = "opt_out_to_check";
        cells[8] = opt_out.reason.as_deref().unwrap_or_default();
        cells[10] = &since;
        cells[12] = &explanation.meaning;
        cells[13] = &explanation.advice;
        cells[16] = staff_id.unwrap_or_default();
        write(cells);
    }
    writer
        .into_inner()
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default()
}

/// A cell that no spreadsheet takes for a formula (owasp.org, "CSV Injection"): subjects come from anybody. Some trim
/// blanks and quotes first, and one that expects other separators (a German Excel: `;`) begins a new cell behind each.
fn harmless(text: &str) -> String {
    let is_formula = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '﹦' | '﹢' | '﹣' | '﹫'
        )
    };
    let first = text.chars().find(|c| !is_trimmed(*c));
    let mut cell = String::with_capacity(text.len() + 1);
    if first.is_some_and(is_formula) || text.starts_with(['\t', '\r', '\n']) {
        cell.push('\'');
    }
    let mut begins = false;
    for c in text.chars() {
        if begins && is_formula(c) {
            cell.push('\'');
        }
        begins = matches!(c, ';' | '\t' | '\r' | '\n') || (begins && is_trimmed(c));
        cell.push(c);
    }
    cell
}

/// What may be trimmed before a spreadsheet reads a cell: blanks, quotes, what is not seen.
fn is_trimmed(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201F}' | '\u{00AD}' | '\u{061C}')
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (text, cell) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1415****101", "'+1415****101"),
            ("-1+1", "'-1+1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\t'=1"),
            ("\rx", "'\rx"),
            ("\nx", "'\nx"),
            ("＝1", "'＝1"),
            ("＋1", "'＋1"),
            ("－1", "'－1"),
            ("＠x", "'＠x"),
            ("  =1", "'  =1"),
            ("\"=1", "'\"=1"),
            ("'=1", "''=1"),
            ("\u{200B}\u{FEFF}=1", "'\u{200B}\u{FEFF}=1"),
            ("fire;=1+1", "fire;'=1+1"),
            ("fire\t @x", "fire\t '@x"),
            ("a line\n-2", "a line\n'-2"),
        ] {
            assert_eq!(harmless(text), cell, "{text:?}");
        }
    }

    #[test]
    fn a_cell_that_is_no_formula_stays_as_it_is() {
        for text in [
            "",
            "Printer on fire",
            "3 - 2 = 1",
            "a+b@example.com",
            "; later",
            "2026-11-20T13:00:00+01:00",
            "'quoted'",
        ] {
            assert_eq!(harmless(text), text);
        }
    }
}
