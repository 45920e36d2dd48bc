//! Reads settings one by one out of a TOML file and the environment, and collects what is wrong with them. Absent:
//! which settings there are.

use jiff::SignedDuration;
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub key: String,
    /// What it is set to; `None` if it is not set, or secret.
    pub value: Option<String>,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// What is wrong and what would be right; reads on after the key and its value.
    Wrong(String),
    /// No setting has this name. Perhaps the nearest one is meant.
    Unknown { nearest: Option<String> },
}

impl Fault {
    /// Whether the file itself could not be read: then nothing is known of any setting in it.
    pub fn is_about_the_file(&self) -> bool {
        self.key.starts_with(FILE)
    }

    /// Whether the setting is needed and not there.
    pub fn is_missing(&self) -> bool {
        matches!(&self.problem, Problem::Wrong(problem) if problem.starts_with("is not set"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (&self.problem, &self.value) {
            (Problem::Unknown { nearest }, _) => {
                write!(
                    out,
                    "unknown setting `{key}`; remove it{}",
                    did_you_mean(nearest.as_deref())
                )
            }
            (Problem::Wrong(problem), Some(value)) if problem.starts_with("is ") => {
                write!(out, "`{key}` is `{value}`, which {problem}")
            }
            (Problem::Wrong(problem), Some(value)) => write!(out, "`{key}` is `{value}` and {problem}"),
            (Problem::Wrong(problem), None) => write!(out, "`{key}` {problem}"),
        }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)"))
}

/// A value as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    Value(String),
    Secret,
    Unset,
}

impl Shown {
    /// The value as JSON; a secret stays masked.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Value(value) => value.as_str().into(),
            Self::Secret => SECRET.into(),
            Self::Unset => serde_json::Value::Null,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(out, "{value:?}"),
            Self::Secret => write!(out, "{SECRET:?}"),
            Self::Unset => out.write_str("(not set)"),
        }
    }
}

struct Setting {
    value: Value,
    from_environment: bool,
    used: bool,
}

#[derive(Default)]
pub struct Reader {
    settings: BTreeMap<String, Setting>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
    effective: Vec<(String, Shown)>,
}

