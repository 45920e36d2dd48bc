//! The OpenAPI document, made from the handlers and the shapes themselves. Absent: pages for people (see `page`).

use super::webhooks;
use crate::http::{
    admin::Admins,
    error::ProblemDetails,
    public::{Callers, Probes},
};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Ref, RefOr, Schema,
        schema::Array,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// What holds for all endpoints. A blank line begins a paragraph.
const ABOUT: &str = "\
Nightbell stands beside a helpdesk. When a ticket turns critical it texts the people who must know: one SMS for each of them \
per ticket, never twice, never lost.\n\n\
**Tokens** go in the header `Authorization: Bearer <token>`: an intake token for events, an admin token for everything else \
under `/v1`. Where `http.per_second` limits them, each answer says in `RateLimit-Policy` and `RateLimit` what is left.\n\n\
**Lists** are answered page by page, newest first where nothing else is said: `next` is the cursor of the next page, and the \
`Link` header its whole address. A parameter without a value counts as not given, and one that is not known is ignored.\n\n\
**Times** are by RFC 3339 in UTC; a **day** is one of the configured time zone. **Phone numbers** are masked unless \
`?reveal=phone` asks for them. More members may come to every answer: ignore those that you do not know.\n\n\
**Errors** are problem details (RFC 9457). The `type` leads to [what each means](/docs/problems), and after a 5xx or no answer \
at all the same request may be sent again.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Nightbell", description = ABOUT),
    servers((url = "/", description = "This service")),
    tags(
        (name = "events", description = "What helpdesks send."),
        (name = "alerts", description = "The fact that a ticket turned critical, and the messages that it brought about."),
        (name = "deliveries", description = "Messages that are or were owed to people."),
        (name = "inbound", description = "What people sent us: replies, acknowledgements, opt-outs and opt-ins."),
        (name = "opt-outs", description = "Numbers that must not be texted."),
        (name = "sources", description = "The helpdesks: how polling them goes, what their webhooks missed, and which of their words nobody has explained."),
        (name = "staff", description = "People whom helpdesks name without telling their phones."),
        (name = "webhooks", description = "Endpoints that hear of lifecycle events: what became of alerts. What is posted to them stands at the end of this page."),
        (name = "limit", description = "How many messages may be handed to the provider in one local day."),
        (name = "test mode", description = "Whether messages go to the log only, whatever carrier is configured."),
        (name = "reports", description = "What went wrong on a day, as it is mailed each night."),
        (name = "receipts", description = "What the provider reported."),
        (name = "callbacks", description = "What the provider calls."),
        (name = "links", description = "Pages for people who got a message with a link."),
        (name = "health", description = "Whether the process does its work. For load balancers and monitoring."),
    ),
    components(schemas(ProblemDetails)),
    modifiers(&Tokens),
)]
enum Base {}

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, description) in [
            (
                "intake",
                "An intake token: `auth.intake_tokens`, or one of a source's own.",
            ),
            ("admin", "An admin token: `auth.admin_tokens`."),
        ] {
            let bearer = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description));
            components.add_security_scheme(name, SecurityScheme::Http(bearer.build()));
        }
    }
}

/// The whole document.
pub fn make() -> Value {
    let mut document = Base::openapi();
    for group in [Callers::openapi(), Admins::openapi(), Probes::openapi()] {
        document.merge(group);
    }
    refer_to_items(&mut document);
    // Of this there is nothing that cannot be written.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    complete(&mut document);
    webhooks::describe(&mut document);
    document
}

/// What utoipa has no word for: a parameter without a value counts as not given, and a body that is no JSON is required too.
fn complete(document: &mut Value) {
    let items = document["paths"].as_object_mut().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten());
    for (_, operation) in operations {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            if parameter["in"] == "query" {
                parameter["allowEmptyValue"] = true.into();
            }
        }
        if let Some(body) = operation.get_mut("requestBody")
            && body["content"].get("application/json").is_none()
        {
            body["required"] = true.into();
        }
    }
}

/// The items of pages as references: utoipa writes the argument of a generic shape out where it is used.
fn refer_to_items(document: &mut utoipa::openapi::OpenApi) {
    let schemas = &mut document.components.get_or_insert_default().schemas;
    for (name, schema) in schemas {
        if let (Some(item), RefOr::T(Schema::Object(page))) = (name.strip_prefix("Page_"), schema) {
            let items = Array::new(Ref::from_schema_name(item));
            page.properties.insert("items".to_owned(), items.into());
        }
    }
}
