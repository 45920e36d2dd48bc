//! What is made of texts that people send us: words beside the usual ones, and whether we answer.

use super::reader::Reader;
use crate::domain::{
    inbound::HelpAnswers,
    reply::{Keyword, Keywords},
};

/// What is made of texts that people send us.
pub struct Inbound {
    pub keywords: Keywords,
    pub help: HelpAnswers,
}

impl Inbound {
    pub fn read(reader: &mut Reader) -> Self {
        let mut keywords = Keywords::default();
        for (key, keyword) in [
            ("inbound.stop_words", Keyword::Stop),
            ("inbound.start_words", Keyword::Start),
            ("inbound.help_words", Keyword::Help),
        ] {
            for word in reader.list(key, "a word", |word| Some(word.to_owned())) {
                if let Err(problem) = keywords.add(&word, keyword) {
                    reader.fault_secret(key, &format!("has the word `{word}`, which {problem}"));
                }
            }
        }
        Self {
            keywords,
            help: reader.choice(
                "inbound.answers",
                "auto",
                &[
                    ("auto", HelpAnswers::Auto),
                    ("always", HelpAnswers::Always),
                    ("never", HelpAnswers::Never),
                ],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reply::Meaning;

    #[test]
    fn words_are_added_to_the_usual_ones() {
        let mut reader = Reader::with(&[
            ("INBOUND__STOP_WORDS", "STOPP, Arrêt"),
            ("INBOUND__HELP_WORDS", "Hilfe"),
            ("INBOUND__ANSWERS", "never"),
        ]);

        let inbound = Inbound::read(&mut reader);

        for word in ["stopp", "arret", "stop"] {
            assert_eq!(inbound.keywords.meaning(word, None), Meaning::Keyword(Keyword::Stop));
        }
        assert_eq!(inbound.help, HelpAnswers::Never);
        assert_eq!(reader.fault_keys(), [""; 0]);
    }

    #[test]
    fn a_word_with_two_meanings_and_one_without_letters_are_faults() {
        let mut reader = Reader::with(&[
            ("INBOUND__STOP_WORDS", "STOPP, !!"),
            ("INBOUND__START_WORDS", "stopp"),
            ("INBOUND__HELP_WORDS", "Yes"),
        ]);

        Inbound::read(&mut reader);

        assert_eq!(
            reader.fault_keys(),
            ["inbound.stop_words", "inbound.start_words", "inbound.help_words"]
        );
    }
}
