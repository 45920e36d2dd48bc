//! Phone numbers: read once, as they come in, to E.164, masked whenever they are shown. A number goes to the person it
//! names or to nobody: what can be read in two ways is not read. Absent: whether a number may be texted (opt-outs live in
//! the store).

mod plan;
mod written;

use phonenumber::country;
use plan::Number;
use std::fmt;
use written::Written;

/// Prefixes that mean abroad in so many countries that people write them in others too (`00` is the ITU's advice, `011`
/// North America's, `0011` Australia's), and Japan's, with which all of Korea's mobile numbers begin: there it is none.
const WELL_KNOWN_PREFIXES: [(&str, bool); 4] = [("00", true), ("011", true), ("0011", true), ("010", false)];

/// What to do about a text that is not a phone number.
pub const NO_PHONE: &str = "this is not one phone number: write it with `+`, country code and number, like `+14155550101`, and without an extension";

/// The country whose rules read a number written without a country code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region(Option<country::Id>);

impl Region {
    /// A region that nobody knows: only numbers that bring their country code can be read there.
    pub const UNKNOWN: Self = Self(None);

    /// Reads an ISO 3166-1 alpha-2 code such as `US`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().to_ascii_uppercase().parse().ok().map(|id| Self(Some(id)))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.as_ref().map_or("none", AsRef::as_ref))
    }
}

/// A phone number in E.164 (`+14155550101`). `Display` and `Debug` mask it, so it cannot slip into a log; use
/// [`PhoneNumber::as_e164`] where the number itself is meant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads a number by libphonenumber's rules, `region` standing in for a missing country code. A number of a possible
    /// length passes even if the metadata does not know it; `None` means that nobody can be texted there, or that nobody
    /// can tell who it is: see [`one_of`] for what is not read.
    pub fn parse(raw: &str, region: Region) -> Option<Self> {
        let written = Written::read(raw)?;
        let number = read(&written, region)?;
        if let Some(before) = written.before_slash {
            let first = Written {
                digits: written.digits[..before].to_owned(),
                before_slash: None,
                ..written
            };
            if read(&first, region).is_some() {
                return None;
            }
        }
        Some(Self(number.e164()))
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

/// Where a reading of digits has its country code from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// After the region's own international prefix, or before a bracketed zero, which stands nowhere else.
    Marked,
    /// From the region. `complete`: with its trunk prefix, or of a kind that is written without.
    Region { complete: bool },
    /// The digits begin with the region's own country code, and the number is known.
    OwnCode,
    /// After another region's international prefix, known to be a number: read so where nothing else can be read.
    Abroad,
    /// The digits begin with some country's code, or (`prefixed`) with another region's international prefix or the region's
    /// own code: never read so, but a reason not to read otherwise.
    Elsewhere { prefixed: bool },
}

struct Reading {
    number: Number,
    origin: Origin,
}

fn read(written: &Written, region: Region) -> Option<Number> {
    match (&written.context, written.plus) {
        (Some(context), true) if !written.digits.starts_with(context.as_str()) => None,
        (Some(_) | None, true) => {
            // `+00 49`: no country code begins with a zero, so there is one way to read it.
            let skipped = if written.digits.starts_with("00") { 2 } else { 0 };
            plan::international(&written.digits, skipped, written.lone_zero)
        }
        (Some(context), false) => read_in_context(written, context),
        (None, false) => one_of(readings(written, region)),
    }
}

/// Reads a number that is local to what stands in its `phone-context`: to a country, or to a part of one.
fn read_in_context(written: &Written, context: &str) -> Option<Number> {
    if let Some(region) = plan::main_region(context).and_then(Region::parse) {
        return one_of(readings(written, region));
    }
    // What is dialled within an area has no trunk prefix.
    let is_local = !written.digits.starts_with('0') && written.lone_zero.is_none();
    is_local.then(|| plan::international(&format!("{context}{}", written.digits), 0, None))?
}

/// Every way in which digits without a `+` can be read.
fn readings(written: &Written, region: Region) -> Vec<Reading> {
    let (digits, lone_zero) = (&written.digits, written.lone_zero);
    let region = region.0.as_ref().map_or("", AsRef::as_ref);
    let mut readings = Vec::new();
    let mut add = |number: Option<Number>, origin| readings.extend(number.map(|number| Reading { number, origin }));
    let after = |prefix| plan::international(digits, prefix, lone_zero);

    let own = plan::international_prefixes(region, digits);
    for prefix in &own {
        add(after(*prefix), Origin::Marked);
    }
    for (prefix, prefixed) in WELL_KNOWN_PREFIXES {
        if digits.starts_with(prefix) && !own.contains(&prefix.len()) {
            let number = after(prefix.len());
            let is_abroad = prefixed && number.as_ref().is_some_and(Number::is_known);
            let elsewhere = Origin::Elsewhere { prefixed };
            add(number, if is_abroad { Origin::Abroad } else { elsewhere });
        }
    }
    if lone_zero.is_none_or(|at| at == 0)
        && let Some(national) = plan::national(region, digits)
    {
        // After an international prefix, and without a trunk prefix that it should have, only a number that is known is
        // one: both are likelier to be a slip.
        let complete = national.is_complete;
        let is_sure = own.is_empty() && !digits.starts_with("00") && complete;
        if is_sure || national.number.is_known() {
            add(Some(national.number), Origin::Region { complete });
        }
    }
    if let Some(number) = after(0) {
        let is_own = Some(number.code) == plan::code_of(region);
        let origin = match lone_zero {
            Some(_) => Origin::Marked,
            None if is_own && number.is_known() => Origin::OwnCode,
            None => Origin::Elsewhere { prefixed: is_own },
        };
        add(Some(number), origin);
    }
    readings
}

