//! What the source must keep to. Each check takes source files and returns its complaints, so that a few made-up files
//! show that it can fail.

use super::source::{Import, Sources};
use std::collections::{BTreeMap, BTreeSet};

/// What each module may import, beside itself.
pub type Map = [(&'static str, &'static [&'static str])];

/// Imports that the map does not allow, unit tests included, and files that stand on no map.
pub fn wrong_imports(sources: &Sources, map: &Map) -> Vec<String> {
    let top = |path: &str| path.split(['/', '.']).next().unwrap_or_default().to_owned();
    let allowed = |module: &str| map.iter().find(|(name, _)| *name == module).map(|(_, allowed)| allowed);
    let mut found = BTreeSet::new();
    for import in sources.imports() {
        let (from, to) = (top(&import.from), top(&import.to));
        match allowed(&from) {
            None => drop(found.insert(format!("`{from}` is not on the map"))),
            Some(_) if from == to => {}
            Some(allowed) if allowed.contains(&to.as_str()) => {}
            Some(_) => drop(found.insert(format!("{} imports {}", import.from, import.path.join("::")))),
        }
    }
    found.into_iter().collect()
}

/// Files that import each other in a circle, unit tests left out: for each set of files that all lead to one another,
/// its shortest circle and every import within.
pub fn circles(sources: &Sources) -> Vec<String> {
    let mut names: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for Import { from, to, item, .. } in sources.imports().into_iter().filter(|import| !import.is_test) {
        names.entry((from, to)).or_default().insert(item);
    }
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in names.keys() {
        edges.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|file| (*file, reach(&edges, file))).collect();
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for file in edges.keys() {
        let leads_back = |other: &&str| reached.get(other).is_some_and(|theirs| theirs.contains(file));
        let circle: BTreeSet<&str> = reached[file].iter().copied().filter(leads_back).collect();
        if circle.is_empty() || !done.insert(circle.clone()) {
            continue;
        }
        let ways = circle.iter().filter_map(|member| way_back(&edges, member));
        let shortest = ways.min_by_key(Vec::len).unwrap_or_default();
        let mut text = format!(
            "a circle of {} files, the shortest: {}",
            circle.len(),
            shortest.join(" -> ")
        );
        for ((from, to), names) in &names {
            if circle.contains(from.as_str()) && circle.contains(to.as_str()) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                text += &format!("\n    {from} -> {to}: {}", names.join(", "));
            }
        }
        found.push(text);
    }
    found
}

/// Every file that this one leads to.
fn reach<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flatten() {
            if found.insert(*next) {
                open.push(next);
            }
        }
    }
    found
}

/// The shortest way from a file back to itself.
fn way_back<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut ways = std::collections::VecDeque::from([vec![from]]);
    while let Some(way) = ways.pop_front() {
        for next in edges.get(way.last()?).into_iter().flatten() {
            let longer: Vec<&str> = way.iter().copied().chain([*next]).collect();
            if *next == from {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// Where a library is named outside of the folder that alone may know it. Its helpers (`apalis_core`) are meant as well.
pub fn named_outside(sources: &Sources, library: &str, folders: &[&str]) -> Vec<String> {
    sources
        .words()
        .filter(|(file, word)| word.text.starts_with(library) && !folders.iter().any(|folder| file.starts_with(folder)))
        .map(|(file, word)| format!("{file}:{} names `{}`", word.line, word.text))
        .collect()
}

/// Where a provider's words may stand outside its carrier: the beginning of the path, and why.
pub type Exceptions = [(&'static str, &'static str)];

/// A provider: where its words belong, what they contain, and which numbers look like its error codes.
pub struct Provider {
    pub homes: &'static [&'static str],
    pub words: &'static [&'static str],
    pub codes: std::ops::Range<u64>,
}

/// A provider's words in the code outside of its carrier, and exceptions that nothing needs any more. Comments and unit
/// tests may name it: they tell where a rule comes from.
pub fn foreign_words(sources: &Sources, provider: &Provider, exceptions: &Exceptions) -> Vec<String> {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    let mut files = BTreeSet::new();
    for (file, word) in sources.words() {
        files.insert(file);
        if word.is_test || provider.homes.iter().any(|home| file.starts_with(home)) || !provider.says(&word.text) {
            continue;
        }
        match exceptions.iter().find(|(path, _)| file.starts_with(path)) {
            Some((path, _)) => drop(needed.insert(*path)),
            None => found.push(format!("{file}:{} says {}", word.line, word.text)),
        }
    }
    for (path, why) in exceptions {
        if files.iter().any(|file| file.starts_with(path)) && !needed.contains(path) {
            found.push(format!(
                "nothing in {path} needs its exception any more: take it out ({why})"
            ));
        }
    }
    found
}

/// Statements outside of `home` that write one of these tables. By text: SQL stands in string literals.
pub fn written_outside(files: &super::source::Files, home: &str, tables: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.starts_with(home)) {
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(3) {
            let table = match pair {
                ["update", table, "set"] | ["insert", "into", table] | ["delete", "from", table] => table,
                _ => continue,
            };
            if tables.contains(table) {
                found.push(format!("{path} writes {table}"));
            }
        }
    }
    found
}

impl Provider {
    fn says(&self, word: &str) -> bool {
        let low = word.to_lowercase();
        // A round number is a quantity.
        let number: Option<u64> = low.replace('_', "").parse().ok();
        self.words.iter().any(|own| low.contains(own))
            || number.is_some_and(|number| self.codes.contains(&number) && number % 100 != 0)
    }
}
