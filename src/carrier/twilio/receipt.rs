//! Reads Twilio's status callbacks and translates its status words. Pure: the signature is checked before (see
//! `signature`), the store comes after.

use super::codes;
use crate::domain::{answer::Receipt, delivery::MessageStatus, route::ProviderName, text::clean_line};

/// Longer words than this are none of Twilio's.
const MAX_WORD: usize = 64;

/// What a status word means (message resource, "Status values"); `None` for one that we do not know.
pub fn status(word: &str) -> Option<MessageStatus> {
    match word {
        "accepted" | "scheduled" | "queued" | "sending" => Some(MessageStatus::Accepted),
        "sent" | "partially_delivered" => Some(MessageStatus::Sent),
        "delivered" | "read" => Some(MessageStatus::Delivered),
        "undelivered" => Some(MessageStatus::Undelivered),
        "failed" | "canceled" => Some(MessageStatus::Failed),
        _ => None,
    }
}

/// Reads a callback from its form fields and the raw query of our own address. `None` if it names no message or status.
pub fn read(query: &str, body: &[u8]) -> Option<Receipt> {
    let fields: Vec<_> = url::form_urlencoded::parse(body).collect();
    let field = |names: [&str; 2]| {
        let found = names
            .iter()
            .find_map(|name| fields.iter().find(|(field, value)| field == name && !value.is_empty()));
        found
            .map(|(_, value)| clean_line(value, MAX_WORD))
            .filter(|value| !value.is_empty())
    };
    let message_id = field(["MessageSid", "SmsSid"])?;
    let word = field(["MessageStatus", "SmsStatus"])?;
    let error_code = field(["ErrorCode", "ErrorCode"]).and_then(|code| code.parse().ok());
    Some(Receipt {
        provider: ProviderName::Twilio,
        message_id,
        status: status(&word),
        read: word == "read",
        word,
        error_code,
        opted_out: error_code == Some(codes::OPTED_OUT),
        attempt: attempt_of(query),
    })
}

/// The delivery and attempt that we put into the address: `?d=<delivery>&a=<attempt>`.
fn attempt_of(query: &str) -> Option<(String, i64)> {
    let member = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(member, _)| member == name)
            .map(|(_, value)| value.into_owned())
    };
    let delivery_id = uuid::Uuid::parse_str(&member("d")?).ok()?.to_string();
    let attempt = member("a")?.parse().ok().filter(|attempt| *attempt > 0)?;
    Some((delivery_id, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_twilio_has_its_meaning() {
        for (words, meaning) in [
            ("accepted scheduled queued sending", Some(MessageStatus::Accepted)),
            ("sent partially_delivered", Some(MessageStatus::Sent)),
            ("delivered read", Some(MessageStatus::Delivered)),
            ("undelivered", Some(MessageStatus::Undelivered)),
            ("failed canceled", Some(MessageStatus::Failed)),
            ("received teleported", None),
        ] {
            for word in words.split(' ') {
                assert_eq!(status(word), meaning, "{word}");
            }
        }
    }

    #[test]
    fn a_callback_names_its_message_and_our_delivery() {
        let receipt = read(
            "d=0193f3c0-0000-7000-8000-000000000001&a=2",
            b"MessageSid=SM1&MessageStatus=undelivered&ErrorCode=30003&To=%2B14155550101",
        )
        .unwrap();

        let attempt = ("0193f3c0-0000-7000-8000-000000000001".into(), 2);
        assert_eq!(receipt.attempt, Some(attempt));
        assert_eq!(receipt.status, Some(MessageStatus::Undelivered));
        assert_eq!(receipt.error_code, Some(30003));
    }

    #[test]
    fn what_names_no_message_is_no_receipt() {
        assert_eq!(read("", b"MessageStatus=sent"), None);
        assert_eq!(read("", b"MessageSid=SM1"), None);
        assert_eq!(read("d=x&a=1", b"SmsSid=SM1&SmsStatus=sent").unwrap().attempt, None);
    }
}
