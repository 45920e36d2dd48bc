//! Reads source files as far as the checks need: which names they write, and which file a path leads to.
//!
//! What counts as an import: every path that is written in the code, in `use` trees (braces, `self`, `super`, `as`) and
//! in expressions, types and macro bodies, that begins with `crate`, `super`, `self`, a child module or a name that such
//! a `use` brought in. It leads to the file that defines what it names: a name that a file only passes on (`pub use`, or a
//! `use` that its children reach by `super::`) leads to where that came from. A `pub use` of a child's name is no import
//! of the child, unless the file also uses the name itself or passes on everything (`*`). `mod x;` is no import.
//!
//! Absent: methods (a call of `db.find()` names no file), paths in texts of attributes, `#[macro_use]`.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// Source files: path below `src` -> text.
pub type Files = BTreeMap<String, String>;

/// A word of the code: an identifier or a literal. Comments have none.
pub struct Word {
    pub text: String,
    pub line: usize,
    /// Whether it stands under `#[cfg(test)]`.
    pub is_test: bool,
}

/// A path as it is written.
#[derive(Clone)]
struct Mention {
    path: Vec<String>,
    /// The inline modules around it.
    scope: Vec<String>,
    /// What a `use` calls it here; `*` for everything. `None` outside of `use`.
    name: Option<String>,
    is_public: bool,
    is_test: bool,
}

#[derive(Default)]
struct File {
    module: Vec<String>,
    words: Vec<Word>,
    mentions: Vec<Mention>,
    /// Identifiers outside of `use`, without those of tests.
    used: BTreeSet<String>,
}

/// All files, read.
pub struct Sources {
    files: BTreeMap<String, File>,
    by_module: BTreeMap<Vec<String>, String>,
}

/// One import.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file in which it stands.
    pub from: String,
    /// The file that it leads to.
    pub to: String,
    /// The path that was written, in full.
    pub path: Vec<String>,
    /// What is imported: the first name that is no module, or else the module.
    pub item: String,
    pub is_test: bool,
}

impl Sources {
    pub fn read(texts: &Files) -> Self {
        let mut files = BTreeMap::new();
        for (path, text) in texts {
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut file = File {
                module: module_of(path),
                ..File::default()
            };
            file.walk(tokens, &[], false);
            files.insert(path.clone(), file);
        }
        let by_module = files
            .iter()
            .map(|(path, file)| (file.module.clone(), path.clone()))
            .collect();
        Self { files, by_module }
    }

    /// Every word of the code, with its file.
    pub fn words(&self) -> impl Iterator<Item = (&str, &Word)> {
        self.files
            .iter()
            .flat_map(|(path, file)| file.words.iter().map(move |word| (path.as_str(), word)))
    }

    /// Every import from one file to another.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut found = BTreeSet::new();
        for (from, file) in &self.files {
            for mention in &file.mentions {
                let Some(path) = self.in_full(file, mention) else {
                    continue;
                };
                let to = self.find(&path, 0);
                if to != *from && !file.only_passes_on(mention, &path) {
                    found.insert(Import {
                        from: from.clone(),
                        to,
                        item: self.item(&path),
                        path,
                        is_test: mention.is_test,
                    });
                }
            }
        }
        found
    }

    fn item(&self, path: &[String]) -> String {
        let is_item = |end: &usize| !self.by_module.contains_key(&path[..*end]);
        let end = (1..=path.len()).find(is_item).unwrap_or(path.len());
        path[..end].last().cloned().unwrap_or_default()
    }

    /// The path from the root of the crate; `None` if it leads out of the crate.
    fn in_full(&self, file: &File, mention: &Mention) -> Option<Vec<String>> {
        let (head, rest) = mention.path.split_first()?;
        let mut full: Vec<String> = [&file.module[..], &mention.scope[..]].concat();
        match head.as_str() {
            "crate" => full.clear(),
            "self" => {}
            "super" => {
                full.pop();
            }
            child if self.by_module.contains_key(&joined(&file.module, child)) => {
                full = joined(&file.module, child);
            }
            name => {
                let brought = file.mentions.iter().find(|other| other.brings(name))?;
                full = self.in_full(file, brought)?;
            }
        }
        for segment in rest {
            match segment.as_str() {
                "super" => {
                    full.pop();
                }
                "self" => {}
                _ => full.push(segment.clone()),
            }
        }
        Some(full)
    }

    /// The file that defines what this full path names.
    fn find(&self, path: &[String], depth: usize) -> String {
        let mut file = self.by_module.get(&Vec::new()).map_or("main.rs", String::as_str);
        for end in 1..=path.len() {
            if let Some(deeper) = self.by_module.get(&path[..end]) {
                file = deeper;
                continue;
            }
            // What the file does not define it has from elsewhere.
            let brought = self.files.get(file).and_then(|known| {
                let mention = known.mentions.iter().find(|mention| mention.brings(&path[end - 1]))?;
                self.in_full(known, mention)
            });
            return match brought {
                // A circle of `use` does not compile; the limit only keeps a faulty fixture from running for ever.
                Some(target) if depth < 16 && target != path[..end] => self.find(&target, depth + 1),
                _ => file.to_owned(),
            };
        }
        file.to_owned()
    }
}

