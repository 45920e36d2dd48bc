//! What a text means that a person sent us. A word counts only where it is all that the message says, case, punctuation,
//! spaces and emoji aside: `Stop the printer` is a reply. Absent: what is done about it (see `store::inbound`).

use std::collections::BTreeMap;

/// What everybody may write, whatever the provider or the language (CTIA's messaging principles, and Twilio's own lists).
const STOP: &[&str] = &[
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "OPTOUT",
    "REVOKE",
];
const START: &[&str] = &["START", "YES", "UNSTOP"];
const HELP: &[&str] = &["HELP", "INFO"];
const ACKNOWLEDGE: &[&str] = &["ACK", "OK", "1"];
const THUMB: char = '👍';

/// What a person wants, as a keyword says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keyword {
    Stop,
    Start,
    Help,
}

/// What a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    Keyword(Keyword),
    /// The person takes care of it; `code` says of which alert, in capital letters.
    Acknowledge {
        code: Option<String>,
    },
    /// The same if this is a code of theirs, in capital letters; else it is a text.
    PerhapsCode(String),
    Text,
}

/// The words, those of the configuration among them.
#[derive(Clone, Debug)]
pub struct Keywords {
    /// In the form that [`fold`] makes.
    words: BTreeMap<String, Keyword>,
}

impl Default for Keywords {
    fn default() -> Self {
        let all = [(STOP, Keyword::Stop), (START, Keyword::Start), (HELP, Keyword::Help)];
        let words = all
            .into_iter()
            .flat_map(|(words, keyword)| words.iter().map(move |word| ((*word).to_owned(), keyword)));
        Self { words: words.collect() }
    }
}

impl Keywords {
    /// Adds a word of the configuration. Fails with what is wrong with it, which reads on after the word.
    pub fn add(&mut self, word: &str, keyword: Keyword) -> Result<(), &'static str> {
        let folded = fold(word);
        if folded.is_empty() {
            return Err("has neither a letter nor a digit: remove it");
        }
        match self.words.insert(folded.clone(), keyword) {
            Some(known) if known != keyword => {
                self.words.insert(folded, known);
                Err("means something else already, in another list or by itself: take it out of one of them")
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What a text means. `named`: what the provider says that it is, which wins.
    pub fn meaning(&self, text: &str, named: Option<Keyword>) -> Meaning {
        if let Some(keyword) = named {
            return Meaning::Keyword(keyword);
        }
        let words: Vec<String> = words_of(text).collect();
        let whole = words.concat();
        let repeated = words.first().filter(|first| words.iter().all(|word| word == *first));
        let keyword = |word: &String| self.words.get(word).copied();
        if let Some(keyword) = keyword(&whole).or_else(|| repeated.and_then(keyword)) {
            return Meaning::Keyword(keyword);
        }
        let has_thumb = text.contains(THUMB);
        let acknowledges = |word: &String| ACKNOWLEDGE.contains(&word.as_str());
        let with = |code: Option<&String>| Meaning::Acknowledge { code: code.cloned() };
        match words.as_slice() {
            [] if has_thumb && is_only_thumbs(text) => with(None),
            [] => Meaning::Text,
            all if acknowledges(&whole) || all.iter().all(acknowledges) => with(None),
            [word] if has_thumb && is_code(word) => with(Some(word)),
            [word] if is_code(word) => Meaning::PerhapsCode(word.clone()),
            [first, code] if acknowledges(first) && is_code(code) => with(Some(code)),
            _ => Meaning::Text,
        }
    }
}

/// Whether a text asks for help by a word that providers answer by themselves, where they do that.
pub fn is_usual_help(text: &str) -> bool {
    HELP.contains(&fold(text).as_str())
}

fn is_code(word: &str) -> bool {
    word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether there is no other picture: of any skin colour, as a text or as a picture.
fn is_only_thumbs(text: &str) -> bool {
    let is_beside = |c: char| c.is_whitespace() || c.is_ascii_punctuation();
    text.chars()
        .filter(|c| !is_beside(*c))
        .all(|c| matches!(c, THUMB | '\u{1F3FB}'..='\u{1F3FF}' | '\u{FE0E}' | '\u{FE0F}'))
}

/// The words of a text, in capital letters and without accents.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let is_mark = |c: char| matches!(c, '\u{300}'..='\u{36F}' | '\u{20E3}' | '\u{FE0E}' | '\u{FE0F}');
    text.split(move |c: char| !c.is_alphanumeric() && !is_mark(c))
        .map(move |word| {
            word.chars()
                .filter(|c| !is_mark(*c))
                .map(fold_letter)
                .collect::<String>()
        })
        .filter(|word| !word.is_empty())
}

/// A text as keywords are compared: its letters and digits only, in capitals; Latin ones without accents.
fn fold(text: &str) -> String {
    words_of(text).collect()
}

/// Only Latin letters lose their accents: in other scripts the nearest Latin text would be another word.
fn fold_letter(c: char) -> String {
    let plain = match c {
        '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}' => deunicode::deunicode_char(c).unwrap_or_default().to_owned(),
        // Full-width letters and digits, as Japanese keyboards write them.
        '\u{FF10}'..='\u{FF19}' | '\u{FF21}'..='\u{FF3A}' | '\u{FF41}'..='\u{FF5A}' => {
            char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c).to_string()
        }
        _ => c.to_string(),
    };
    plain.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str) -> Meaning {
        Keywords::default().meaning(text, None)
    }

    fn acknowledge(code: Option<&str>) -> Meaning {
        Meaning::Acknowledge {
            code: code.map(str::to_owned),
        }
    }

