//! Reads messages that people sent to our numbers. Pure: the signature is checked before (see `signature`), what the text
//! means is decided elsewhere (see `domain::reply`). Fields change without notice, so all of them are kept.

use crate::domain::{
    inbound::{Inbound, ProviderAnswers, SMS},
    phone::{PhoneNumber, Region},
    reply::Keyword,
    route::ProviderName,
    text::{clean_line, clean_text},
};
use std::borrow::Cow;

/// Longer ids, addresses and types than these are none of Twilio's.
const MAX_ID: usize = 64;
const MAX_ADDRESS: usize = 120;
const MAX_TYPE: usize = 100;
/// Twilio takes up to ten attachments.
const MAX_MEDIA: usize = 50;

/// Reads a message from its form fields. `None` if it is none: without an id, or without anything that was sent.
pub fn read(body: &[u8]) -> Option<Inbound> {
    let fields: Vec<(Cow<'_, str>, Cow<'_, str>)> = url::form_urlencoded::parse(body).collect();
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_ref())
    };
    let line = |name: &str, max| {
        let line = clean_line(field(name)?, max);
        Some(line).filter(|line| !line.is_empty())
    };
    let provider_message_id = line("MessageSid", MAX_ID).or_else(|| line("SmsSid", MAX_ID))?;
    if field("Body").is_none() && field("NumMedia").is_none() && field("OptOutType").is_none() {
        return None;
    }
    let (from, to) = (line("From", MAX_ADDRESS), line("To", MAX_ADDRESS));
    let channel = from.as_deref().map_or(SMS, channel_of).to_owned();
    let keyword = field("OptOutType").and_then(opt_out_type);
    Some(Inbound {
        provider: ProviderName::Twilio,
        provider_message_id,
        phone: from.as_deref().filter(|_| channel == SMS).and_then(read_phone),
        provider_answers: if keyword.is_some() {
            ProviderAnswers::This
        } else if to.as_deref().is_some_and(is_short_code) {
            ProviderAnswers::Nothing
        } else {
            ProviderAnswers::UsualWords
        },
        channel,
        from,
        to,
        text: clean_text(field("Body").unwrap_or_default()),
        keyword,
        media: read_media(&line),
        // Pairs of texts cannot fail.
        form: serde_json::to_string(&fields).unwrap_or_default(),
    })
}

/// What Advanced Opt-Out says that a message is; `None` for a word that we do not know.
fn opt_out_type(word: &str) -> Option<Keyword> {
    match word.trim().to_ascii_uppercase().as_str() {
        "STOP" => Some(Keyword::Stop),
        "START" => Some(Keyword::Start),
        "HELP" => Some(Keyword::Help),
        _ => None,
    }
}

/// Which channel an address is of: `whatsapp:+14155550101` has it before the number.
fn channel_of(address: &str) -> &str {
    address.split_once(':').map_or(SMS, |(prefix, _)| prefix)
}

