//! What became of an alert and of a delivery, told from the beginning. Absent: what stands in the way now (see `explain`).

use super::{
    shapes::{Alert, Delivery},
    table::local,
};
use crate::domain::{acknowledge::Via, text::clean_line};
use jiff::tz::TimeZone;

/// Longer texts of a helpdesk are cut.
const MAX_LINE: usize = 200;
/// Longer than any message.
const MAX_TEXT: usize = 2_000;

/// An alert with every delivery. Nearly always all have the same text, which then stands there once.
pub fn of_alert(alert: &Alert, zone: &TimeZone) -> String {
    let mut story = head(alert, zone);
    let mut last = "";
    for delivery in &alert.deliveries {
        let text = delivery.message.as_deref().unwrap_or_default();
        if text != last {
            story += &format!("\n{}", quoted(text));
            last = text;
        }
        story += &format!("\n{}", of_delivery(delivery, zone));
    }
    story
}

/// A delivery with its text.
pub fn of_message(delivery: &Delivery, zone: &TimeZone) -> String {
    let text = quoted(delivery.message.as_deref().unwrap_or_default());
    of_delivery(delivery, zone) + &text
}

/// The text of a message, line by line as it is sent.
fn quoted(text: &str) -> String {
    let lines = text.lines().map(|line| format!("  | {}\n", clean_line(line, MAX_TEXT)));
    lines.collect()
}

/// What an alert is about.
pub fn head(alert: &Alert, zone: &TimeZone) -> String {
    let number = alert.ticket_number.as_deref().unwrap_or(&alert.ticket_id);
    let no_subject = match alert.imported_at {
        None => "(the subject was removed by the clean-up)",
        Some(_) => "(the system before told of it)",
    };
    let subject = alert.subject.as_deref().unwrap_or(no_subject);
    let came = local(alert.received_at, zone);
    let ended = match (alert.imported_at, alert.closed_at) {
        (Some(at), _) => format!("taken over from the system before {}", local(at, zone)),
        (None, None) => "the ticket is still critical, as far as the helpdesk said".to_owned(),
        (None, Some(at)) => format!("no longer critical since {}", local(at, zone)),
    };
    format!(
        "Ticket {} (id {}, source {}): {}\nAlert {}: came {came}; {ended}\n{}",
        clean_line(number, MAX_LINE),
        clean_line(&alert.ticket_id, MAX_LINE),
        clean_line(&alert.source, MAX_LINE),
        clean_line(subject, MAX_LINE),
        alert.id,
        acknowledged(alert, zone),
    )
}

/// Whether somebody takes care of it. Nothing of what was over before anybody did.
fn acknowledged(alert: &Alert, zone: &TimeZone) -> String {
    let Some(at) = alert.acknowledged_at else {
        return match alert.closed_at.or(alert.imported_at) {
            Some(_) => String::new(),
            None => "Nobody has acknowledged it.\n".to_owned(),
        };
    };
    let by = alert.acknowledged_by.as_deref().unwrap_or("somebody");
    let via = match alert.acknowledged_via.as_deref().map(Via::parse) {
        Some(Some(via)) => format!(", {}", via.in_words()),
        Some(None) | None => String::new(),
    };
    format!(
        "Acknowledged by {} at {}{via}\n",
        clean_line(by, MAX_LINE),
        local(at, zone)
    )
}

/// A delivery: for whom, how it stands, what happened, and if it ended badly what that means and what to do.
pub fn of_delivery(delivery: &Delivery, zone: &TimeZone) -> String {
    let state = delivery.state_in_words();
    let mut story = format!(
        "{}: {state}\n  delivery {}, {}\n",
        clean_line(&delivery.person(), MAX_LINE),
        delivery.id,
        delivery.state_with_reason(),
    );
    for entry in &delivery.timeline {
        story += &format!(
            "  {}  {}\n",
            local(entry.at, zone),
            clean_line(&entry.text, 2 * MAX_LINE)
        );
    }
    if let Some(explanation) = delivery.explanation() {
        story += &format!(
            "  What it means: {}\n  What to do: {}\n",
            explanation.meaning, explanation.advice
        );
    }
    story
}
