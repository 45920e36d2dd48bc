//! Cleans text that came from outside, before it is stored or sent. Absent: what an SMS looks like (see `message`).

use unicode_segmentation::UnicodeSegmentation;

/// Changes the direction of the text around it, and so can make one text look like another.
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
    clean.truncate(truncate(&clean, max).len());
    clean
}

/// Clean text of several lines: each as [`clean_line`] makes it, without a limit; none of them blank.
pub fn clean_text(raw: &str) -> String {
    let lines = raw.lines().map(|line| clean_line(line, usize::MAX));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The beginning of `text`, at most `max` characters (Unicode scalar values), never cut inside a grapheme.
pub fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut chars = 0;
    let too_long = text.grapheme_indices(true).find(|(_, grapheme)| {
        chars += grapheme.chars().count();
        chars > max
    });
    too_long.map_or(text, |(start, _)| &text[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_overrides_go_and_blanks_fold() {
        let raw = " Prin\0ter \u{202E}on\r\n\tfire\u{7f} ";
        assert_eq!(clean_line(raw, 100), "Printer on fire");
    }

    #[test]
    fn a_text_of_several_lines_keeps_them() {
        assert_eq!(
            clean_text("\u{0}\n Server \t down\r\n\nCall \u{202E}Bo\n"),
            "Server down\nCall Bo"
        );
    }

    #[test]
    fn a_cut_keeps_graphemes_whole() {
        assert_eq!(truncate("ab👨‍👩‍👧‍👦", 5), "ab");
    }
}