/// Twilio answers nobody who texts one of these (its help centre on standalone short codes): that is left to us.
fn is_short_code(address: &str) -> bool {
    (3..=8).contains(&address.len()) && address.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number as deliveries and opt-outs have it. Twilio writes E.164; one that our metadata does not think possible is taken as
/// it stands, because somebody has texted from there.
fn read_phone(address: &str) -> Option<PhoneNumber> {
    let digits = address.strip_prefix('+')?;
    let is_e164 = (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let as_written = || is_e164.then(|| PhoneNumber::from_stored(address.to_owned()));
    PhoneNumber::parse(address, Region::UNKNOWN).or_else(as_written)
}

fn read_media(line: &impl Fn(&str, usize) -> Option<String>) -> Option<(usize, Vec<String>)> {
    let count: usize = line("NumMedia", MAX_ID)?.parse().ok()?;
    let types = (0..count.min(MAX_MEDIA)).map_while(|number| line(&format!("MediaContentType{number}"), MAX_TYPE));
    (count > 0).then(|| (count, types.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        form.finish().into_bytes()
    }

    /// As Twilio posts them today: twenty fields.
    const USUAL: &[(&str, &str)] = &[
        ("ToCountry", "US"),
        ("ToState", "CA"),
        ("SmsMessageSid", "SM0123456789abcdef0123456789abcdef"),
        ("NumMedia", "0"),
        ("ToCity", "SAN FRANCISCO"),
        ("FromZip", "94105"),
        ("SmsSid", "SM0123456789abcdef0123456789abcdef"),
        ("FromState", "CA"),
        ("SmsStatus", "received"),
        ("FromCity", "SAN FRANCISCO"),
        ("Body", "On my way 🚗\nten minutes"),
        ("FromCountry", "US"),
        ("To", "+15005550006"),
        ("MessagingServiceSid", "MG0123456789abcdef0123456789abcdef"),
        ("ToZip", "94105"),
        ("NumSegments", "1"),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
        ("AccountSid", "AC0123456789abcdef0123456789abcdef"),
        ("From", "+14155550101"),
        ("ApiVersion", "2010-04-01"),
    ];

    #[test]
    fn a_usual_form_is_read_and_kept_whole() {
        let inbound = read(&form(USUAL)).unwrap();

        assert_eq!(inbound.provider_message_id, "SM0123456789abcdef0123456789abcdef");
        assert_eq!(inbound.phone.unwrap().as_e164(), "+14155550101");
        assert_eq!(inbound.to.as_deref(), Some("+15005550006"));
        assert_eq!(inbound.text, "On my way 🚗\nten minutes");
        assert_eq!((inbound.channel.as_str(), inbound.media), (SMS, None));
        assert_eq!(inbound.provider_answers, ProviderAnswers::UsualWords);
        let kept: Vec<(String, String)> = serde_json::from_str(&inbound.form).unwrap();
        let kept: Vec<(&str, &str)> = kept
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(kept, USUAL);
    }

    #[test]
    fn what_is_missing_empty_or_there_twice_is_no_trouble() {
        let bare = read(b"SmsSid=SM1&Body=").unwrap();
        assert_eq!((bare.provider_message_id.as_str(), bare.text.as_str()), ("SM1", ""));
        assert!(bare.from.is_none() && bare.phone.is_none() && bare.to.is_none());

        let twice = read(b"MessageSid=SM1&From=%2B14155550101&Body=one&Body=two&X=%00&X=1").unwrap();
        assert_eq!(twice.text, "one", "the first counts");
        assert!(
            twice.form.contains("two") && twice.form.contains("\\u0000"),
            "{}",
            twice.form
        );
        assert!(!twice.form.contains('\0'), "PostgreSQL takes none");
    }

    #[test]
    fn what_was_sent_by_nobody_is_no_message() {
        assert!(read(b"").is_none());
        assert!(read(b"From=%2B14155550101&Body=hello").is_none(), "without an id");
        assert!(
            read(b"MessageSid=SM1&MessageStatus=delivered&To=%2B14155550101").is_none(),
            "a status callback"
        );
    }

    #[test]
    fn attachments_are_counted_and_their_types_noted() {
        let inbound = read(b"MessageSid=MM1&NumMedia=2&MediaContentType0=image%2Fjpeg&MediaContentType1=text%2Fvcard&MediaUrl0=https%3A%2F%2Fx").unwrap();

        assert_eq!(
            inbound.media,
            Some((2, vec!["image/jpeg".to_owned(), "text/vcard".to_owned()]))
        );
        assert_eq!(
            read(b"MessageSid=MM1&NumMedia=9999999").unwrap().media,
            Some((9_999_999, Vec::new()))
        );
    }

    #[test]
    fn an_address_of_another_channel_is_kept_and_is_no_phone() {
        let inbound =
            read(b"MessageSid=SM1&From=whatsapp%3A%2B14155550101&To=whatsapp%3A%2B15005550006&Body=STOP").unwrap();

        assert_eq!((inbound.channel.as_str(), &inbound.phone), ("whatsapp", &None));
        assert_eq!(inbound.from.as_deref(), Some("whatsapp:+14155550101"));
        let name = read(b"MessageSid=SM1&From=TWILIO&Body=hi").unwrap();
        assert_eq!((name.channel.as_str(), name.phone), (SMS, None));
    }

    #[test]
    fn who_answers_keywords_is_known_by_the_number_and_by_what_twilio_says() {
        let answers = |rest: &str| {
            read(format!("MessageSid=SM1&Body=HELP{rest}").as_bytes())
                .unwrap()
                .provider_answers
        };

        assert_eq!(answers("&To=%2B15005550006"), ProviderAnswers::UsualWords);
        assert_eq!(answers("&To=12345"), ProviderAnswers::Nothing);
        assert_eq!(answers("&To=12345&OptOutType=HELP"), ProviderAnswers::This);
        assert_eq!(answers("&To=12345&OptOutType=SOMETHING"), ProviderAnswers::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn no_form_makes_the_reader_panic(body: Vec<u8>, text in "\\PC{0,40}") {
            let _ = read(&body);
            let _ = read(&form(&[("MessageSid", &text), ("From", &text), ("To", &text), ("Body", &text), ("NumMedia", &text)]));
        }
    }
}
