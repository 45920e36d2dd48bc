//! What stands in a field for a phone number: cleaned of what is not seen or only stands around a number, and taken apart
//! into digits and the marks that change their meaning. Absent: what the digits mean (see `super` and `plan`).

use std::borrow::Cow;

/// A text longer than this is no phone number, however much of it is invisible.
const MAX_CHARS: usize = 200;
/// More digits than any way of dialling needs.
const MAX_DIGITS: usize = 32;
/// A number before a slash that is no area code: `030 123456/57` are two numbers.
const WHOLE_NUMBER: usize = 7;

/// Words before a number that say only that one follows. `Fax` is none of them: whoever is there reads no SMS.
const LABELS: &str = "tel telephone telefon telefono teléfono tél téléphone phone ph mobile mobil móvil mob cell handy \
                      gsm sms callto ℡ ☎";

/// The zeros of the scripts that have digits of their own, which follow one another (Unicode, general category Nd).
const ZEROS: [u32; 35] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50,
    0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50,
    0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
];

/// A number as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Whether a `+` stands before the digits.
    pub plus: bool,
    pub digits: String,
    /// Where among the digits a zero has brackets of its own: `+49 (0)171`.
    pub lone_zero: Option<usize>,
    /// The digits of `;phone-context=+49`: what the number is local to (RFC 3966, 5.1.5).
    pub context: Option<String>,
    /// How many digits stand before the only slash, if they could be a number by themselves.
    pub before_slash: Option<usize>,
}

impl Written {
    /// Takes a text apart; `None` where it is not one number and nothing else. Letters are not read as digits: in
    /// `0171 123456 neu` they are a note, and as digits they would make somebody else's number. What has an extension
    /// names a person behind a switchboard, whom no SMS reaches: the switchboard is somebody else.
    pub fn read(raw: &str) -> Option<Self> {
        if raw.chars().take(MAX_CHARS + 1).count() > MAX_CHARS {
            return None;
        }
        let plain: String = raw.chars().filter(|c| !is_unseen(*c)).map(plain).collect();
        let text = without_labels(&plain)?;
        let Some((number, parameters)) = text.split_once(';') else {
            return read_digits(&text);
        };
        let context = read_parameters(parameters)?;
        Some(Self {
            context,
            ..read_digits(number)?
        })
    }
}

/// Characters that show nothing: format characters, joiners, marks of direction and of variation, tags; and control
/// characters but for those that part lines.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{0600}'..='\u{0605}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
        || (c.is_control() && !c.is_whitespace())
}

/// The plain form of a character: other scripts' digits, full-width forms, the many dashes, blanks and quotes. Letters
/// become small.
fn plain(c: char) -> char {
    let code = u32::from(c);
    if let Some(digit) = ZEROS
        .iter()
        .find_map(|zero| code.checked_sub(*zero).filter(|digit| *digit < 10))
    {
        return char::from_digit(digit, 10).unwrap_or(c);
    }
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(code - 0xFEE0).map_or(c, plain),
        '\u{FE62}' => '+',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30FC}' | '\u{FE58}' | '\u{FE63}' => '-',
        '\u{2053}' | '\u{223C}' | '\u{301C}' => '~',
        c if is_quote(c) => '"',
        // A line break parts what a blank joins, so it stays; so does a tab, which parts cells.
        c if c.is_whitespace() && !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}') => ' ',
        '\u{260F}' | '\u{2706}' | '\u{1F4DE}' | '\u{1F4F1}' | '\u{1F4F2}' => '☎',
        c => c.to_lowercase().next().unwrap_or(c),
    }
}

/// Every quotation mark of Unicode, and what people type for one.
fn is_quote(c: char) -> bool {
    matches!(c,
        '\'' | '`' | '\u{00AB}' | '\u{00B4}' | '\u{00BB}' | '\u{02B9}'..='\u{02BC}' | '\u{2018}'..='\u{201F}'
        | '\u{2032}'..='\u{2037}' | '\u{2039}' | '\u{203A}' | '\u{300C}'..='\u{300F}' | '\u{301D}'..='\u{301F}')
}

/// What may stand around a number and says nothing: blanks, quotes, the brackets of an address, a spreadsheet's `=`.
fn bare(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '<'))
        .trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '>' | ',' | ';' | '.'))
}

/// The number without `tel:` and the like. `None` where a `tel:` has escapes that are none.
fn without_labels(plain: &str) -> Option<Cow<'_, str>> {
    let mut text = Cow::Borrowed(bare(plain));
    loop {
        let label: &str = &text[..text
            .find(|c: char| !(c.is_alphabetic() || matches!(c, '☎' | '℡')))
            .unwrap_or(text.len())];
        if !LABELS.split(' ').any(|known| known == label) {
            return Some(text);
        }
        let rest = text[label.len()..].trim_start_matches(['.', ' ']);
        let is_address = rest.starts_with(':');
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let rest = if is_address && rest.contains('%') {
            let decoded = percent_encoding::percent_decode_str(rest).decode_utf8().ok()?;
            decoded.chars().filter(|c| !is_unseen(*c)).map(self::plain).collect()
        } else {
            rest.to_owned()
        };
        text = Cow::Owned(bare(&rest).to_owned());
    }
}

/// The context among the parameters of a `tel:` address; `None` where they make it no number that can be texted: an
/// extension, a sub-address, digits to be dialled afterwards, a context that is a company's own, or no parameters at all.
#[expect(
    clippy::option_option,
    reason = "whether it can be texted, and its context if it has one"
)]
fn read_parameters(parameters: &str) -> Option<Option<String>> {
    let mut context = None;
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=')?;
        let name = name.trim();
        match (name, value.trim()) {
            ("ext" | "isub" | "postd", "") => {}
            ("ext" | "isub" | "postd", _) => return None,
            ("phone-context", value) => {
                let written = read_digits(value)?;
                if !written.plus || context.is_some() {
                    return None;
                }
                context = Some(written.digits);
            }
            _ => {
                let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                if !is_name {
                    return None;
                }
            }
        }
    }
    Some(context)
}

/// The digits of a number and what stands between them; `None` where that is anything but what groups digits.
fn read_digits(text: &str) -> Option<Written> {
    let mut written = Written {
        plus: false,
        digits: String::with_capacity(text.len().min(MAX_DIGITS)),
        lone_zero: None,
        context: None,
        before_slash: None,
    };
    let mut opened_at = None;
    let mut slashes = Vec::new();
    for c in text.chars() {
        match c {
            '+' if written.digits.is_empty() => written.plus = true,
            '0'..='9' if written.digits.len() < MAX_DIGITS => written.digits.push(c),
            '(' | '[' => opened_at = Some(written.digits.len()),
            ')' | ']' => {
                let is_lone_zero = opened_at.is_some_and(|at| &written.digits[at..] == "0");
                if is_lone_zero && written.lone_zero.replace(written.digits.len() - 1).is_some() {
                    return None;
                }
                opened_at = None;
            }
            '/' => slashes.push(written.digits.len()),
            ' ' | '-' | '.' | '~' => {}
            _ => return None,
        }
    }
    if let [only] = slashes.as_slice() {
        written.before_slash = Some(*only).filter(|before| (WHOLE_NUMBER..written.digits.len()).contains(before));
    }
    (!written.digits.is_empty()).then_some(written)
}
