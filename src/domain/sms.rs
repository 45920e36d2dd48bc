//! What a text costs on the air: its encoding, units and segments (3GPP TS 23.038 and 23.040). Absent: how the text
//! is made (see `message`) and Twilio's smart encoding.

use serde::Serialize;

/// How the phone network carries a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Encoding {
    /// 7 bits a character; possible when every character is in the GSM alphabet.
    #[serde(rename = "GSM-7")]
    Gsm7,
    /// 16 bits a UTF-16 unit; for everything else.
    #[serde(rename = "UCS-2")]
    Ucs2,
}

/// What a text costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    pub encoding: Encoding,
    /// Septets in GSM-7 (an extension character is two), UTF-16 units in UCS-2.
    pub units: usize,
    /// How many messages the network charges for.
    pub segments: usize,
}

/// The GSM 7-bit default alphabet, without the escape (3GPP TS 23.038, 6.2.1).
const GSM_BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Its extension table: each of these costs an escape as well (3GPP TS 23.038, 6.2.1.1).
const GSM_EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// What one character costs in GSM-7, or `None` if it is not in the alphabet.
pub fn gsm_septets(c: char) -> Option<usize> {
    if c.is_ascii_alphanumeric() || c == ' ' || GSM_BASIC.contains(c) {
        Some(1)
    } else if GSM_EXTENSION.contains(c) {
        Some(2)
    } else {
        None
    }
}

/// Counts a text exactly as it is.
pub fn measure(text: &str) -> Size {
    let septets: Option<usize> = text.chars().map(gsm_septets).sum();
    match septets {
        // 160 septets in one message, else 153 beside the six-octet header (3GPP TS 23.040, 9.2.3.24.1).
        Some(units) => Size {
            encoding: Encoding::Gsm7,
            units,
            segments: split(text, units, 160, 153, |c| gsm_septets(c).unwrap_or(1)),
        },
        None => {
            let units = text.chars().map(char::len_utf16).sum();
            Size {
                encoding: Encoding::Ucs2,
                units,
                segments: split(text, units, 70, 67, char::len_utf16),
            }
        }
    }
}

/// Fills parts of `part` units; an escape pair or a surrogate pair is never torn.
fn split(text: &str, units: usize, single: usize, part: usize, cost: impl Fn(char) -> usize) -> usize {
    if units <= single {
        return 1;
    }
    let (mut parts, mut used) = (1, 0);
    for cost in text.chars().map(cost) {
        if used + cost > part {
            parts += 1;
            used = 0;
        }
        used += cost;
    }
    parts
}

/// The nearest text in the GSM alphabet: letters it has stay (`ä`, `ñ`), others are transliterated, emoji and other
/// pictures go. Fewer segments, at the price of how it looks.
pub fn to_gsm(text: &str) -> String {
    let mut gsm = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if gsm_septets(c).is_some() => gsm.push(c),
            '`' | '´' => gsm.push('\''),
            _ if is_picture(c) => {}
            _ => gsm.extend(
                deunicode::deunicode_char(c)
                    .unwrap_or("?")
                    .chars()
                    .filter(|c| gsm_septets(*c).is_some()),
            ),
        }
    }
    gsm.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// Emoji, dingbats, arrows and the joiners between them: `deunicode` would spell out their names.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200D}' | '\u{20E3}' | '\u{2190}'..='\u{21FF}' | '\u{2300}'..='\u{2BFF}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{1F000}'..='\u{1FAFF}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_is_counted_as_twilios_calculator_counts_it() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/data/segments.json")).unwrap();
        let mut counted = 0;

        for vector in vectors.iter().filter(|vector| vector["smart_encoding"] == false) {
            let size = measure(vector["text"].as_str().unwrap());
            assert_eq!(
                serde_json::to_value(size.encoding).unwrap(),
                vector["encoding"],
                "{vector}"
            );
            assert_eq!(size.units, vector["units"], "{vector}");
            assert_eq!(size.segments, vector["segments"], "{vector}");
            counted += 1;
        }

        assert_eq!(counted, 36);
    }

    #[test]
    fn transliteration_keeps_what_gsm_has_and_drops_pictures() {
        assert_eq!(
            to_gsm("🚨 CRITICAL\nSjálfvirkt “kerfi” – bilað… ä€"),
            "CRITICAL\nSjalfvirkt \"kerfi\" - bilad... ä€"
        );
        assert_eq!(measure(&to_gsm("Ἀθῆναι 東京 ❤️ ½")).encoding, Encoding::Gsm7);
    }
}
