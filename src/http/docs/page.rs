//! The pages for people, made from the OpenAPI document and the kinds of problems. Absent: what the document says.

use super::{
    document,
    schema::{Member, Schemas, text},
};
use crate::http::error::Kind;
use axum::body::Bytes;
use minijinja::{Environment, context, value::Serde};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub const STYLE: &str = include_str!("../../../templates/assets/docs.css");

const TEMPLATES: [(&str, &str); 3] = [
    ("frame.html", include_str!("../../../templates/docs/frame.html")),
    ("endpoints.html", include_str!("../../../templates/docs/endpoints.html")),
    ("problems.html", include_str!("../../../templates/docs/problems.html")),
];

/// The pages, as they are sent.
pub struct Pages {
    pub endpoints: Bytes,
    pub problems: Bytes,
}

#[derive(Serialize)]
struct Section {
    name: String,
    description: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
struct Endpoint {
    /// Its anchor.
    id: String,
    method: String,
    path: String,
    summary: String,
    description: String,
    /// What must come with it.
    token: String,
    parameters: Vec<Parameter>,
    body: Option<Content>,
    answers: Vec<Answer>,
    curl: Option<String>,
}

#[derive(Serialize)]
struct Parameter {
    name: String,
    place: String,
    r#type: String,
    required: bool,
    description: String,
}

#[derive(Serialize)]
struct Answer {
    status: String,
    description: String,
    contents: Vec<Content>,
    headers: Vec<Parameter>,
}

/// What a body may be.
#[derive(Serialize)]
struct Content {
    media: String,
    r#type: String,
    description: String,
    /// As JSON, where that is what it is.
    example: Option<String>,
}

#[derive(Serialize)]
struct Shape {
    name: String,
    description: String,
    /// The words that it may be, or what else it is.
    words: String,
    variants: Vec<Vec<Member>>,
}

#[derive(Serialize)]
struct Problem {
    name: &'static str,
    r#type: &'static str,
    title: &'static str,
    status: u16,
    text: &'static str,
}

impl Pages {
    pub fn make() -> Self {
        // Everything here is compiled in and rendered by a test, so it cannot fail.
        let document = document::make();
        let environment = environment();
        let hash = Sha256::digest(STYLE);
        let style: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let render = |name: &str, context: minijinja::Value| -> Bytes {
            let page = environment
                .get_template(name)
                .and_then(|template| template.render(context));
            page.unwrap_or_else(|error| error.to_string()).into()
        };
        let problem = |kind: &Kind| Problem {
            name: kind.name(),
            r#type: kind.uri(),
            title: kind.title(),
            status: kind.status().as_u16(),
            text: kind.text(),
        };
        let problems: Vec<Problem> = Kind::ALL.iter().map(problem).collect();
        Self {
            endpoints: render(
                "endpoints.html",
                context! {
                    style => style.clone(),
                    about => text(&document["info"]["description"]),
                    version => text(&document["info"]["version"]),
                    sections => Serde(sections(&document)),
                    shapes => Serde(shapes(&Schemas(&document))),
                },
            ),
            problems: render("problems.html", context! { style, problems => Serde(problems) }),
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_filter("prose", |text: String| minijinja::Value::from_safe_string(prose(&text)));
    for (name, source) in TEMPLATES {
        let _ = environment.add_template(name, source);
    }
    environment
}

/// HTML of a text in which `code`, **stress** and [links](#) are marked, and a blank line begins a paragraph.
fn prose(text: &str) -> String {
    let mut html = String::new();
    let (mut is_code, mut is_strong) = (false, false);
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let link = || {
            let (label, after) = rest.strip_prefix('[')?.split_once("](")?;
            let (target, after) = after.split_once(')')?;
            Some((label, target, after))
        };
        if let Some(after) = rest.strip_prefix('`') {
            is_code = !is_code;
            html += if is_code { "<code>" } else { "</code>" };
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**").filter(|_| !is_code) {
            is_strong = !is_strong;
            html += if is_strong { "<strong>" } else { "</strong>" };
            rest = after;
        } else if let Some(after) = rest.strip_prefix("\n\n") {
            html += "</p><p>";
            rest = after;
        } else if let Some((label, target, after)) = link().filter(|_| !is_code) {
            html += &format!("<a href=\"{}\">{}</a>", escape(target), escape(label));
            rest = after;
        } else {
            let (this, after) = rest.split_at(sign.len_utf8());
            html += &escape(this);
            rest = after;
        }
    }
    html
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The endpoints, in the order of the tags.
fn sections(document: &Value) -> Vec<Section> {
    let tags = document["tags"].as_array().into_iter().flatten();
    tags.map(|tag| Section {
        name: text(&tag["name"]),
        description: text(&tag["description"]),
        endpoints: endpoints(document, &tag["name"]),
    })
    .collect()
}

fn endpoints(document: &Value, tag: &Value) -> Vec<Endpoint> {
    let schemas = Schemas(document);
    let paths = document["paths"].as_object().into_iter().flatten();
    // What others have to take, by the type of the event.
    let hooks = document["webhooks"].as_object().into_iter().flatten();
    paths
        .chain(hooks)
        .flat_map(|(path, item)| {
            item.as_object()
                .into_iter()
                .flatten()
                .map(move |(method, operation)| (path, method, operation))
        })
        .filter(|(_, _, operation)| operation["tags"][0] == *tag)
        .map(|(path, method, operation)| endpoint(&schemas, path, method, operation))
        .collect()
}

fn endpoint(schemas: &Schemas<'_>, path: &str, method: &str, operation: &Value) -> Endpoint {
    let list = |name: &str| operation[name].as_array().cloned().unwrap_or_default();
    let token = list("security")
        .iter()
        .filter_map(|scheme| scheme.as_object()?.keys().next().cloned())
        .next();
    let body = contents(schemas, &operation["requestBody"]).into_iter().next();
    let answers = operation["responses"].as_object().into_iter().flatten();
    let method = method.to_uppercase();
    Endpoint {
        curl: (path.starts_with('/'))
            .then(|| curl(&method, path, &list("parameters"), token.as_deref(), body.as_ref()))
            .flatten(),
        id: text(&operation["operationId"]),
        summary: text(&operation["summary"]),
        description: text(&operation["description"]),
        token: token.unwrap_or_default(),
        parameters: list("parameters")
            .iter()
            .map(|given| parameter(schemas, given))
            .collect(),
        body,
        answers: answers
            .map(|(status, answer)| self::answer(schemas, status, answer))
            .collect(),
        path: path.to_owned(),
        method,
    }
}

fn parameter(schemas: &Schemas<'_>, given: &Value) -> Parameter {
    Parameter {
        name: text(&given["name"]),
        place: text(&given["in"]),
        r#type: schemas.words(&given["schema"]),
        required: given["required"] == true,
        description: text(&given["description"]),
    }
}

fn answer(schemas: &Schemas<'_>, status: &str, answer: &Value) -> Answer {
    let headers = answer["headers"].as_object().into_iter().flatten();
    let header = |(name, given): (&String, &Value)| Parameter {
        name: name.clone(),
        ..parameter(schemas, given)
    };
    Answer {
        status: status.to_owned(),
        description: text(&answer["description"]),
        contents: contents(schemas, answer),
        headers: headers.map(header).collect(),
    }
}

fn contents(schemas: &Schemas<'_>, holder: &Value) -> Vec<Content> {
    let contents = holder["content"].as_object().into_iter().flatten();
    contents
        .map(|(media, content)| Content {
            media: media.clone(),
            r#type: content
                .get("schema")
                .map(|schema| schemas.words(schema))
                .unwrap_or_default(),
            description: text(&holder["description"]),
            example: (media == "application/json")
                .then(|| serde_json::to_string_pretty(&Schemas(schemas.0).example(&content["schema"])).ok())
                .flatten(),
        })
        .collect()
}

/// A command that calls it; none where only the provider can.
fn curl(method: &str, path: &str, parameters: &[Value], token: Option<&str>, body: Option<&Content>) -> Option<String> {
    let mut address = path.to_owned();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = text(&parameter["name"]);
        let value = match text(&parameter["example"]) {
            example if example.is_empty() => format!("${}", name.to_uppercase()),
            example => example,
        };
        address = address.replace(&format!("{{{name}}}"), &value);
    }
    let method = if method == "GET" {
        String::new()
    } else {
        format!("-X {method} ")
    };
    let mut command = format!("curl {method}\"$NIGHTBELL{address}\"");
    if let Some(token) = token {
        command += &format!(" \\\n  -H \"Authorization: Bearer ${}_TOKEN\"", token.to_uppercase());
    }
    match body {
        None => {}
        Some(Content {
            example: Some(example), ..
        }) => {
            let example = example.replace('\'', "'\\''");
            command += &format!(" \\\n  -H 'Content-Type: application/json' -d '{example}'");
        }
        Some(Content { media, .. }) if media == "text/csv" => {
            command += " \\\n  -H 'Content-Type: text/csv' --data-binary @opt-outs.csv";
        }
        Some(_) => return None,
    }
    Some(command)
}

fn shapes(schemas: &Schemas<'_>) -> Vec<Shape> {
    schemas
        .all()
        .map(|(name, schema)| {
            let variants: Vec<Vec<Member>> = schemas.variants(schema);
            let has_members = variants.iter().any(|members| !members.is_empty());
            Shape {
                name: name.clone(),
                description: text(&schema["description"]),
                words: if has_members {
                    String::new()
                } else {
                    schemas.words(schema)
                },
                variants,
            }
        })
        .collect()
}