impl Mention {
    /// Whether it is a `use` at the top of a file that brings in this name from elsewhere.
    fn brings(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
            && self.scope.is_empty()
            && self.path.first().is_some_and(|head| head != name)
    }
}

impl File {
    fn only_passes_on(&self, mention: &Mention, path: &[String]) -> bool {
        let Some(name) = &mention.name else {
            return false;
        };
        let is_of_child = path.len() > self.module.len() && path.starts_with(&self.module);
        mention.is_public && is_of_child && name != "*" && !self.used.contains(name)
    }

    fn walk(&mut self, tokens: TokenStream, scope: &[String], is_test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // Whether the item that follows belongs to tests.
        let mut marks_test = false;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let is_test = is_test || marks_test;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    at += usize::from(is_punct(tokens.get(at + 1), '!'));
                    if let Some(TokenTree::Group(attribute)) = tokens.get(at + 1) {
                        marks_test |= attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                        if !is_doc(attribute) {
                            self.walk(attribute.stream(), scope, is_test);
                        }
                        at += 1;
                    }
                }
                TokenTree::Punct(punct) => marks_test &= punct.as_char() != ';',
                TokenTree::Group(group) if at > 0 && is_ident(tokens.get(at - 1), "pub") && is_visibility(group) => {}
                TokenTree::Group(group) => {
                    let inline = (at >= 2 && is_ident(tokens.get(at - 2), "mod")).then(|| tokens[at - 1].to_string());
                    let scope: Vec<String> = scope.iter().cloned().chain(inline).collect();
                    self.walk(group.stream(), &scope, is_test);
                    marks_test &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Literal(literal) => self.words.push(Word {
                    text: literal.to_string(),
                    line: literal.span().start().line,
                    is_test,
                }),
                TokenTree::Ident(ident) if *ident == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let length = tokens[at..].iter().position(|token| is_punct(Some(token), ';'));
                    let end = at + length.unwrap_or(tokens.len() - at);
                    let before = &tokens[..at];
                    let is_public = is_ident(before.last(), "pub")
                        || before.len() >= 2 && is_ident(before.get(before.len() - 2), "pub");
                    self.note_words(&tokens[at + 1..end], is_test);
                    for (path, name) in leaves(&[], &tokens[at + 1..end]) {
                        self.mentions.push(Mention {
                            path,
                            scope: scope.to_vec(),
                            name: Some(name),
                            is_public,
                            is_test,
                        });
                    }
                    marks_test = false;
                    at = end;
                }
                TokenTree::Ident(_) => {
                    let mut path = Vec::new();
                    let begun = at;
                    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
                        path.push(ident.to_string());
                        if !is_separator(&tokens, at + 1) || !matches!(tokens.get(at + 3), Some(TokenTree::Ident(_))) {
                            break;
                        }
                        at += 3;
                    }
                    self.note_words(&tokens[begun..=at], is_test);
                    if !is_test {
                        self.used.extend(path.iter().cloned());
                    }
                    if path.len() > 1 && !(begun >= 2 && is_separator(&tokens, begun - 2)) {
                        self.mentions.push(Mention {
                            path,
                            scope: scope.to_vec(),
                            name: None,
                            is_public: false,
                            is_test,
                        });
                    }
                }
            }
            at += 1;
        }
    }

    fn note_words(&mut self, tokens: &[TokenTree], is_test: bool) {
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => self.words.push(Word {
                    text: ident.to_string(),
                    line: ident.span().start().line,
                    is_test,
                }),
                TokenTree::Group(group) => self.note_words(&group.stream().into_iter().collect::<Vec<_>>(), is_test),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

/// The leaves of a `use` tree: each path, and what it is called here.
fn leaves(prefix: &[String], tokens: &[TokenTree]) -> Vec<(Vec<String>, String)> {
    let mut path = prefix.to_vec();
    let mut renamed = None;
    let mut rest = tokens.iter();
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Ident(ident) if *ident == "as" => renamed = rest.next().map(ToString::to_string),
            TokenTree::Ident(ident) if *ident == "self" && !path.is_empty() => {}
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => renamed = Some("*".to_owned()),
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let branches = inner.split(|token| is_punct(Some(token), ','));
                return branches
                    .filter(|branch| !branch.is_empty())
                    .flat_map(|branch| leaves(&path, branch))
                    .collect();
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    let name = renamed.or_else(|| path.last().cloned()).unwrap_or_default();
    vec![(path, name)]
}

fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "main" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

fn joined(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn is_doc(attribute: &Group) -> bool {
    is_ident(attribute.stream().into_iter().next().as_ref(), "doc")
}

/// Whether these are the brackets of `pub(crate)` and its like, not the first field of a tuple.
fn is_visibility(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Parenthesis
        && ["crate", "super", "self", "in"]
            .iter()
            .any(|word| is_ident(first.as_ref(), word))
}

fn is_ident(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if *ident == word)
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Whether a `::` begins here.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint)
        && is_punct(tokens.get(at + 1), ':')
}
