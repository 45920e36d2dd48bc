//! Phone numbers: read once at the door to E.164, masked whenever they are shown. Absent: whether a number may be
//! texted (opt-outs live in the store).

use phonenumber::{Type, country};
use std::fmt;

/// The kinds of number that a person may have. Not companies' access numbers: Canada's have seven digits, and would
/// make every local number of +1 look whole.
const KINDS: [Type; 9] = [
    Type::Mobile,
    Type::FixedLine,
    Type::TollFree,
    Type::PremiumRate,
    Type::SharedCost,
    Type::PersonalNumber,
    Type::Voip,
    Type::Pager,
    Type::Voicemail,
];

/// The country whose rules read a number written without a country code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Region(country::Id);

impl Region {
    /// The United States: the region where none is configured.
    pub fn us() -> Self {
        Self(country::US)
    }

    /// Reads an ISO 3166-1 alpha-2 code such as `US`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().to_ascii_uppercase().parse().ok().map(Self)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.as_ref())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A phone number in E.164 (`+14155550101`). `Display` and `Debug` mask it, so it cannot slip into a log; use
/// [`PhoneNumber::as_e164`] where the number itself is meant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads a number by libphonenumber's rules, `region` standing in for a missing country code. A number of a
    /// possible length passes even if the metadata does not know it; `None` means that nobody can be texted there.
    pub fn parse(raw: &str, region: Region) -> Option<Self> {
        let raw = raw.trim();
        // With a region given, the crate would strip that region's trunk prefix even from `+49…`.
        let is_international = raw.starts_with(['+', '\u{FF0B}']);
        let number = phonenumber::parse((!is_international).then_some(region.0), raw).ok()?;

        let national = number.national().to_string();
        let length = u16::try_from(national.len()).ok()?;
        // All regions of the code: the crate itself names none for a number that it does not know. And all kinds of
        // number, since its general description holds no lengths.
        let regions = phonenumber::metadata::DATABASE.by_code(&number.code().value())?;
        let is_possible = regions.iter().any(|region| {
            let kinds = KINDS.iter().filter_map(|kind| region.descriptors().get(*kind));
            kinds.into_iter().any(|kind| kind.possible_length().contains(&length))
        });
        // E.164 has at most 15 digits with the country code (ITU-T E.164, 6.1).
        let e164 = format!("+{}{national}", number.code().value());
        (is_possible && e164.len() <= 16).then_some(Self(e164))
    }

    /// Takes back a number that this type wrote to the database.
    pub fn from_stored(e164: String) -> Self {
        Self(e164)
    }

    /// The number itself, `+` and digits only.
    pub fn as_e164(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&mask(&self.0))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Hides the middle of a number: `+14155550101` becomes `+1415****101`. Short ones keep less.
pub fn mask(number: &str) -> String {
    let chars: Vec<char> = number.chars().collect();
    let (head, tail) = match chars.len() {
        11.. => (5, 3),
        7..=10 => (3, 2),
        _ => (0, 0),
    };
    let text = |part: &[char]| part.iter().collect::<String>();
    format!("{}****{}", text(&chars[..head]), text(&chars[chars.len() - tail..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e164(raw: &str, region: &str) -> Option<String> {
        PhoneNumber::parse(raw, Region::parse(region).unwrap()).map(|number| number.as_e164().to_owned())
    }

    #[test]
    fn one_person_written_three_ways_is_one_number() {
        for raw in [
            "+14155550101",
            "(415) 555-0101",
            "1 415 555 0101",
            "+1 (415) 555-0101",
            "tel:+1-415-555-0101",
            "001 415 555 0101",
        ] {
            let region = if raw.starts_with("00") { "DE" } else { "US" };
            assert_eq!(e164(raw, region).as_deref(), Some("+14155550101"), "{raw}");
        }
    }

    #[test]
    fn a_national_number_is_read_by_its_region() {
        assert_eq!(e164("030 1234567", "DE").as_deref(), Some("+49301234567"));
        assert_eq!(e164("07911 123456", "GB").as_deref(), Some("+447911123456"));
        assert_eq!(e164("+49 30 1234567", "US").as_deref(), Some("+49301234567"));
        assert_eq!(
            e164("02 1234 5678", "IT").as_deref(),
            Some("+390212345678"),
            "Italy keeps its leading zero"
        );
    }

    #[test]
    fn what_cannot_be_texted_is_refused() {
        for raw in [
            "abc",
            "",
            "   ",
            "12",
            "555-0101",
            "+1",
            "+999123456789",
            "+141555501011234567",
            "++",
            "🚨",
            "415555010",
        ] {
            assert_eq!(e164(raw, "US"), None, "{raw}");
        }
    }

    #[test]
    fn a_number_is_masked_wherever_it_is_printed() {
        let number = PhoneNumber::from_stored("+14155550101".into());

        assert_eq!(format!("{number} {number:?}"), "+1415****101 +1415****101");
        assert_eq!(mask("+4930123"), "+49****23");
        assert_eq!(mask("12345"), "****");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(raw in "\\PC{0,40}") {
            let _ = e164(&raw, "US");
        }

        #[test]
        fn reading_what_was_written_changes_nothing(digits in "[2-9][0-9]{2}[2-9][0-9]{6}") {
            if let Some(number) = e164(&digits, "US") {
                let again = e164(&number, "DE");
                proptest::prop_assert_eq!(again, Some(number));
            }
        }
    }
}
