//! What pages are made with: the templates, compiled in, and how times, states and code stand in them. Everything that comes
//! from outside is escaped. Absent: which pages there are.

use super::{totals::DayTotals, words};
use crate::{
    config::Effective,
    domain::day::{LocalDay, zone_name},
    http::{
        deadline::now,
        error::{Kind, Problem},
    },
};
use axum::http::HeaderName;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use minijinja::{AutoEscape, Environment, HtmlEscape, Value, value::Serde};
use serde::Serialize;
use url::form_urlencoded::byte_serialize;

/// The templates by name.
const TEMPLATES: [(&str, &str); 21] = [
    ("layout.html", include_str!("../../../../templates/admin/layout.html")),
    ("parts.html", include_str!("../../../../templates/admin/parts.html")),
    ("login.html", include_str!("../../../../templates/admin/login.html")),
    ("error.html", include_str!("../../../../templates/admin/error.html")),
    (
        "overview.html",
        include_str!("../../../../templates/admin/overview.html"),
    ),
    ("alerts.html", include_str!("../../../../templates/admin/alerts.html")),
    ("alert.html", include_str!("../../../../templates/admin/alert.html")),
    (
        "deliveries.html",
        include_str!("../../../../templates/admin/deliveries.html"),
    ),
    (
        "delivery.html",
        include_str!("../../../../templates/admin/delivery.html"),
    ),
    ("inbound.html", include_str!("../../../../templates/admin/inbound.html")),
    (
        "inbound_message.html",
        include_str!("../../../../templates/admin/inbound_message.html"),
    ),
    ("force.html", include_str!("../../../../templates/admin/force.html")),
    (
        "opt_outs.html",
        include_str!("../../../../templates/admin/opt_outs.html"),
    ),
    ("removal.html", include_str!("../../../../templates/admin/removal.html")),
    ("staff.html", include_str!("../../../../templates/admin/staff.html")),
    ("person.html", include_str!("../../../../templates/admin/person.html")),
    (
        "staff_removal.html",
        include_str!("../../../../templates/admin/staff_removal.html"),
    ),
    ("reports.html", include_str!("../../../../templates/admin/reports.html")),
    (
        "webhooks.html",
        include_str!("../../../../templates/admin/webhooks.html"),
    ),
    ("webhook.html", include_str!("../../../../templates/admin/webhook.html")),
    (
        "settings.html",
        include_str!("../../../../templates/admin/settings.html"),
    ),
];

const REPORT: (&str, &str) = ("report.html", include_str!("../../../../templates/admin/report.html"));

/// What the pages are made with.
pub struct Pages {
    environment: Environment<'static>,
    /// In which a trusted proxy names the admin.
    pub proxy_header: Option<HeaderName>,
    /// Whether admins come by a public address that is https.
    pub is_public_https: bool,
    /// The settings as they may be shown.
    pub effective: Effective,
    pub totals: DayTotals,
}

impl Pages {
    pub fn new(zone: &TimeZone, proxy_header: Option<HeaderName>, is_public_https: bool, effective: Effective) -> Self {
        Self {
            environment: environment(zone),
            proxy_header,
            is_public_https,
            effective,
            totals: DayTotals::default(),
        }
    }

    /// Makes a page.
    pub fn render(&self, template: &str, view: &Value) -> Result<String, Problem> {
        let rendered = self
            .environment
            .get_template(template)
            .and_then(|page| page.render(view));
        rendered.map_err(|error| {
            tracing::error!(template, %error, "a page could not be made");
            Problem::new(Kind::Internal, "This page could not be made; see the log.")
        })
    }
}

/// Anything as templates read it.
pub fn view(value: &impl Serialize) -> Value {
    Value::from(Serde(value))
}

