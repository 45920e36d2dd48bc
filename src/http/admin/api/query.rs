//! Reads the query of an address into a type, and the parameters that several lists share. A parameter without a value
//! counts as not given, of one that is given twice the last counts, and unknown ones are ignored.

pub use crate::domain::phone::NO_PHONE;
use crate::{
    domain::{day::LocalDay, delivery, text::clean_line},
    http::error::Problem,
    store::Page,
};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderValue, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::ObjectBuilder, schema::Type},
};

/// The query, read into `T`. What cannot be read is a 422 that points to the parameter.
pub struct Query<T>(pub T);

impl<T: de::DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query as it stands in an address.
pub fn read<T: de::DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut given: Map<String, Value> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
        .collect();
    given.retain(|_, value| *value != "");
    serde_path_to_error::deserialize(Value::Object(given)).map_err(|error| {
        let pointer = format!("/{}", error.path());
        Problem::field(&pointer, error.into_inner().to_string())
    })
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before.
    #[param(nullable = false)]
    pub cursor: Option<String>,
    /// How many items a page has; more than 200 counts as 200.
    #[param(value_type = i64, minimum = 1, default = 50, required = false)]
    #[serde(default)]
    pub limit: PageSize,
}

/// A page of a list as it is answered: with a link to the next one (RFC 8288), which keeps what was asked for.
pub struct Listed<T> {
    pub page: Page<T>,
    /// The address that was asked.
    pub uri: Uri,
}

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let next = self.page.next.as_deref().map(|cursor| next_link(&self.uri, cursor));
        let link = next.and_then(|link| HeaderValue::from_str(&link).ok());
        let mut response = Json(self.page).into_response();
        response.headers_mut().extend(link.map(|link| (header::LINK, link)));
        response
    }
}

fn next_link(uri: &Uri, cursor: &str) -> String {
    let asked = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let kept = asked.filter(|(name, _)| name != "cursor");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("cursor", cursor)
        .finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}

/// How one thing is shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// Shows phone numbers in full.
    #[param(inline, required = false)]
    #[serde(default)]
    pub reveal: Phones,
}

/// How many items a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PageSize(pub i64);

impl PageSize {
    const MAX: i64 = 200;
}

impl Default for PageSize {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<String> for PageSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<i64>() {
            Ok(size) if size >= 1 => Ok(Self(size.min(Self::MAX))),
            Ok(_) | Err(_) => Err(format!(
                "`{}` is not a whole number from 1 to {}",
                clean_line(&text, 40),
                Self::MAX
            )),
        }
    }
}

/// How phone numbers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Phones {
    #[default]
    Masked,
    /// As `?reveal=phone` asks.
    InFull,
}

impl TryFrom<String> for Phones {
    type Error = String;

    fn try_from(reveal: String) -> Result<Self, String> {
        match reveal.as_str() {
            "phone" => Ok(Self::InFull),
            other => Err(format!(
                "`{}` cannot be revealed: only `phone` can",
                clean_line(other, 40)
            )),
        }
    }
}

impl PartialSchema for Phones {
    fn schema() -> RefOr<Schema> {
        let words = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["phone"]));
        Schema::from(words).into()
    }
}

impl ToSchema for Phones {}

/// Reads a local day, in a query or in a path.
pub fn parse_day(text: &str) -> Result<LocalDay, String> {
    LocalDay::parse(text).ok_or_else(|| format!("`{}` is not a day: write it like `2026-11-20`", clean_line(text, 40)))
}

/// For `deserialize_with`.
pub fn day<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<LocalDay>, D::Error> {
    let text = String::deserialize(parameter)?;
    parse_day(&text).map(Some).map_err(de::Error::custom)
}

/// The states of a delivery, for a message that says what may be asked for.
pub fn state_words() -> String {
    let words: Vec<&str> = delivery::State::ALL.iter().map(|state| state.as_str()).collect();
    words.join(", ")
}

/// For `deserialize_with`.
pub fn is_true<'de, D: Deserializer<'de>>(parameter: D) -> Result<bool, D::Error> {
    let text = String::deserialize(parameter)?;
    text.parse().map_err(|_| {
        de::Error::custom(format_args!(
            "`{}` is neither `true` nor `false`",
            clean_line(&text, 40)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Example {
        source: Option<String>,
        #[serde(default, deserialize_with = "day")]
        day: Option<LocalDay>,
        #[serde(default)]
        limit: PageSize,
        #[serde(default)]
        reveal: Phones,
        #[serde(default, deserialize_with = "is_true")]
        force: bool,
    }

    #[test]
    fn a_parameter_without_a_value_is_not_given_and_an_unknown_one_is_ignored() {
        assert_eq!(
            read::<Example>("source=&day=&limit=&reveal=&force=&other=1&&=").unwrap(),
            Example::default()
        );
    }

    #[test]
    fn the_last_of_several_counts_also_if_it_is_empty() {
        let example: Example = read("limit=7&limit=900&source=a&source=").unwrap();

        assert_eq!((example.limit, example.source), (PageSize(200), None));
    }

    #[test]
    fn texts_are_taken_as_they_are() {
        let example: Example = read("source=7&reveal=phone&force=true&day=2026-11-20").unwrap();

        assert_eq!(example.source.as_deref(), Some("7"));
        assert_eq!((example.reveal, example.force), (Phones::InFull, true));
        assert_eq!(example.day, LocalDay::parse("2026-11-20"));
        let other: Example = read("force=false").unwrap();
        assert_eq!((other.reveal, other.force), (Phones::Masked, false));
    }

    #[test]
    fn the_next_page_keeps_what_was_asked_for() {
        let uri = Uri::from_static("/v1/deliveries?ticket_id=a%26b&cursor=old&limit=2&reveal=");

        assert_eq!(
            next_link(&uri, "+1 new"),
            "</v1/deliveries?ticket_id=a%26b&limit=2&reveal=&cursor=%2B1+new>; rel=\"next\""
        );
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_pointed_to() {
        for (query, pointer, detail) in [
            ("limit=0", "/limit", "`0` is not a whole number from 1 to 200"),
            ("limit=ten", "/limit", "`ten` is not a whole number from 1 to 200"),
            ("reveal=all", "/reveal", "`all` cannot be revealed: only `phone` can"),
            ("force=yes", "/force", "`yes` is neither `true` nor `false`"),
            ("day=today", "/day", "`today` is not a day: write it like `2026-11-20`"),
        ] {
            let response = read::<Example>(query).unwrap_err().into_response();

            assert_eq!(response.status(), 422);
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                body["errors"],
                serde_json::json!([{"pointer": pointer, "detail": detail}])
            );
        }
    }
}
