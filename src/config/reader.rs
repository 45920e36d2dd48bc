//! Reads settings one by one out of a TOML file and the environment, and collects what is wrong with them. Absent:
//! which settings there are.

use jiff::SignedDuration;
use secrecy::SecretString;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    path::Path,
    str::FromStr,
};
use strsim::levenshtein;
use toml::Value;
use url::Url;

const PREFIX: &str = "NIGHTBELL_";
/// Variables that begin like ours and are no settings.
const NOT_SETTINGS: [&str; 1] = ["NIGHTBELL_TEST_REQUIRE"];
const SECRET: &str = "********";
const FILE: &str = "the file ";

/// One thing that is wrong: where, and what to do.
#[derive(Debug, Serialize)]
pub struct Fault {
    pub key: String,
    /// What it is set to; `None` if it is not set, or secret.
    value: Option<String>,
    /// The whole sentence: the key, its value, what is wrong and what would be right.
    pub problem: String,
}

impl Fault {
    /// Whether the file itself could not be read: then nothing is known of any setting in it.
    pub fn is_about_the_file(&self) -> bool {
        self.key.starts_with(FILE)
    }

    /// Whether the setting is needed and not there.
    pub fn is_missing(&self) -> bool {
        self.problem.starts_with(&format!("`{}` is not set", self.key))
    }
}

/// The effective settings as they may be shown: secrets masked, `None` for one that is not set.
pub type Effective = Vec<(String, Option<String>)>;

struct Setting {
    value: Value,
    origin: Origin,
    used: bool,
}

/// Where a setting is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A preset that the admin named.
    Preset,
    File,
    Environment,
}

#[derive(Default)]
pub struct Reader {
    settings: BTreeMap<String, Setting>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
    effective: Effective,
}

