//! `GET /openapi.json` and the pages for people at `/docs`, which need nothing from elsewhere, run nothing and hold no
//! secret, so anybody may read them. All of it is made at the first request and not before.

mod document;
mod page;
mod schema;
mod webhooks;

use super::state::AppState;
use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};
use std::sync::{Arc, LazyLock};

/// The document, as it is sent.
static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| document::make().to_string().into());

/// The pages for people, as they are sent.
static PAGES: LazyLock<page::Pages> = LazyLock::new(page::Pages::make);

/// What the pages may do: have a style of our own.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(|| async { html(&PAGES.endpoints) }))
        .route("/docs/problems", get(|| async { html(&PAGES.problems) }))
        .route("/docs/style.css", get(style))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.clone())
}

fn html(page: &Bytes) -> impl IntoResponse + use<> {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, page.clone())
}

/// The pages ask for it with a hash of its content, so it may be kept for ever.
async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, page::STYLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        admin::Admins,
        error::Kind,
        public::{Callers, Probes},
    };
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_slice(&OPENAPI).unwrap()
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let routes: BTreeSet<(String, String)> = [Callers::ROUTES, Admins::ROUTES, Probes::ROUTES]
            .concat()
            .into_iter()
            .map(|(method, path)| (method.to_owned(), path.to_owned()))
            .collect();

        let document = document();
        let paths = document["paths"].as_object().unwrap().iter();
        let documented = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.clone(), path.clone()))
        });

        assert_eq!(routes, documented.collect());
    }

    #[test]
    fn every_operation_says_what_it_does_and_has_a_name_and_a_section_of_its_own() {
        let document = document();
        let tags: Vec<&Value> = document["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| &tag["name"])
            .collect();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(!schema::text(&operation["summary"]).is_empty(), "{method} {path}");
                assert!(tags.contains(&&operation["tags"][0]), "{method} {path}");
                assert!(names.insert(schema::text(&operation["operationId"])), "{method} {path}");
            }
        }
    }

    #[test]
    fn the_pages_render_and_have_a_section_for_every_endpoint_shape_and_problem() {
        let (endpoints, problems) = (
            String::from_utf8_lossy(&PAGES.endpoints),
            String::from_utf8_lossy(&PAGES.problems),
        );

        for kind in Kind::ALL {
            let section = format!("id=\"{}\"", kind.name());
            assert_eq!(problems.matches(&section).count(), 1, "{section}");
            assert!(!kind.text().is_empty());
        }
        for link in endpoints.split("href=\"#").skip(1) {
            let target = link.split('"').next().unwrap();
            assert!(
                endpoints.contains(&format!("id=\"{target}\"")),
                "#{target} leads nowhere"
            );
        }
        assert!(endpoints.matches("href=\"/docs/problems#").count() > 100);
        for link in endpoints.split("href=\"/docs/problems#").skip(1) {
            let target = link.split('"').next().unwrap();
            assert!(Kind::ALL.iter().any(|kind| kind.name() == target), "{target}");
        }
        assert!(endpoints.contains("curl -X POST"));
    }

    /// What the reader of events and the schema of events say of each other.
    mod events {
        use super::*;
        use crate::domain::event;
        use jiff::Timestamp;
        use serde_json::json;

        fn example() -> Value {
            let document = document();
            schema::Schemas(&document).example(&document["components"]["schemas"]["Event"])
        }

        /// The pointers to all members of an example.
        fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
            let below = |name: &str, member: &Value, found: &mut Vec<String>| {
                let at = format!("{at}/{name}");
                pointers(member, &at, found);
                found.push(at);
            };
            match value {
                Value::Object(members) => members.iter().for_each(|(name, member)| below(name, member, found)),
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        pointers(item, &format!("{at}/{index}"), found);
                    }
                }
                _ => {}
            }
        }

        #[test]
        fn the_example_is_a_critical_event_with_every_member() {
            let event = event::parse(&example(), "2026-11-20T09:30:00Z".parse().unwrap()).unwrap();

            assert_eq!(event.meaning, event::Meaning::Critical);
            assert!(event.id.is_some() && event.is_dated && event.kind.is_some());
            assert!(event.ticket.url.is_some() && event.ticket.confidence_percent.is_some());
            assert!(event.client.organisation.is_some());
            let recipient = &event.recipients[0];
            assert!(recipient.staff_id.is_some() && recipient.region.is_some() && recipient.phone.is_some());
        }

        #[test]
        fn every_member_of_the_schema_is_read() {
            let mut all = Vec::new();
            pointers(&example(), "", &mut all);
            assert!(all.len() > 20, "{all:?}");
            for pointer in all {
                let mut document = example();
                *document.pointer_mut(&pointer).unwrap() = json!(true);

                let read = event::parse(&document, Timestamp::UNIX_EPOCH);

                // A time that cannot be read is the time of arrival.
                if pointer != "/occurred_at" {
                    let faults = read.unwrap_err();
                    assert!(
                        faults.iter().any(|fault| fault.pointer == pointer),
                        "{pointer}: {faults:?}"
                    );
                }
            }
        }

        #[test]
        fn every_member_that_is_read_is_in_the_schema() {
            let source = include_str!("../../domain/event.rs")
                .split("#[cfg(test)]")
                .next()
                .unwrap();
            let mut all = Vec::new();
            pointers(&example(), "", &mut all);
            for name in source.split("member(\"").skip(1) {
                let name = name.split('"').next().unwrap();
                assert!(
                    all.iter().any(|pointer| pointer.ends_with(&format!("/{name}"))),
                    "{name}"
                );
            }
        }
    }
}
