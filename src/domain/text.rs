//! Cleans text that came from outside, before it is stored or sent. Absent: what an SMS looks like (see `message`).

use unicode_segmentation::UnicodeSegmentation;

/// Whether a character changes the direction of the text around it and so can make one text look like another.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// One line of clean text: control characters and bidirectional overrides are gone (PostgreSQL refuses NUL), line breaks
/// and runs of blanks are one blank, and at most `max` characters are kept, whole graphemes only.
pub fn clean_line(raw: &str, max: usize) -> String {
    let mut clean = String::with_capacity(raw.len().min(4_096));
    let mut pending_blank = false;
    for c in raw.chars() {
        if c.is_whitespace() {
            pending_blank = !clean.is_empty();
        } else if !c.is_control() && !is_bidi_control(c) {
            if pending_blank {
                clean.push(' ');
                pending_blank = false;
            }
            clean.push(c);
        }
    }
    truncate(&mut clean, max);
    clean
}

/// Cuts `text` after at most `max` characters (Unicode scalar values), never inside a grapheme.
pub fn truncate(text: &mut String, max: usize) {
    if text.len() <= max || text.chars().count() <= max {
        return;
    }
    let mut chars = 0;
    let mut end = 0;
    for (start, grapheme) in text.grapheme_indices(true) {
        chars += grapheme.chars().count();
        if chars > max {
            break;
        }
        end = start + grapheme.len();
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_overrides_go_and_blanks_fold() {
        assert_eq!(
            clean_line(" Prin\0ter \u{202E}on\r\n\tfire\u{7f} ", 100),
            "Printer on fire"
        );
    }

    #[test]
    fn a_cut_keeps_graphemes_whole() {
        let mut text = "ab👨‍👩‍👧‍👦".to_owned();
        truncate(&mut text, 5);

        assert_eq!(text, "ab");
    }
}