impl Reader {
    /// Adds what a TOML file says.
    pub fn read_file(&mut self, path: &Path) {
        let name = format!("{FILE}{}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.push_fault(
                    &name,
                    None,
                    format!("cannot be read ({error}): check the path and its permissions"),
                );
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.flatten(String::new(), table),
            // The parser's own message quotes the line, which may hold a secret.
            Err(error) => {
                let line = error
                    .span()
                    .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                self.push_fault(
                    &name,
                    None,
                    format!("is not valid TOML: line {line}: {}", error.message()),
                );
            }
        }
    }

    fn flatten(&mut self, prefix: String, table: toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            match value {
                Value::Table(table) => self.flatten(key, table),
                value => {
                    self.settings.insert(
                        key,
                        Setting {
                            value,
                            from_environment: false,
                            used: false,
                        },
                    );
                }
            }
        }
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
            self.settings.insert(
                key,
                Setting {
                    value: Value::String(value),
                    from_environment: true,
                    used: false,
                },
            );
        }
    }

    /// Everything that was found, and that settings are left which nobody asked for.
    pub fn finish(mut self) -> (Vec<Fault>, Vec<String>, Vec<(String, Shown)>) {
        let known: Vec<String> = self.effective.iter().map(|(key, _)| key.clone()).collect();
        let unused: Vec<(String, bool)> = self
            .settings
            .iter()
            .filter(|(_, setting)| !setting.used)
            .map(|(key, setting)| (key.clone(), setting.from_environment))
            .collect();
        for (key, from_environment) in unused {
            let nearest = known
                .iter()
                .min_by_key(|known| levenshtein(known, &key))
                .filter(|known| levenshtein(known, &key) <= 3);
            if from_environment {
                let variable = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
                self.warnings.push(format!(
                    "the environment variable `{variable}` is not a setting of Nightbell and is ignored{}",
                    did_you_mean(nearest.map(String::as_str))
                ));
            } else {
                self.faults.push(Fault {
                    key,
                    value: None,
                    problem: Problem::Unknown {
                        nearest: nearest.cloned(),
                    },
                });
            }
        }
        (self.faults, self.warnings, self.effective)
    }

    /// Notes that a setting is wrong, with its value.
    pub fn fault(&mut self, key: &str, problem: &str) {
        let value = self.effective.iter().find_map(|(shown, value)| match value {
            Shown::Value(value) if shown == key => Some(value.clone()),
            _ => None,
        });
        self.push_fault(key, value, problem.to_owned());
    }

    /// Notes that a setting is wrong whose value must not be shown.
    pub fn fault_secret(&mut self, key: &str, problem: &str) {
        self.push_fault(key, None, problem.to_owned());
    }

    fn push_fault(&mut self, key: &str, value: Option<String>, problem: String) {
        self.faults.push(Fault {
            key: key.to_owned(),
            value,
            problem: Problem::Wrong(problem),
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

    /// The names one level below `prefix`.
    pub fn names_below(&self, prefix: &str) -> BTreeSet<String> {
        let prefix = format!("{prefix}.");
        self.settings
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix)?.split('.').next().map(str::to_owned))
            .collect()
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
                self.push_fault(key, None, "is a list or a date: write a single text or number".into());
                return None;
            }
        };
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn show(&mut self, key: &str, shown: Shown) {
        self.effective.push((key.to_owned(), shown));
    }

    /// A text, or nothing.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let text = self.raw(key);
        self.show(key, text.clone().map_or(Shown::Unset, Shown::Value));
        text
    }

    /// A text with a default.
    pub fn text_or(&mut self, key: &str, default: &str) -> String {
        let text = self.raw(key).unwrap_or_else(|| default.to_owned());
        self.show(key, Shown::Value(text.clone()));
        text
    }

    /// A setting that may be absent; `wanted` says what would be right.
    pub fn optional<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(key)?;
        let value = read(&text);
        if value.is_none() {
            self.push_fault(key, Some(text), format!("is not {wanted}"));
        }
        value
    }

    /// A setting with a default; `None` if what was set is wrong.
    pub fn parsed_with<T>(
        &mut self,
        key: &str,
        default: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text_or(key, default);
        let value = read(&text);
        if value.is_none() {
            self.push_fault(key, Some(text), format!("is not {wanted}"));
        }
        value
    }

    pub fn parsed<T: FromStr>(&mut self, key: &str, default: &str, wanted: &str) -> Option<T> {
        self.parsed_with(key, default, wanted, |text| text.parse().ok())
    }

    /// A whole number.
    pub fn number(&mut self, key: &str, default: i64, min: i64, max: i64) -> i64 {
        let read = |text: &str| text.parse().ok().filter(|number| (min..=max).contains(number));
        self.parsed_with(
            key,
            &default.to_string(),
            &format!("a whole number from {min} to {max}"),
            read,
        )
        .unwrap_or(default)
    }

    /// A number that may have decimals.
    pub fn decimal(&mut self, key: &str, default: f64, min: f64, max: f64) -> f64 {
        let read = |text: &str| text.parse().ok().filter(|number| (min..=max).contains(number));
        self.parsed_with(
            key,
            &default.to_string(),
            &format!("a number from {min} to {max}"),
            read,
        )
        .unwrap_or(default)
    }

    /// A length of time like `15s`, `3m` or `72h`.
    pub fn duration(&mut self, key: &str, default: &str, min: SignedDuration, max: SignedDuration) -> SignedDuration {
        let read = |text: &str| text.parse::<SignedDuration>().ok();
        let value = self
            .parsed_with(key, default, "a duration: write it like `15s`, `3m` or `72h`", read)
            .or_else(|| read(default))
            .unwrap_or(min);
        if (min..=max).contains(&value) {
            return value;
        }
        self.fault(key, &format!("is out of range: it may be from {min:#} to {max:#}"));
        read(default).unwrap_or(min)
    }

    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.parsed(key, if default { "true" } else { "false" }, "`true` or `false`")
            .unwrap_or(default)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, default: &str, choices: &[(&str, T)]) -> T {
        let find = |text: &str| choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.parsed_with(key, default, &one_of(choices), find)
            .or_else(|| find(default))
            .unwrap_or(choices[0].1)
    }

    /// One of a few words, or nothing.
    pub fn optional_choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let find = |text: &str| choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.optional(key, &one_of(choices), find)
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
        self.show(key, if secret.is_some() { Shown::Secret } else { Shown::Unset });
        secret.map(SecretString::from)
    }

    /// Several secrets: a list, or separated by commas. An empty one among them is a fault, for what was meant to stand
    /// there would be missing, or nothing would be taken for a secret.
    pub fn secret_list(&mut self, key: &str) -> Vec<SecretString> {
        let mut texts = match self.settings.get(key).map(|setting| &setting.value) {
            Some(Value::Array(_)) => self.strings(key),
            _ => self
                .secret_text(key)
                .map(|text| text.split(',').map(|item| item.trim().to_owned()).collect())
                .unwrap_or_default(),
        };
        let count = texts.len();
        texts.retain(|text| !text.trim().is_empty());
        if texts.len() < count {
            self.fault_secret(key, "has an empty entry: fill it in, or remove it with its comma");
        }
        self.show(key, if texts.is_empty() { Shown::Unset } else { Shown::Secret });
        texts.into_iter().map(SecretString::from).collect()
    }

    fn secret_text(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        let Some(path) = self.raw(&file_key) else {
            return self.raw(key);
        };
        if self.raw(key).is_some() {
            self.push_fault(key, None, format!("is set together with `{file_key}`: set one of them"));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) => {
                self.push_fault(
                    &file_key,
                    Some(path),
                    format!("is a file that cannot be read ({error}): check the path and its permissions"),
                );
                None
            }
        }
    }

    /// The address of a database, shown without its password.
    pub fn address(&mut self, key: &str, default: &str) -> SecretString {
        let text = self.secret_text(key).unwrap_or_else(|| default.to_owned());
        let shown = match (text.find("://"), text.rfind('@')) {
            (Some(start), Some(end)) if start < end => {
                let user = text[start + 3..end].split(':').next().unwrap_or_default();
                format!("{}{user}:****{}", &text[..start + 3], &text[end..])
            }
            _ => text.clone(),
        };
        self.show(key, Shown::Value(shown));
        text.into()
    }

    /// A list, or texts separated by commas.
    pub fn list<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let texts = self.strings(key);
        self.show(
            key,
            if texts.is_empty() {
                Shown::Unset
            } else {
                Shown::Value(texts.join(", "))
            },
        );
        let mut values = Vec::new();
        for text in texts {
            match read(&text) {
                Some(value) => values.push(value),
                None => self.push_fault(key, Some(text), format!("is not {wanted}")),
            }
        }
        values
    }

    /// A text, or a list whose texts are joined by commas.
    pub fn joined(&mut self, key: &str) -> Option<String> {
        let is_list = matches!(
            self.settings.get(key).map(|setting| &setting.value),
            Some(Value::Array(_))
        );
        if !is_list {
            return self.text(key);
        }
        let text = Some(self.strings(key).join(", ")).filter(|text| !text.is_empty());
        self.show(key, text.clone().map_or(Shown::Unset, Shown::Value));
        text
    }

    fn strings(&mut self, key: &str) -> Vec<String> {
        self.items(key)
            .into_iter()
            .filter_map(|mut item| item.remove("phone"))
            .collect()
    }

    /// A list of tables of texts; a bare text stands for a table with only `phone`.
    pub fn items(&mut self, key: &str) -> Vec<BTreeMap<String, String>> {
        let bare = |text: String| BTreeMap::from([("phone".to_owned(), text)]);
        match self.take(key) {
            None => Vec::new(),
            Some(Value::String(text)) => split_list(&text).into_iter().map(bare).collect(),
            Some(Value::Array(items)) => items
                .into_iter()
                .filter_map(|item| match item {
                    Value::String(text) => Some(bare(text)),
                    Value::Table(table) => Some(
                        table
                            .into_iter()
                            .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                            .collect(),
                    ),
                    Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {
                        self.push_fault(
                            key,
                            None,
                            "has an entry that is neither a text nor a table: write texts in quotes".into(),
                        );
                        None
                    }
                })
                .collect(),
            Some(_) => {
                self.push_fault(key, None, "is a single value: write a list".into());
                Vec::new()
            }
        }
    }
}

fn one_of<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
    format!("one of {}", words.join(", "))
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
