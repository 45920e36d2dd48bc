//! Reads a JSON document strictly (a member named twice is an error, where serde_json silently keeps the last) and
//! walks it while collecting every fault with its JSON pointer. Absent: what an event means (see `event`).

use serde::{
    Serialize,
    de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Parses one JSON document. The error says what is wrong and where, and never quotes more than a member's name.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                let name = super::text::clean_line(&name, 40);
                return Err(de::Error::custom(format_args!("the member `{name}` is there twice")));
            }
            let Strict(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// One bad field: where it is and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = BadField)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the field; of a missing one, where it should be.
    #[schema(examples("/ticket/url"))]
    pub pointer: String,
    /// What is wrong and what would be right.
    #[schema(examples("this is no web address: send one that begins with `https://` or `http://`"))]
    pub detail: String,
}

/// A place in a JSON document, and the faults found so far in the whole of it.
pub struct Reader<'a> {
    value: Option<&'a Value>,
    pointer: String,
}

impl<'a> Reader<'a> {
    /// Starts at the root.
    pub fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            pointer: String::new(),
        }
    }

    /// The member `name` of this object; absent where this is no object, and `null` counts as absent.
    pub fn member(&self, name: &str) -> Self {
        let value = self.value.and_then(|value| value.get(name));
        Self {
            value: value.filter(|value| !value.is_null()),
            pointer: format!("{}/{name}", self.pointer),
        }
    }

    /// Whether there is a value (other than `null`) here.
    pub fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// Notes a fault at this place.
    pub fn fault(&self, faults: &mut Vec<Fault>, detail: impl Into<String>) {
        faults.push(Fault {
            pointer: self.pointer.clone(),
            detail: detail.into(),
        });
    }

    fn wrong_type(&self, faults: &mut Vec<Fault>, wanted: &str) {
        let found = match self.value {
            None | Some(Value::Null) => "nothing",
            Some(Value::Bool(_)) => "true or false",
            Some(Value::Number(_)) => "a number",
            Some(Value::String(_)) => "a text",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "an object",
        };
        self.fault(faults, format!("this is {found}: send {wanted}"));
    }

    /// Checks that an object is here, if anything is.
    pub fn expect_object(&self, faults: &mut Vec<Fault>) {
        if self.value.is_some_and(|value| !value.is_object()) {
            self.wrong_type(faults, "an object");
        }
    }

    /// A text, as it came.
    pub fn text(&self, faults: &mut Vec<Fault>) -> Option<&'a str> {
        let text = self.value?.as_str();
        if text.is_none() {
            self.wrong_type(faults, "a text");
        }
        text
    }

    /// An id: a text, or a whole number, which becomes its decimal text.
    pub fn id(&self, faults: &mut Vec<Fault>) -> Option<String> {
        match self.value? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => {
                self.wrong_type(faults, "a text or a whole number");
                None
            }
        }
    }

    /// A number from `0` to `max`.
    pub fn number(&self, faults: &mut Vec<Fault>, max: f64) -> Option<f64> {
        match self.value?.as_f64() {
            Some(number) if (0.0..=max).contains(&number) => Some(number),
            Some(number) => {
                let detail = format!("{number} is out of range: send a number from 0 to {max}");
                self.fault(faults, detail);
                None
            }
            None => {
                self.wrong_type(faults, "a number");
                None
            }
        }
    }

    /// The items of a list, at most `max`.
    pub fn items(&self, faults: &mut Vec<Fault>, max: usize) -> Vec<Self> {
        match self.value {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() > max => {
                self.fault(faults, format!("there are {} items: send at most {max}", list.len()));
                Vec::new()
            }
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| Self {
                    value: Some(value),
                    pointer: format!("{}/{index}", self.pointer),
                })
                .collect(),
            Some(_) => {
                self.wrong_type(faults, "a list");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth() {
        let error = parse(br#"{"a":{"b":[{"c":1,"c":2}]}}"#).unwrap_err();

        assert!(error.to_string().contains("`c` is there twice"), "{error}");
    }

    #[test]
    fn an_ordinary_document_is_read_as_serde_json_reads_it() {
        let text = br#"{"a":[1,-2,3.5,true,null,"x\u00e4"],"b":{}}"#;

        assert_eq!(parse(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
    }

    #[test]
    fn a_bottomless_document_is_an_error_and_not_a_crash() {
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