impl Reader {
    /// Adds what a TOML file says.
    pub fn read_file(&mut self, path: &Path) {
        let name = format!("{FILE}{}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = format!("cannot be read ({error}): check the path and its permissions");
                return self.fault_secret(&name, &problem);
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.flatten("", table, Origin::File),
            // The parser's own message quotes the line, which may hold a secret.
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start.min(text.len()));
                let line = text[..start].matches('\n').count() + 1;
                self.fault_secret(&name, &format!("is not valid TOML: line {line}: {}", error.message()));
            }
        }
    }

    /// Puts settings of ours below `prefix`, under those that the admin has written.
    pub fn put_preset(&mut self, prefix: &str, text: &str) {
        #[expect(clippy::expect_used, reason = "a constant, which a test reads")]
        let table = text.parse::<toml::Table>().expect("a preset that can be read");
        let mut preset = Self::default();
        preset.flatten(&format!("{prefix}."), table, Origin::Preset);
        for (key, setting) in preset.settings {
            self.settings.entry(key).or_insert(setting);
        }
    }

    fn flatten(&mut self, prefix: &str, table: toml::Table, origin: Origin) {
        for (name, value) in table {
            match value {
                Value::Table(table) => self.flatten(&format!("{prefix}{name}."), table, origin),
                value => self.put(format!("{prefix}{name}"), value, origin),
            }
        }
    }

    fn put(&mut self, key: String, value: Value, origin: Origin) {
        let setting = Setting {
            value,
            origin,
            used: false,
        };
        self.settings.insert(key, setting);
    }

    /// Puts environment variables over what is there: `NIGHTBELL_SMS__DRIVER` is `sms.driver`, and
    /// `NIGHTBELL_REPORT__SMTP_URL_FILE` names a file that holds `report.smtp_url`.
    pub fn read_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<(String, String)> = environment
            .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(&name.as_str()))
            .collect();
        variables.sort();
        for (name, value) in variables {
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            self.put(key, Value::String(value), Origin::Environment);
        }
    }

    /// Everything that was found, and that settings are left which nobody asked for.
    pub fn finish(mut self) -> (Vec<Fault>, Vec<String>, Effective) {
        for (key, setting) in self.settings.iter().filter(|(_, setting)| !setting.used) {
            let (distance, nearest) = self
                .effective
                .iter()
                .map(|(known, _)| (levenshtein(known, key), known.as_str()))
                .min_by_key(|(distance, _)| *distance)
                .unwrap_or((usize::MAX, ""));
            let hint = if distance <= 3 {
                format!(" (did you mean `{nearest}`?)")
            } else {
                String::new()
            };
            if setting.origin == Origin::Environment {
                let variable = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
                self.warnings.push(format!(
                    "the environment variable `{variable}` is not a setting of Nightbell and is ignored{hint}"
                ));
            } else {
                self.faults.push(Fault {
                    key: key.clone(),
                    value: None,
                    problem: format!("unknown setting `{key}`; remove it{hint}"),
                });
            }
        }
        (self.faults, self.warnings, self.effective)
    }

    /// Notes that a setting is wrong, with its value. `problem` reads on after the key and its value.
    pub fn fault(&mut self, key: &str, problem: &str) {
        let shown = self.effective.iter().find(|(shown, _)| shown == key);
        let value = shown.and_then(|(_, value)| value.clone());
        self.push_fault(key, value.filter(|value| value != SECRET), problem);
    }

    /// Notes that a setting is wrong whose value must not be shown.
    pub fn fault_secret(&mut self, key: &str, problem: &str) {
        self.push_fault(key, None, problem);
    }

    fn push_fault(&mut self, key: &str, value: Option<String>, problem: &str) {
        let problem = match &value {
            Some(value) if problem.starts_with("is ") => format!("`{key}` is `{value}`, which {problem}"),
            Some(value) => format!("`{key}` is `{value}` and {problem}"),
            None => format!("`{key}` {problem}"),
        };
        self.faults.push(Fault {
            key: key.to_owned(),
            value,
            problem,
        });
    }

    /// Notes something that stops nothing.
    pub fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    /// Whether something is wrong with the setting.
    pub fn has_fault(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| fault.key == key)
    }

    /// Whether the setting is there at all, even if it is wrong.
    pub fn has(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    /// What the setting is, read elsewhere.
    pub fn peek(&self, key: &str) -> Option<String> {
        self.settings.get(key)?.value.as_str().map(str::to_owned)
    }

    /// The names one level below `prefix`.
    pub fn names_below(&self, prefix: &str) -> BTreeSet<String> {
        let prefix = format!("{prefix}.");
        self.settings
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix)?.split('.').next().map(str::to_owned))
            .collect()
    }

    /// Everything below `prefix`, each with its texts: what the admin has written comes after what a preset has.
    pub fn entries_below(&mut self, prefix: &str) -> Vec<(String, Vec<String>)> {
        let prefix = format!("{prefix}.");
        let below = self.settings.iter().filter(|(key, _)| key.starts_with(&prefix));
        let mut keys: Vec<(bool, String)> = below
            .map(|(key, setting)| (setting.origin != Origin::Preset, key.clone()))
            .collect();
        keys.sort();
        let read = |(_, key): (bool, String)| (key[prefix.len()..].to_owned(), self.alternatives(&key));
        keys.into_iter().map(read).collect()
    }

    /// A text, or a list of them; no text is split at commas.
    fn alternatives(&mut self, key: &str) -> Vec<String> {
        let texts = if self.is_list(key) {
            self.strings(key)
        } else {
            self.raw(key).into_iter().collect()
        };
        self.show(key, Some(texts.join(" | ")).filter(|shown| !shown.is_empty()));
        texts
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let setting = self.settings.get_mut(key)?;
        setting.used = true;
        Some(setting.value.clone())
    }

    /// The setting's text; numbers and flags count as their text. Blank counts as not set.
    fn raw(&mut self, key: &str) -> Option<String> {
        let text = match self.take(key)? {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                self.fault_secret(key, "is a list or a date: write a single text or number");
                return None;
            }
        };
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn show(&mut self, key: &str, shown: Option<String>) {
        self.effective.push((key.to_owned(), shown));
    }

    /// A text, or nothing.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let text = self.raw(key);
        self.show(key, text.clone());
        text
    }

    /// A setting that may be absent; `wanted` says what would be right.
    pub fn optional<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(key)?;
        let value = read(&text);
        if value.is_none() {
            self.push_fault(key, Some(text), &format!("is not {wanted}"));
        }
        value
    }

    /// A setting with a default, which also stands in for what is wrong. `read` fails with what is wrong, which reads on
    /// after the key and its value.
    pub fn checked<T, E: fmt::Display + fmt::Debug>(
        &mut self,
        key: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> T {
        let text = self.raw(key).unwrap_or_else(|| default.to_owned());
        self.show(key, Some(text.clone()));
        let value = read(&text).or_else(|problem| {
            self.push_fault(key, Some(text), &problem.to_string());
            read(default)
        });
        #[expect(
            clippy::expect_used,
            reason = "a constant, which every start without this setting reads"
        )]
        value.expect("a default that can be read")
    }

    /// The same where all that can be wrong is that it is not `wanted`.
    pub fn parsed_with<T>(&mut self, key: &str, default: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> T {
        self.checked(key, default, |text| {
            read(text).ok_or_else(|| format!("is not {wanted}"))
        })
    }

    pub fn parsed<T: FromStr>(&mut self, key: &str, default: &str, wanted: &str) -> T {
        self.parsed_with(key, default, wanted, |text| text.parse().ok())
    }

    /// A whole number.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(&mut self, key: &str, default: T, min: T, max: T) -> T {
        self.within(key, default, "a whole number", min..=max)
    }

    /// A number that may have decimals.
    pub fn decimal(&mut self, key: &str, default: f64, min: f64, max: f64) -> f64 {
        self.within(key, default, "a number", min..=max)
    }

    fn within<T>(&mut self, key: &str, default: T, kind: &str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let wanted = format!("{kind} from {} to {}", range.start(), range.end());
        self.parsed_with(key, &default.to_string(), &wanted, |text| {
            text.parse().ok().filter(|number| range.contains(number))
        })
    }

    /// A length of time like `15s`, `3m` or `72h`.
    pub fn duration(&mut self, key: &str, default: &str, min: SignedDuration, max: SignedDuration) -> SignedDuration {
        self.checked(key, default, |text| match text.parse() {
            Ok(length) if (min..=max).contains(&length) => Ok(length),
            Ok(_) => Err(format!("is out of range: it may be from {min:#} to {max:#}")),
            Err(_) => Err("is not a duration: write it like `15s`, `3m` or `72h`".to_owned()),
        })
    }

    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.parsed(key, &default.to_string(), "`true` or `false`")
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, default: &str, choices: &[(&str, T)]) -> T {
        self.parsed_with(key, default, &one_of(choices), |text| find(choices, text))
    }

    /// One of a few words, or nothing.
    pub fn optional_choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.optional(key, &one_of(choices), |text| find(choices, text))
    }

    /// A web address, without a user's name and password.
    pub fn web_url(text: &str) -> Option<Url> {
        let url = Url::parse(text).ok()?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none();
        plain.then_some(url)
    }

    /// A secret, from the setting itself or from the file that `…_file` names.
    pub fn secret(&mut self, key: &str) -> Option<SecretString> {
        let secret = self.secret_text(key);
        self.show(key, secret.as_ref().map(|_| SECRET.to_owned()));
        secret.map(SecretString::from)
    }

    /// Several secrets: a list, or separated by commas. An empty one among them is a fault, for what was meant to stand
    /// there would be missing, or nothing would be taken for a secret.
    pub fn secret_list(&mut self, key: &str) -> Vec<SecretString> {
        let mut texts = if self.is_list(key) {
            self.strings(key)
        } else {
            let text = self.secret_text(key);
            text.map_or_else(Vec::new, |text| {
                text.split(',').map(|item| item.trim().to_owned()).collect()
            })
        };
        let count = texts.len();
        texts.retain(|text| !text.trim().is_empty());
        if texts.len() < count {
            self.fault_secret(key, "has an empty entry: fill it in, or remove it with its comma");
        }
        self.show(key, texts.first().map(|_| SECRET.to_owned()));
        texts.into_iter().map(SecretString::from).collect()
    }

    fn secret_text(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        let Some(path) = self.raw(&file_key) else {
            return self.raw(key);
        };
        if self.raw(key).is_some() {
            self.fault_secret(key, &format!("is set together with `{file_key}`: set one of them"));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) => {
                let problem = format!("is a file that cannot be read ({error}): check the path and its permissions");
                self.push_fault(&file_key, Some(path), &problem);
                None
            }
        }
    }

    /// The address of a database, shown without its password.
    pub fn address(&mut self, key: &str, default: &str) -> SecretString {
        let text = self.secret_text(key).unwrap_or_else(|| default.to_owned());
        self.show_address(key, &text);
        text.into()
    }

    /// The same where there is no default.
    pub fn database_address(&mut self, key: &str) -> Option<SecretString> {
        let text = self.secret_text(key);
        match &text {
            Some(text) => self.show_address(key, text),
            None => self.show(key, None),
        }
        text.map(SecretString::from)
    }

    fn show_address(&mut self, key: &str, text: &str) {
        let shown = match (text.find("://"), text.rfind('@')) {
            (Some(start), Some(end)) if start < end => {
                let user = text[start + 3..end].split(':').next().unwrap_or_default();
                format!("{}{user}:****{}", &text[..start + 3], &text[end..])
            }
            _ => text.to_owned(),
        };
        self.show(key, Some(shown));
    }

    /// A list, or texts separated by commas.
    pub fn list<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let texts = self.strings(key);
        self.show(key, Some(texts.join(", ")).filter(|shown| !shown.is_empty()));
        let mut values = Vec::new();
        for text in texts {
            match read(&text) {
                Some(value) => values.push(value),
                None => self.push_fault(key, Some(text), &format!("is not {wanted}")),
            }
        }
        values
    }

    /// A text, or a list whose texts are joined by commas.
    pub fn joined(&mut self, key: &str) -> Option<String> {
        if !self.is_list(key) {
            return self.text(key);
        }
        let text = Some(self.strings(key).join(", ")).filter(|text| !text.is_empty());
        self.show(key, text.clone());
        text
    }

    fn is_list(&self, key: &str) -> bool {
        self.settings.get(key).is_some_and(|setting| setting.value.is_array())
    }

    fn strings(&mut self, key: &str) -> Vec<String> {
        let items = self.items(key).into_iter();
        items.filter_map(|mut item| item.remove("phone")).collect()
    }

    /// A list of tables of texts; a bare text stands for a table with only `phone`.
    pub fn items(&mut self, key: &str) -> Vec<BTreeMap<String, String>> {
        let bare = |text: &str| BTreeMap::from([("phone".to_owned(), text.to_owned())]);
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::String(text)) => {
                let texts = text.split(',').map(str::trim);
                return texts.filter(|text| !text.is_empty()).map(bare).collect();
            }
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault_secret(key, "is a single value: write a list");
                return Vec::new();
            }
        };
        let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
        let read = |item| match item {
            Value::String(text) => Some(bare(&text)),
            Value::Table(table) => Some(table.into_iter().filter_map(text).collect()),
            _ => {
                let problem = "has an entry that is neither a text nor a table: write texts in quotes";
                self.fault_secret(key, problem);
                None
            }
        };
        items.into_iter().filter_map(read).collect()
    }
}

fn one_of<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
    format!("one of {}", words.join(", "))
}

fn find<T: Copy>(choices: &[(&str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

#[cfg(test)]
impl Reader {
    /// One that has read variables, their names without the `NIGHTBELL_` of all.
    pub fn with(environment: &[(&str, &str)]) -> Self {
        let mut reader = Self::default();
        let own = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
        reader.read_environment(environment.iter().map(own));
        reader
    }

    /// The settings in which something is wrong.
    pub fn fault_keys(self) -> Vec<String> {
        self.finish().0.into_iter().map(|fault| fault.key).collect()
    }
}
