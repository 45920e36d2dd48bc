//! CSV as spreadsheets read it: cells that are no formulas, and the mark of UTF-8. Absent: rows and columns.

/// Says that a file is UTF-8, so that Excel reads it too.
pub const MARK: &str = "\u{FEFF}";

/// A cell that no spreadsheet takes for a formula (owasp.org, "CSV Injection"): subjects come from anybody. Some trim
/// blanks and quotes first, and one that expects other separators (a German Excel: `;`) begins a new cell behind each.
pub fn harmless(text: &str) -> String {
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

/// What a cell said before [`harmless`] wrote it, as far as its beginning goes.
pub fn unmarked(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if harmless(rest) == cell => rest,
        Some(_) | None => cell,
    }
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
            if !text.contains([';', '\t', '\n']) {
                assert_eq!(unmarked(cell), text);
            }
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
            assert_eq!((harmless(text).as_str(), unmarked(text)), (text, text));
        }
    }
}
