//! What is asked for in the address of a list. Only the parameters that the page has a field for count: a number is never
//! shown in full because somebody added `reveal=phone`.

use super::rendering::view;
use crate::http::{admin::api::query, error::Problem};
use axum::http::Uri;
use minijinja::Value;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use url::form_urlencoded::{Serializer, parse};

/// The parameters of a list, as they were given.
pub struct Asked {
    path: String,
    given: BTreeMap<String, String>,
}

impl Asked {
    /// Reads those of `names`; empty ones count as not given.
    pub fn of(uri: &Uri, names: &[&str]) -> Self {
        let given = parse(uri.query().unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), value.trim().to_owned()))
            .filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        Self {
            path: uri.path().to_owned(),
            given: given.collect(),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// Puts another value in the place of a parameter.
    pub fn set(&mut self, name: &str, value: String) {
        self.given.insert(name.to_owned(), value);
    }

    /// Reads them as the API would.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        query::read(&self.query(None))
    }

    /// Whether anything narrows the list.
    pub fn is_narrowed(&self) -> bool {
        self.given.keys().any(|name| name != "cursor")
    }

    /// The address of the page after this one, if there is one.
    pub fn next(&self, cursor: Option<&str>) -> Option<String> {
        cursor.map(|cursor| format!("{}?{}", self.path, self.query(Some(cursor))))
    }

    /// The address of the first page with one parameter more.
    pub fn with(&self, name: &str, value: &str) -> String {
        let mut more = self.given.clone();
        more.remove("cursor");
        more.insert(name.to_owned(), value.to_owned());
        let query = Serializer::new(String::new()).extend_pairs(more).finish();
        format!("{}?{query}", self.path)
    }

    /// The address of the first page, if this is another one.
    pub fn first(&self) -> Option<String> {
        self.given.get("cursor")?;
        let mut without = self.given.clone();
        without.remove("cursor");
        let query = Serializer::new(String::new()).extend_pairs(without).finish();
        Some(format!("{}?{query}", self.path))
    }

    /// For the fields of the form.
    pub fn values(&self) -> Value {
        view(&self.given)
    }

    fn query(&self, cursor: Option<&str>) -> String {
        let kept = self
            .given
            .iter()
            .filter(|(name, _)| cursor.is_none() || *name != "cursor");
        Serializer::new(String::new())
            .extend_pairs(kept)
            .extend_pairs(cursor.map(|cursor| ("cursor", cursor)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_parameters_count_and_the_next_page_keeps_them() {
        let uri = Uri::from_static("/admin/deliveries?state=failed&day=&reveal=phone&cursor=a&ticket_id=+1%26+");
        let asked = Asked::of(&uri, &["state", "day", "ticket_id", "cursor"]);

        assert_eq!((asked.get("ticket_id"), asked.get("reveal")), (Some("1&"), None));
        assert_eq!(
            asked.next(Some("b c")).as_deref(),
            Some("/admin/deliveries?state=failed&ticket_id=1%26&cursor=b+c")
        );
        assert_eq!(
            asked.first().as_deref(),
            Some("/admin/deliveries?state=failed&ticket_id=1%26")
        );
        assert_eq!(asked.next(None), None);
    }
}
