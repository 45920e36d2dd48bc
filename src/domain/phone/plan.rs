//! Numbering plans: what Google's metadata (the crate `phonenumber`) knows of countries' numbers, and its algorithm for
//! national prefixes. Not the crate's own reader: it strips a region's prefixes from other countries' numbers, and
//! takes the beginning of a number for the whole of it when it compares. Absent: which reading counts (see `super`).

use phonenumber::{
    Metadata, Type,
    metadata::{DATABASE, Descriptor},
};

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
/// E.164 has at most 15 digits with the country code (ITU-T E.164, 6.1).
const MAX_DIGITS: usize = 15;

/// A number of one country, of a possible length: the country code and the national significant number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub code: u16,
    pub national: String,
}

impl Number {
    fn possible(code: u16, national: &str) -> Option<Self> {
        let length = u16::try_from(national.len()).ok()?;
        // All regions of the code: for a number that the metadata does not know it names none. And all kinds of number,
        // since its general description holds no lengths.
        let is_possible = plans_of(code)
            .iter()
            .any(|plan| kinds(plan).any(|kind| kind.possible_length().contains(&length)));
        let fits = code.to_string().len() + national.len() <= MAX_DIGITS;
        (is_possible && fits).then(|| Self {
            code,
            national: national.to_owned(),
        })
    }

    /// Whether the metadata knows it: it fits the pattern of a kind of number in a region of its country code. A company's
    /// number is known too: it speaks against another reading as any other does.
    pub fn is_known(&self) -> bool {
        plans_of(self.code).iter().any(|plan| {
            matches(plan.descriptors().general(), &self.national)
                && kinds(plan).any(|kind| matches(kind, &self.national))
        })
    }

    pub fn e164(&self) -> String {
        format!("+{}{}", self.code, self.national)
    }
}

/// The plans of the regions that share a country code, the main one first.
fn plans_of(code: u16) -> Vec<&'static Metadata> {
    DATABASE.by_code(&code).unwrap_or_default()
}

fn kinds(plan: &Metadata) -> impl Iterator<Item = &Descriptor> {
    KINDS.iter().filter_map(|kind| plan.descriptors().get(*kind))
}

fn all_kinds(plan: &Metadata) -> impl Iterator<Item = &Descriptor> {
    kinds(plan).chain(plan.descriptors().get(Type::Uan))
}

/// Whether all of a national number fits, not only its beginning.
fn matches(kind: &Descriptor, national: &str) -> bool {
    let lengths = kind.possible_length();
    let length = u16::try_from(national.len()).unwrap_or(u16::MAX);
    (lengths.is_empty() || lengths.contains(&length)) && fits(kind.national_number().as_str(), national)
}

/// Whether a whole text fits a pattern of the metadata. Compiled patterns are kept where the crate keeps its own: there
/// the oldest make room.
fn fits(pattern: &str, text: &str) -> bool {
    let cache = DATABASE.cache();
    let Ok(mut cache) = cache.lock() else {
        return false;
    };
    cache
        .compile(&format!("(?x-u)^(?:{pattern})$"))
        .is_ok_and(|pattern| pattern.is_match(text))
}

/// Reads digits that begin with a country code behind so many of a prefix, by no region's rules. `lone_zero` is where among
/// all of them a zero has brackets of its own.
pub(super) fn international(all: &str, prefix: usize, lone_zero: Option<usize>) -> Option<Number> {
    let digits = &all[prefix..];
    // No country code begins with it, and none begins another one.
    if digits.starts_with('0') {
        return None;
    }
    let (code, rest, plan) = (1..=3).find_map(|length| {
        let (code, rest) = digits.split_at_checked(length)?;
        let code = code.parse().ok()?;
        Some((code, rest, *plans_of(code).first()?))
    })?;
    let number = match lone_zero {
        None => {
            let national = without_trunk_prefix(plan, rest);
            // A trunk prefix behind a country code is a slip: then only a number that is known is one.
            Number::possible(code, &national).filter(|number| national == rest || number.is_known())?
        }
        Some(at) if at + rest.len() == all.len() => without_lone_zero(code, rest, plan)?,
        Some(_) => return None,
    };
    // A number is read once: one that would be read otherwise the next time has more prefixes than it can have.
    (without_trunk_prefix(plan, &number.national) == number.national).then_some(number)
}

