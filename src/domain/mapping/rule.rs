//! Where one value of an event stands in a helpdesk's own document: a JSON Pointer, an RFC 9535 JSONPath, or text with such
//! holes. Absent: which values there are (see the parent).

use serde_json::Value;
use serde_json_path::JsonPath;

/// One way to find a value.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As the configuration has it.
    pub text: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Place(Place),
    /// Literal text and holes in turns.
    Text(Vec<Piece>),
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Hole(Place),
}

/// One place in a document.
#[derive(Clone, Debug)]
enum Place {
    Pointer(String),
    Path(JsonPath),
}

/// Why a rule gave no value, for whoever writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The pointer or path that was tried.
    pub place: String,
    /// What stands there.
    pub found: &'static str,
}

impl Rule {
    /// Reads a rule. `base_url` stands in for `{base_url}`. Fails with what is wrong.
    pub fn parse(text: &str, base_url: Option<&str>) -> Result<Self, String> {
        let text = text.trim();
        let what = if text.starts_with(['/', '$']) {
            What::Place(Place::parse(text)?)
        } else {
            What::Text(pieces(text, base_url)?)
        };
        Ok(Self {
            text: text.to_owned(),
            what,
        })
    }

    /// The value as text: of a JSONPath that finds several, the first that is one.
    pub fn text(&self, document: &Value) -> Result<String, Miss> {
        match &self.what {
            What::Place(place) => place.text(document),
            What::Text(pieces) => {
                let texts = pieces.iter().map(|piece| match piece {
                    Piece::Literal(text) => Ok(text.clone()),
                    Piece::Hole(place) => place.text(document),
                });
                texts.collect()
            }
        }
    }

    /// What stands there; the items of a list each for itself.
    pub fn items<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        match &self.what {
            What::Place(place) => place.all(document).into_iter().flat_map(list_items).collect(),
            What::Text(_) => Vec::new(),
        }
    }
}

fn list_items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

/// Splits text at its holes; `{{` stands for a brace.
fn pieces(text: &str, base_url: Option<&str>) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(start) = rest.find('{') {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            literal.push('{');
            rest = after;
            continue;
        }
        // A filter of a JSONPath may hold a brace in quotes; nobody has one, and a pointer hardly ever.
        let end = rest
            .find('}')
            .ok_or("has a `{` that is not closed: write `{/pointer}`")?;
        let hole = &rest[..end];
        rest = &rest[end + 1..];
        if hole == "base_url" {
            let base_url = base_url.ok_or(
                "has `{base_url}`, and `base_url` of the source is not set: set it to the helpdesk's web address",
            )?;
            literal.push_str(base_url.trim_end_matches('/'));
            continue;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Hole(Place::parse(hole)?));
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Pointer(text.to_owned()));
        }
        if !text.starts_with('$') {
            return Err(format!(
                "has the hole `{{{text}}}`, which is neither a JSON Pointer like `{{/ticket/id}}` nor a JSONPath like `{{$.ticket.id}}`"
            ));
        }
        let path = JsonPath::parse(text);
        path.map(Self::Path)
            .map_err(|error| format!("is no JSONPath (RFC 9535): {error}"))
    }

    fn all<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Pointer(pointer) => document.pointer(pointer).into_iter().collect(),
            Self::Path(path) => path.query(document).all(),
        }
    }

    fn text(&self, document: &Value) -> Result<String, Miss> {
        let found = self.all(document);
        let text = found.iter().find_map(|value| match value {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        });
        text.ok_or_else(|| Miss {
            place: match self {
                Self::Pointer(pointer) => pointer.clone(),
                Self::Path(path) => path.to_string(),
            },
            found: match found.first() {
                None => "nothing",
                Some(Value::Null) => "`null`",
                Some(Value::Array(_)) => "a list",
                Some(Value::Object(_)) => "an object",
                Some(Value::String(_)) => "an empty text",
                Some(Value::Number(_) | Value::Bool(_)) => "a value",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(rule: &str, document: &Value) -> Result<String, String> {
        let rule = Rule::parse(rule, Some("https://help.example.com/")).unwrap();
        rule.text(document)
            .map_err(|miss| format!("{} at {}", miss.found, miss.place))
    }

    #[test]
    fn values_are_found_by_pointer_by_path_and_in_text() {
        let document = json!({"id": 81, "title": " Printer ", "tags": [{"name": "a", "value": null}, {"name": "b", "value": 93}], "open": true});

        for (rule, found) in [
            ("/id", "81"),
            ("/title", "Printer"),
            ("/open", "true"),
            ("$.tags[?@.name=='b'].value", "93"),
            ("$.tags[*].value", "93"),
            ("{base_url}/#ticket/{/id}", "https://help.example.com/#ticket/81"),
            ("{$.tags[0].name} {/title}", "a Printer"),
            ("critical", "critical"),
            ("{{/id}", "{/id}"),
        ] {
            assert_eq!(text(rule, &document).as_deref(), Ok(found), "{rule}");
        }
    }

    #[test]
    fn a_miss_says_what_was_tried_and_what_stands_there() {
        let document = json!({"a": {"b": 1}, "n": null, "l": [1], "e": " "});

        for (rule, miss) in [
            ("/a", "an object at /a"),
            ("/a/c", "nothing at /a/c"),
            ("/n", "`null` at /n"),
            ("/l", "a list at /l"),
            ("/e", "an empty text at /e"),
            ("see {/a/b} and {/x}", "nothing at /x"),
            ("$.a.z", "nothing at $.a.z"),
        ] {
            assert_eq!(text(rule, &document).unwrap_err(), miss, "{rule}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_to_write() {
        for (rule, wrong) in [
            ("$.[", "is no JSONPath"),
            ("{ticket.id}", "has the hole `{ticket.id}`"),
            ("a {/b", "is not closed"),
        ] {
            let error = Rule::parse(rule, None).unwrap_err();
            assert!(error.contains(wrong), "{rule}: {error}");
        }
        assert!(Rule::parse("{base_url}/x", None).unwrap_err().contains("`base_url`"));
    }
}