    /// In both cases, and with what people put around a word.
    fn writings(word: &str) -> Vec<String> {
        let (lower, upper) = (word.to_lowercase(), word.to_uppercase());
        let title = upper[..1].to_owned() + &lower[1..];
        let around = [
            "{}",
            " {} ",
            "{}.",
            "{}!!!",
            "\n{}\r\n",
            "\"{}\"",
            "«{}»",
            "{} 🙏",
            "🛑{}🛑",
            "{}🙏🏽",
            "...{}…",
            "\u{a0}{}\u{200b}",
            "¡{}!",
            "({})",
            "{}❤️",
        ];
        let cases = [lower, upper, title];
        cases
            .iter()
            .flat_map(|word| around.iter().map(move |around| around.replace("{}", word)))
            .collect()
    }

    #[test]
    fn every_keyword_counts_in_both_cases_with_spaces_dots_and_emoji_around() {
        for (words, keyword) in [(STOP, Keyword::Stop), (START, Keyword::Start), (HELP, Keyword::Help)] {
            for text in words.iter().flat_map(|word| writings(word)) {
                assert_eq!(meaning(&text), Meaning::Keyword(keyword), "{text:?}");
            }
        }
        for text in ACKNOWLEDGE.iter().flat_map(|word| writings(word)) {
            assert_eq!(meaning(&text), acknowledge(None), "{text:?}");
        }
    }

    #[test]
    fn a_keyword_may_be_written_in_parts_and_more_than_once() {
        for text in [
            "S.T.O.P.",
            "opt-out",
            "Opt out",
            "stop all",
            "STOP STOP stop!",
            "un-subscribe",
        ] {
            assert_eq!(meaning(text), Meaning::Keyword(Keyword::Stop), "{text:?}");
        }
        assert_eq!(meaning("o.k."), acknowledge(None));
    }

    #[test]
    fn a_message_that_says_more_than_the_word_is_a_text() {
        for text in [
            "Stop the printer",
            "please stop",
            "STOP PLEASE",
            "stop 1",
            "don't stop",
            "yes, on my way",
            "help me",
            "end of shift",
            "stopp",
            "nonstop",
            "",
            "   ",
            "🔥",
            "👍🔥",
            "?",
            "ok, will do",
            "СТОП",
        ] {
            assert_eq!(meaning(text), Meaning::Text, "{text:?}");
        }
    }

    #[test]
    fn a_thumb_of_any_skin_tone_acknowledges() {
        for text in [
            "👍",
            "👍🏻",
            "👍🏼",
            "👍🏽",
            "👍🏾",
            "👍🏿",
            "👍👍",
            " 👍! ",
            "👍\u{fe0f}",
            "OK 👍",
            "1️⃣",
            "ok ok",
        ] {
            assert_eq!(meaning(text), acknowledge(None), "{text:?}");
        }
        assert_eq!(meaning("Stop 👍"), Meaning::Keyword(Keyword::Stop));
    }

    #[test]
    fn a_code_is_read_beside_a_word_and_a_bare_one_may_be_one() {
        for text in [
            "ACK K7P",
            "ack k7p",
            "Ok, k7p!",
            "1 K7P",
            "👍 k7p",
            "k7p👍🏽",
            "ACK-K7P",
            "ACK: K7P.",
        ] {
            assert_eq!(meaning(text), acknowledge(Some("K7P")), "{text:?}");
        }
        for text in ["k7p", "K7P", " k7p. ", "K7P 🙏"] {
            assert_eq!(meaning(text), Meaning::PerhapsCode("K7P".into()), "{text:?}");
        }
        for text in ["K7PX", "K7 P", "ACK K7PX", "ACK K7P now", "КОД"] {
            assert_eq!(meaning(text), Meaning::Text, "{text:?}");
        }
    }

    #[test]
    fn words_of_the_configuration_are_compared_without_case_and_latin_ones_without_accents() {
        let mut words = Keywords::default();
        for word in ["STOPP", "Arrêt", "BAJA", "СТОП", "ne plus m'écrire"] {
            words.add(word, Keyword::Stop).unwrap();
        }
        words.add("hilfe", Keyword::Help).unwrap();
        words.add("ok", Keyword::Start).unwrap();
        words.add("stop", Keyword::Stop).unwrap();

        let stop = Meaning::Keyword(Keyword::Stop);
        for text in [
            "stopp",
            "Arret.",
            "ARRÊT",
            "arre\u{302}t",
            "baja!",
            "стоп",
            "ne plus m'ecrire",
            "ＳＴＯＰ",
        ] {
            assert_eq!(words.meaning(text, None), stop, "{text:?}");
        }
        assert_eq!(words.meaning("Hilfe!", None), Meaning::Keyword(Keyword::Help));
        assert_eq!(words.meaning("OK", None), Meaning::Keyword(Keyword::Start), "it wins");
        assert!(words.add("stopp", Keyword::Help).is_err(), "a word in two lists");
        assert!(words.add("Yes", Keyword::Stop).is_err(), "it has a meaning of its own");
        assert!(words.add("?!", Keyword::Stop).is_err());
        assert_eq!(words.meaning("stopp", None), stop, "as it was");
    }

    #[test]
    fn what_the_provider_says_wins() {
        let named = Keywords::default().meaning("Adieu!", Some(Keyword::Stop));

        assert_eq!(named, Meaning::Keyword(Keyword::Stop));
        assert!(is_usual_help("Help.") && !is_usual_help("HILFE"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = meaning(&text);
        }

        #[test]
        fn a_keyword_with_another_word_beside_it_never_opts_anybody_out(word in "[a-z]{4,12}", at in 0..8_usize) {
            let with = format!("{} {word}", STOP[at]);
            let is_same = STOP.contains(&fold(&with).as_str()) || word.to_uppercase() == STOP[at];
            proptest::prop_assert!(is_same || meaning(&with) == Meaning::Text, "{}", with);
        }
    }
}
