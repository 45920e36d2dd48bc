//! What a helpdesk's own words and numbers for urgency mean to Nightbell. Absent: where in an event they stand.

use std::fmt;

/// How urgent a ticket is, as Nightbell distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Critical,
    High,
    Normal,
    Low,
}

impl Level {
    pub const ALL: [(&'static str, Self); 4] = [
        ("critical", Self::Critical),
        ("high", Self::High),
        ("normal", Self::Normal),
        ("low", Self::Low),
    ];

    /// Reads one of Nightbell's own words.
    pub fn parse(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, level)| *level)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Which of a helpdesk's words or numbers an entry of the table is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// A word or a number as it stands, compared without case and surrounding space.
    Word(String),
    /// All numbers within bounds, both included.
    Range { from: f64, to: f64 },
}

impl Matcher {
    /// Reads a word, or a range: `>= 80`, `> 79`, `<= 20`, `< 21`, `50..79`. A comparison without a number is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        // Bounds that leave their own number out go to the next number that there is.
        type Bounds = fn(f64) -> (f64, f64);
        let comparisons: [(&str, Bounds); 4] = [
            (">=", |number| (number, f64::INFINITY)),
            ("<=", |number| (f64::NEG_INFINITY, number)),
            (">", |number| (number.next_up(), f64::INFINITY)),
            ("<", |number| (f64::NEG_INFINITY, number.next_down())),
        ];
        for (sign, bounds) in comparisons {
            if let Some(rest) = text.strip_prefix(sign) {
                let (from, to) = bounds(number(rest)?);
                return Some(Self::Range { from, to });
            }
        }
        if let Some((from, to)) = text.split_once("..")
            && let (Some(from), Some(to)) = (number(from), number(to))
        {
            return (from <= to).then_some(Self::Range { from, to });
        }
        (!text.is_empty()).then(|| Self::Word(normal(text)))
    }

    fn matches(&self, raw: &str) -> bool {
        match self {
            Self::Word(word) => *word == normal(raw),
            Self::Range { from, to } => raw
                .trim()
                .parse::<f64>()
                .is_ok_and(|number| (*from..=*to).contains(&number)),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => out.write_str(word),
            Self::Range { from, to } if to.is_infinite() => write!(out, ">= {from}"),
            Self::Range { from, to } if from.is_infinite() => write!(out, "<= {to}"),
            Self::Range { from, to } => write!(out, "{from}..{to}"),
        }
    }
}

fn normal(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The table of a source: its own words and numbers, and what they mean. A word goes before a range; Nightbell's own words
/// are known where the table does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Urgencies(Vec<(Matcher, Level)>);

impl Urgencies {
    /// Adds an entry; what was there for the same word or range goes.
    pub fn set(&mut self, matcher: Matcher, level: Level) {
        self.0.retain(|(known, _)| *known != matcher);
        self.0.push((matcher, level));
    }

    /// What a helpdesk's own word or number means; `None` if nobody has said.
    pub fn level(&self, raw: &str) -> Option<Level> {
        let find = |is_word: bool| {
            let same_kind = |matcher: &Matcher| matches!(matcher, Matcher::Word(_)) == is_word;
            let mut entries = self.0.iter();
            entries.find(|(matcher, _)| same_kind(matcher) && matcher.matches(raw))
        };
        let entry = find(true).or_else(|| find(false));
        entry.map_or_else(|| Level::parse(raw.trim()), |(_, level)| Some(*level))
    }

    /// What counts as critical, for the question that a helpdesk is asked.
    pub fn critical(&self) -> impl Iterator<Item = &Matcher> {
        let critical = self.0.iter().filter(|(_, level)| *level == Level::Critical);
        critical.map(|(matcher, _)| matcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, Level)]) -> Urgencies {
        let mut table = Urgencies::default();
        for (text, level) in entries {
            table.set(Matcher::parse(text).unwrap(), *level);
        }
        table
    }

    #[test]
    fn words_are_compared_without_case_and_numbers_as_numbers_or_words() {
        let table = table(&[
            ("3 High", Level::Critical),
            ("1", Level::Critical),
            (">= 80", Level::High),
            ("50..79", Level::Normal),
            ("< 50", Level::Low),
        ]);

        for (raw, level) in [
            ("3 high", Some(Level::Critical)),
            (" 3 HIGH ", Some(Level::Critical)),
            ("1", Some(Level::Critical)),
            ("80", Some(Level::High)),
            ("100", Some(Level::High)),
            ("79", Some(Level::Normal)),
            ("50", Some(Level::Normal)),
            ("49.5", Some(Level::Low)),
            ("2", Some(Level::Low)),
            ("critical", Some(Level::Critical)),
            ("sev1", None),
            ("", None),
        ] {
            assert_eq!(table.level(raw), level, "{raw}");
        }
    }

    #[test]
    fn a_later_entry_for_the_same_word_wins() {
        let table = table(&[
            ("urgent", Level::High),
            ("Urgent", Level::Critical),
            ("critical", Level::Low),
        ]);

        assert_eq!(table.level("URGENT"), Some(Level::Critical));
        assert_eq!(table.level("critical"), Some(Level::Low));
        assert_eq!(
            table.critical().map(ToString::to_string).collect::<Vec<_>>(),
            ["urgent"]
        );
    }

    #[test]
    fn a_comparison_without_a_number_is_no_entry() {
        for text in [">=", ">= high", "<", "", "  ", "9..1"] {
            assert_eq!(Matcher::parse(text), None, "{text}");
        }
        assert_eq!(Matcher::parse("a..b"), Some(Matcher::Word("a..b".into())));
    }
}
