//! Shapes of the document in words and by example. Absent: pages (see `page`).

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The document, in which references are looked up.
pub struct Schemas<'a>(pub &'a Value);

/// A member of an object, in words.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    name: String,
    /// Like all texts here, with `code` and [links](#…) marked as in Markdown.
    r#type: String,
    required: bool,
    description: String,
}

impl<'a> Schemas<'a> {
    /// Those that something refers to as a whole. Others are only parts of these, and shown there.
    pub fn all(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let mut wholes = BTreeSet::new();
        note_wholes(self.0, false, &mut wholes);
        let schemas = self.0["components"]["schemas"].as_object().into_iter().flatten();
        schemas.filter(move |(name, _)| wholes.contains(name.as_str()))
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"]
            .as_str()
            .and_then(|reference| self.0.pointer(reference.trim_start_matches('#')))
        {
            Some(target) => self.resolve(target),
            None => schema,
        }
    }

    /// What it is, in words.
    pub fn words(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.rsplit('/').next())
        {
            return format!("[{name}](#shape-{name})");
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<String> = words.iter().map(|word| format!("`{}`", text(word))).collect();
            return words.join(" · ");
        }
        if let Some(choices) = choices(schema) {
            let choices: Vec<String> = choices.iter().map(|choice| self.words(choice)).collect();
            return choices.join(" or ");
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts: Vec<String> = parts.iter().map(|part| self.words(part)).collect();
            return parts.join(" with ");
        }
        let types: Vec<String> = types(schema).map(|name| self.type_words(name, schema)).collect();
        types.join(" or ")
    }

    fn type_words(&self, name: &str, schema: &Value) -> String {
        let range = match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
            (Some(min), Some(max)) => format!(" from {min} to {max}"),
            (Some(min), None) => format!(" from {min}"),
            (None, _) => String::new(),
        };
        match (name, schema["format"].as_str().unwrap_or_default()) {
            ("string", "date-time") => "time".to_owned(),
            ("string", "date") => "day, like `2026-11-20`".to_owned(),
            ("string", "uuid") => "id".to_owned(),
            ("string", "uri") => "web address".to_owned(),
            ("string", _) => "text".to_owned(),
            ("integer", _) => format!("whole number{range}"),
            ("number", _) => format!("number{range}"),
            ("boolean", _) => "`true` or `false`".to_owned(),
            ("array", _) => format!("list of {}", self.words(&schema["items"])),
            ("null", _) => "`null`".to_owned(),
            (other, _) => other.to_owned(),
        }
    }

    /// The members of each variant: one, unless the shape is a choice.
    pub fn variants(&self, schema: &'a Value) -> Vec<Vec<Member>> {
        let schema = self.resolve(schema);
        if let Some(choices) = choices(schema) {
            return choices.iter().flat_map(|choice| self.variants(choice)).collect();
        }
        let mut variants = vec![self.own_members(schema)];
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let more = self.variants(part);
            let both = |have: &Vec<Member>| more.iter().map(|more| [&have[..], more].concat()).collect::<Vec<_>>();
            variants = variants.iter().flat_map(both).collect();
        }
        variants
    }

    fn own_members(&self, schema: &Value) -> Vec<Member> {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let members = schema["properties"].as_object().into_iter().flatten();
        let member = |(name, member): (&String, &Value)| Member {
            name: name.clone(),
            r#type: self.words(member),
            required: required.contains(&name.as_str()),
            description: text(&member["description"]),
        };
        members.map(member).collect()
    }

    /// An example of it, out of the examples of its parts.
    pub fn example(&self, schema: &'a Value) -> Value {
        for given in [&schema["examples"][0], &schema["example"], &schema["enum"][0]] {
            if !given.is_null() {
                return given.clone();
            }
        }
        if schema.get("$ref").is_some() {
            return self.example(self.resolve(schema));
        }
        if let Some(choice) = choices(schema).and_then(|choices| choices.iter().find(|choice| choice["type"] != "null"))
        {
            return self.example(choice);
        }
        let mut object = Map::new();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            object.extend(self.example(part).as_object().cloned().unwrap_or_default());
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            object.insert(name.clone(), self.example(member));
        }
        if !object.is_empty() {
            return object.into();
        }
        self.plain_example(schema)
    }

    fn plain_example(&self, schema: &'a Value) -> Value {
        if schema.get("items").is_some() {
            return vec![self.example(&schema["items"])].into();
        }
        if types(schema).any(|name| name == "null") {
            return Value::Null;
        }
        match (
            types(schema).next().unwrap_or_default(),
            schema["format"].as_str().unwrap_or_default(),
        ) {
            ("string", "date-time") => "2026-11-20T09:24:39Z".into(),
            ("string", "date") => "2026-11-20".into(),
            ("string", "uuid") => "019a9f3c-5a5e-7d31-9d0e-3f1c2b8a6e10".into(),
            ("string", _) => "…".into(),
            ("integer" | "number", _) => 0.into(),
            ("boolean", _) => false.into(),
            _ => Value::Object(Map::new()),
        }
    }
}

/// Notes the names that are referred to otherwise than as a part of a shape (`allOf`).
fn note_wholes<'a>(value: &'a Value, is_part: bool, wholes: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(reference) if name == "$ref" && !is_part => {
                        wholes.extend(reference.rsplit('/').next());
                    }
                    Value::Array(parts) if name == "allOf" => {
                        parts.iter().for_each(|part| note_wholes(part, true, wholes));
                    }
                    other => note_wholes(other, false, wholes),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| note_wholes(item, false, wholes)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn choices(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array().or(schema["anyOf"].as_array())
}

/// The names of its types: in OpenAPI 3.1 there may be several.
fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let several = schema["type"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    schema["type"].as_str().into_iter().chain(several)
}

/// A text as it is, and any other value as JSON; empty if there is none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
