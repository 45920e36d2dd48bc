//! The test mode: writes the SMS to the log, phone masked, and reports it delivered. Nothing leaves the machine.

use super::Outgoing;
use crate::domain::{
    delivery::News,
    news::Answer,
    route::{Channel, ProviderName, Route},
    sms::{self, Size},
};
use std::sync::{Arc, LazyLock};

/// How test messages go.
pub fn route() -> &'static Arc<Route> {
    static ROUTE: LazyLock<Arc<Route>> =
        LazyLock::new(|| Arc::new(Route::new(Channel::Sms, ProviderName::Log, "log", "")));
    &ROUTE
}

/// Logs the message. The one place where the text of an SMS may appear in the log.
pub fn send(message: &Outgoing<'_>) -> Answer {
    let Size { segments, .. } = sms::measure(message.text);
    tracing::info!(delivery.id = message.delivery_id, attempt = message.attempt, to = %message.to, segments, text = ?message.text, "SMS (test mode, nothing was sent)");
    Answer::Accepted {
        message_id: format!("log-{}-{}", message.delivery_id, message.attempt),
        status: "delivered".into(),
        news: Some(News::Delivered),
    }
}