/// Reads `(0)171…` after a country code. The zero is the trunk prefix, which is not dialled from abroad. In a country that
/// has none, like Italy, it is part of the number where only that is a number; else nobody can tell.
fn without_lone_zero(code: u16, rest: &str, plan: &Metadata) -> Option<Number> {
    let without = rest.strip_prefix('0')?;
    if plan.national_prefix() == Some("0") {
        return Number::possible(code, without);
    }
    let is_known = |national: &str| Number::possible(code, national).is_some_and(|number| number.is_known());
    (is_known(rest) && !is_known(without)).then(|| Number {
        code,
        national: rest.to_owned(),
    })
}

/// A number as its region reads it, without a country code.
pub(super) struct National {
    pub number: Number,
    /// Whether it has the trunk prefix, or is of a kind that is written without.
    pub is_complete: bool,
}

/// Reads digits by a region's own rules.
pub(super) fn national(region: &str, digits: &str) -> Option<National> {
    let plan = DATABASE.by_id(region)?;
    let national = without_trunk_prefix(plan, digits);
    let number = Number::possible(plan.country_code(), &national)?;
    let is_stable = international(&number.e164(), 1, None).is_some_and(|again| again == number);
    is_stable.then(|| National {
        is_complete: national != digits || !needs_trunk_prefix(plan, digits),
        number,
    })
}

/// The country code of a region.
pub(super) fn code_of(region: &str) -> Option<u16> {
    DATABASE.by_id(region).map(Metadata::country_code)
}

/// The main region of a country code.
pub(super) fn main_region(code: &str) -> Option<&'static str> {
    Some(plans_of(code.parse().ok()?).first()?.id())
}

/// The international prefixes of a region with which these digits begin, as their lengths: some regions have one for each
/// of several carriers.
pub(super) fn international_prefixes(region: &str, digits: &str) -> Vec<usize> {
    let Some(pattern) = DATABASE.by_id(region).and_then(Metadata::international_prefix) else {
        return Vec::new();
    };
    if pattern.find(digits).is_none_or(|found| found.start() > 0) {
        return Vec::new();
    }
    (1..digits.len())
        .filter(|length| fits(pattern.as_str(), &digits[..*length]))
        .collect()
}

/// Google's `maybeStripNationalPrefixAndCarrierCode`, and its condition that what remains is long enough.
fn without_trunk_prefix(plan: &Metadata, digits: &str) -> String {
    let stripped = match plan.national_prefix_for_parsing() {
        Some(pattern) => pattern.captures(digits).and_then(|found| {
            let whole = found.get(0).filter(|whole| whole.start() == 0)?;
            let last = found.get(found.len() - 1);
            Some(match plan.national_prefix_transform_rule() {
                Some(rule) if last.is_some() => pattern.replace(digits, rule).into_owned(),
                Some(_) | None => digits[whole.end()..].to_owned(),
            })
        }),
        None => plan
            .national_prefix()
            .and_then(|prefix| digits.strip_prefix(prefix))
            .map(str::to_owned),
    };
    let Some(stripped) = stripped.filter(|stripped| stripped != digits) else {
        return digits.to_owned();
    };
    let general = plan.descriptors().general();
    let length = u16::try_from(stripped.len()).unwrap_or(u16::MAX);
    let lengths = || all_kinds(plan).flat_map(|kind| kind.possible_length().iter().copied());
    let is_long_enough = lengths().any(|possible| possible == length) || lengths().all(|possible| possible < length);
    let spoils_it = matches(general, digits) && !matches(general, &stripped);
    if is_long_enough && !spoils_it {
        stripped
    } else {
        digits.to_owned()
    }
}

/// Whether a region writes this kind of number with its trunk prefix, by the way in which the metadata would write it.
fn needs_trunk_prefix(plan: &Metadata, national: &str) -> bool {
    let needs_it = |format: &&phonenumber::metadata::Format| {
        format.national_prefix().is_some_and(|rule| rule.contains("$NP")) && !format.is_national_prefix_optional()
    };
    if !plan.formats().iter().any(|format| needs_it(&format)) {
        return false;
    }
    let format = plan.formats().iter().find(|format| {
        let begins_so = format
            .leading_digits()
            .last()
            .is_none_or(|pattern| pattern.find(national).is_some_and(|found| found.start() == 0));
        begins_so && fits(format.pattern().as_str(), national)
    });
    format.is_none_or(|format| needs_it(&format))
}