/// The only reading that none of the others speaks against. Two that are as good as each other are none: then the number
/// is unusable, which is seen and corrected, and nobody else is texted.
fn one_of(readings: Vec<Reading>) -> Option<Number> {
    let is_sound = |reading: &&Reading| {
        !matches!(reading.origin, Origin::Elsewhere { .. })
            && readings
                .iter()
                .all(|other| other.number == reading.number || !speaks_against(other, reading))
    };
    let mut sound = readings.iter().filter(is_sound).map(|reading| &reading.number);
    let number = sound.next()?.clone();
    sound.all(|other| *other == number).then_some(number)
}

/// Whether one reading puts another in doubt. One that the metadata knows outweighs one that is only of a possible length,
/// but not among the region's own prefixes, which are as good as each other; and a whole national number is no other
/// country's for beginning with the digits of its code.
fn speaks_against(other: &Reading, reading: &Reading) -> bool {
    let is_whole = reading.origin == Origin::Region { complete: true };
    let is_bare = other.origin == Origin::Elsewhere { prefixed: false };
    let is_known = reading.number.is_known();
    if reading.origin == Origin::Marked && other.origin == Origin::Marked {
        true
    } else if reading.origin == Origin::Abroad {
        // `491711234567` after `00` begins with a code of its own; that is the same reading again.
        !is_bare
    } else if is_whole && is_bare {
        !is_known && other.number.is_known()
    } else {
        !is_known || other.number.is_known()
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
    fn a_number_is_read_by_its_region_however_it_is_written() {
        for (region, raw, number) in [
            ("US", "+14155550101", "+14155550101"),
            ("US", "(415) 555-0101", "+14155550101"),
            ("US", "1 415 555 0101", "+14155550101"),
            ("US", "+1 (415) 555-0101", "+14155550101"),
            ("US", "tel:+1-415-555-0101", "+14155550101"),
            ("DE", "001 415 555 0101", "+14155550101"),
            ("DE", "030 1234567", "+49301234567"),
            ("US", "+49 30 1234567", "+49301234567"),
            ("GB", "07911 123456", "+447911123456"),
            // Italy keeps its leading zero.
            ("IT", "02 1234 5678", "+390212345678"),
        ] {
            assert_eq!(e164(raw, region).as_deref(), Some(number), "{raw} in {region}");
        }
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

    /// `\u{200B}` stands for a character that an editor would not show.
    fn unescaped(text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, escape)) = rest.split_once("\\u{") {
            let (code, after) = escape.split_once('}').unwrap();
            plain.push_str(before);
            plain.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
            rest = after;
        }
        plain + rest
    }

    /// The table is held to Google's own library by tests/phone_numbers.py.
    #[test]
    fn every_row_of_the_table_is_read_as_it_says() {
        let table = include_bytes!("../../tests/data/phone_numbers.csv");
        let mut wrong = Vec::new();
        let mut count = 0;
        for row in csv::Reader::from_reader(table.as_slice()).records() {
            let row = row.unwrap();
            let region = Region::parse(&row[0]).unwrap_or(Region::UNKNOWN);
            let read = PhoneNumber::parse(&unescaped(&row[1]), region);
            let read = read.as_ref().map_or("invalid", PhoneNumber::as_e164);
            if read != &row[2] {
                wrong.push(format!("{} {}: {read}, not {}", &row[0], &row[1], &row[2]));
            }
            count += 1;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(count >= 200, "{count} rows");
    }

    #[test]
    fn what_is_too_long_is_not_cut_to_a_number() {
        assert_eq!(e164(&format!("+49171{}1234567", " ".repeat(300)), "US"), None);
        assert_eq!(e164(&format!("+49171{}1234567", "\u{200B}".repeat(300)), "US"), None);
        assert_eq!(e164(&"1".repeat(33), "US"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(raw in "\\PC{0,40}", region in "US|DE|IT|SG|BR|RU") {
            let _ = e164(&raw, &region);
        }

        /// Whatever is read once is the same number wherever it is read again: opt-outs and deliveries meet by it.
        #[test]
        fn reading_what_was_written_changes_nothing(
            raw in "(tel:)?[+]?(00|011|[(]0[)]|[(][+]49[)]|8~10)?[0-9 ()/-]{2,18}",
            region in "US|DE|IT|SG|BR|RU|AR|KR|HK|GB|IN",
        ) {
            if let Some(number) = e164(&raw, &region) {
                for elsewhere in ["DE", "US", "SG", "AR"] {
                    let again = e164(&number, elsewhere);
                    proptest::prop_assert_eq!(again.as_ref(), Some(&number));
                }
            }
        }
    }
}
