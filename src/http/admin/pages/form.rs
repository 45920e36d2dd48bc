//! The fields of a form, whether they come as an address or, with a file among them, in parts. Absent: what they mean.

use crate::http::{
    body::{self, Limits},
    error::{Kind, Problem},
};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use futures::stream;
use std::{collections::HashMap, convert::Infallible};

/// The fields by name; of one that is given twice, the last that is not empty.
#[derive(Clone, Default)]
pub struct Fields(HashMap<String, Vec<u8>>);

impl Fields {
    /// Reads the body of a request.
    pub async fn read(headers: &HeaderMap, raw: Body, limits: Limits) -> Result<Self, Problem> {
        let bytes = body::read(raw, limits).await?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if let Some(boundary) = kind.and_then(|kind| multer::parse_boundary(kind).ok()) {
            return Self::in_parts(bytes, boundary)
                .await
                .map_err(|_| Problem::new(Kind::IncompleteBody, "The form did not arrive whole. Send it again."));
        }
        let mut fields = Self::default();
        for (name, value) in url::form_urlencoded::parse(&bytes) {
            fields.insert(name.into_owned(), value.into_owned().into_bytes());
        }
        Ok(fields)
    }

    async fn in_parts(bytes: Vec<u8>, boundary: String) -> Result<Self, multer::Error> {
        let whole = stream::iter([Ok::<_, Infallible>(bytes)]);
        let mut parts = multer::Multipart::new(whole, boundary);
        let mut fields = Self::default();
        while let Some(part) = parts.next_field().await? {
            let name = part.name().unwrap_or_default().to_owned();
            fields.insert(name, part.bytes().await?.to_vec());
        }
        Ok(fields)
    }

    fn insert(&mut self, name: String, value: Vec<u8>) {
        if !value.is_empty() {
            self.0.insert(name, value);
        }
    }

    /// The text of a field, without blanks around it; empty if it is not there.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).trim().to_owned()
    }

    /// A field as it came; empty if it is not there.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fields_are_the_same_in_both_kinds_of_forms() {
        let in_parts = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1 & 2\r\n--x\r\n\
            Content-Disposition: form-data; name=\"csv\"; filename=\"f.csv\"\r\nContent-Type: text/csv\r\n\r\n+1\n\r\n--x--\r\n";
        for (kind, body) in [
            ("application/x-www-form-urlencoded", "a=1+%26+2&csv=%2B1%0A&csv="),
            ("multipart/form-data; boundary=x", in_parts),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            let fields = Fields::read(&headers, Body::from(body), body::FILE).await.unwrap();

            assert_eq!(fields.text("a"), "1 & 2", "{kind}");
            assert_eq!(fields.bytes("csv"), b"+1\n", "{kind}");
            assert_eq!(fields.text("none"), "");
        }
    }
}