fn environment(zone: &TimeZone) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, source) in TEMPLATES.into_iter().chain([REPORT]) {
        if let Err(error) = environment.add_template(name, source) {
            // A test renders each of them.
            tracing::error!(template = name, %error, "a template is broken");
        }
    }
    let (in_zone, clock_zone, day_zone) = (zone.clone(), zone.clone(), zone.clone());
    environment.add_filter("time", move |at: &str| time(at, &in_zone));
    environment.add_filter("clock", move |at: &str| clock(at, &clock_zone));
    environment.add_filter("day", move |at: &str| {
        read(at).map_or_else(String::new, |at| LocalDay::of(at, &day_zone).to_string())
    });
    environment.add_filter("number", |number: f64| number.to_string());
    environment.add_filter("age", |at: &str| read(at).map_or_else(String::new, |at| age(at, now())));
    environment.add_filter("code", |text: &str| Value::from_safe_string(code(text)));
    environment.add_filter("tone", words::tone);
    environment.add_filter("meaning", words::meaning);
    // For a value in an address; minijinja's own comes with a library more.
    environment.add_filter("urlencode", |text: &str| {
        byte_serialize(text.as_bytes()).collect::<String>()
    });
    environment.add_filter("reason", words::reason);
    environment.add_filter("via", |word: &str| words::via(word).to_owned());
    environment.add_filter("outcome", words::outcome);
    environment.add_filter("plain", |word: &str| word.replace('_', " "));
    environment.add_global("zone", zone_name(zone).to_owned());
    environment.add_global("version", env!("CARGO_PKG_VERSION"));
    environment
}

fn read(at: &str) -> Option<Timestamp> {
    at.parse().ok()
}

/// A time, to the second and with its offset for machines, in the configured zone for people.
fn time(at: &str, zone: &TimeZone) -> Value {
    shown(at, zone, "%Y-%m-%d %H:%M:%S")
}

/// The same without its day.
fn clock(at: &str, zone: &TimeZone) -> Value {
    shown(at, zone, "%H:%M:%S")
}

fn shown(at: &str, zone: &TimeZone, format: &str) -> Value {
    let Some(time) = read(at) else { return Value::from("") };
    let local: Zoned = time.to_zoned(zone.clone());
    let (machine, text) = (local.strftime("%Y-%m-%dT%H:%M:%S%:z"), local.strftime(format));
    let full = local.strftime("%A %-d %B %Y, %H:%M:%S %Z");
    Value::from_safe_string(format!(
        "<time datetime=\"{machine}\" title=\"{}\">{text}</time>",
        HtmlEscape(&full.to_string())
    ))
}

/// How long ago, or how long until then, in one unit.
fn age(at: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(at);
    let seconds = passed.unsigned_abs().as_secs();
    let (number, unit) = match seconds {
        0..60 => {
            return if passed.is_negative() {
                "in a moment"
            } else {
                "just now"
            }
            .to_owned();
        }
        60..3_600 => (seconds / 60, "min"),
        3_600..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    if passed.is_negative() {
        format!("in {number} {unit}")
    } else {
        format!("{number} {unit} ago")
    }
}

/// Text whose words between backticks stand as code; all of it escaped.
fn code(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 32);
    for (place, part) in text.split('`').enumerate() {
        let part = HtmlEscape(part);
        if place % 2 == 1 {
            html.push_str(&format!("<code>{part}</code>"));
        } else {
            html.push_str(&part.to_string());
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_read() {
        let environment = environment(&TimeZone::UTC);
        for (name, _) in TEMPLATES.into_iter().chain([REPORT]) {
            assert!(environment.get_template(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn times_stand_in_the_zone_and_ages_in_one_unit() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let shown = time("2026-11-20T23:30:00.5Z", &berlin).to_string();

        assert_eq!(
            shown,
            "<time datetime=\"2026-11-21T00:30:00+01:00\" title=\"Saturday 21 November 2026, 00:30:00 CET\">2026-11-21 00:30:00</time>"
        );
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (at, text) in [
            ("2026-11-20T11:59:30Z", "just now"),
            ("2026-11-20T11:57:01Z", "2 min ago"),
            ("2026-11-19T12:00:00Z", "24 h ago"),
            ("2026-11-17T12:00:00Z", "3 days ago"),
            ("2026-11-20T14:00:00Z", "in 2 h"),
        ] {
            assert_eq!(age(at.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn code_is_marked_and_nothing_of_a_text_is_markup() {
        assert_eq!(code("set `a<b>` & <i>"), "set <code>a&lt;b&gt;</code> &amp; &lt;i&gt;");
    }
}
