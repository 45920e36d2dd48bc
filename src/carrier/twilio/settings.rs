//! Twilio's section of the configuration, and the account that it makes. Absent: calling anything.

use crate::{carrier::driver::Reading, config::Reader};
use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

/// Twilio keeps a message in its queue for this long at least and at most (message resource, "ValidityPeriod").
const MIN_VALIDITY: SignedDuration = SignedDuration::from_secs(1);
const MAX_VALIDITY: SignedDuration = SignedDuration::from_secs(36_000);

/// What `twilio.*` says, as far as it is there.
pub struct Settings {
    account_sid: Option<String>,
    /// For signing in without an API key, and for checking signatures: the token, and the next one during a rotation.
    pub auth_tokens: Vec<SecretString>,
    api_key_sid: Option<String>,
    api_key_secret: Option<SecretString>,
    from: Option<String>,
    messaging_service_sid: Option<String>,
    base_url: Url,
    /// Where Twilio posts receipts, and the address they are signed for.
    pub status_callback_url: Option<Url>,
    /// Where Twilio posts what people text us, and the address that is signed for it.
    pub inbound_url: Option<Url>,
    validity_period: SignedDuration,
}

/// What is needed to talk to Twilio.
pub struct Account {
    pub account_sid: String,
    /// Who signs in: the account itself, or one of its API keys.
    pub user: String,
    pub password: SecretString,
    /// Who the message is from, by the name of the form's field for it.
    pub sender: (&'static str, String),
    /// Scheme, host and port of the API.
    pub base_url: Url,
    /// Where Twilio posts receipts; without one they are not asked for.
    pub status_callback: Option<Url>,
    /// How long Twilio may keep a message in its queue.
    pub validity_period: SignedDuration,
}

impl Settings {
    pub fn read(reader: &mut Reader, reading: Reading<'_>) -> Self {
        let mut settings = Self {
            account_sid: reader.text("twilio.account_sid"),
            auth_tokens: ["twilio.auth_token", "twilio.secondary_auth_token"]
                .iter()
                .filter_map(|key| reader.secret(key))
                .collect(),
            api_key_sid: reader.text("twilio.api_key_sid"),
            api_key_secret: reader.secret("twilio.api_key_secret"),
            from: reader.optional(
                "twilio.from",
                "a number like `+15005550006`, a short code or up to 11 letters and digits",
                read_sender,
            ),
            messaging_service_sid: reader.text("twilio.messaging_service_sid"),
            base_url: reader.parsed_with(
                "twilio.base_url",
                "https://api.twilio.com",
                "a web address",
                Reader::web_url,
            ),
            status_callback_url: reader.optional(
                "twilio.status_callback_url",
                "a web address like `https://nightbell.example.com/twilio/status`",
                Reader::web_url,
            ),
            inbound_url: reader.optional(
                "twilio.inbound_url",
                "a web address like `https://nightbell.example.com/twilio/inbound`",
                Reader::web_url,
            ),
            validity_period: reader.duration("twilio.validity_period", "4h", MIN_VALIDITY, MAX_VALIDITY),
        };
        if settings.status_callback_url.is_none() {
            settings.status_callback_url = reading.public_url.map(|base| append_path(base, "twilio/status"));
        }
        if settings.inbound_url.is_none() {
            settings.inbound_url = reading.public_url.map(|base| append_path(base, "twilio/inbound"));
        }
        if reading.is_chosen {
            settings.require_account(reader);
            settings.warn_of_receipts(reader);
        }
        // Twilio refuses a callback whose host has an underscore (error 21609), and with it the message.
        let callback_host = settings.status_callback_url.as_ref().and_then(Url::host_str);
        if callback_host.is_some_and(|host| host.contains('_')) {
            let problem = "has an underscore in its host name, which Twilio refuses: use another name";
            reader.fault("public_url", problem);
        }
        settings
    }

    /// Notes what is missing that no message can go without.
    fn require_account(&self, reader: &mut Reader) {
        if self.account_sid.is_none() {
            reader.fault(
                "twilio.account_sid",
                "is not set: copy it from the Twilio console (it begins with `AC`)",
            );
        }
        match (self.api_key_sid.is_some(), self.api_key_secret.is_some()) {
            (false, false) if self.auth_tokens.is_empty() => reader.fault(
                "twilio.auth_token",
                "is not set: copy it from the Twilio console, or set `twilio.api_key_sid` and `twilio.api_key_secret`",
            ),
            (true, false) => reader.fault(
                "twilio.api_key_secret",
                "is not set, but `twilio.api_key_sid` is: set both or neither",
            ),
            (false, true) => reader.fault(
                "twilio.api_key_sid",
                "is not set, but `twilio.api_key_secret` is: set both or neither",
            ),
            (false, false) | (true, true) => {}
        }
        if self.from.is_none() && self.messaging_service_sid.is_none() && !reader.has("twilio.from") {
            reader.fault(
                "twilio.from",
                "is not set: set the sender's number, or `twilio.messaging_service_sid`",
            );
        }
    }

    fn warn_of_receipts(&self, reader: &mut Reader) {
        if self.base_url.scheme() == "http" {
            reader.warn(
                "`twilio.base_url` is `http`: credentials and phone numbers travel readable by everybody on the way",
            );
        }
        if self.status_callback_url.is_none() {
            reader.warn("`public_url` is not set, so Twilio cannot post receipts");
        } else if self.auth_tokens.is_empty() {
            reader.warn("`twilio.auth_token` is not set, so receipts cannot be checked and are not asked for: an API key signs in, but Twilio signs with the auth token");
        }
    }

    /// The account; `None` where something is missing that it cannot do without.
    pub fn account(&self) -> Option<Account> {
        let account_sid = self.account_sid.clone()?;
        let (user, password) = match self.api_key_sid.clone().zip(self.api_key_secret.clone()) {
            Some(key) => key,
            None => (account_sid.clone(), self.auth_tokens.first()?.clone()),
        };
        let sender = match self.messaging_service_sid.clone() {
            Some(sid) => ("MessagingServiceSid", sid),
            None => ("From", self.from.clone()?),
        };
        // Without the auth token every receipt would be turned away: better not to ask for them.
        let status_callback = self
            .status_callback_url
            .clone()
            .filter(|_| !self.auth_tokens.is_empty());
        Some(Account {
            account_sid,
            user,
            password,
            sender,
            base_url: self.base_url.clone(),
            status_callback,
            validity_period: self.validity_period,
        })
    }
}

/// A sender as Twilio takes it: E.164, a short code of 3 to 8 digits, or an alphanumeric id of up to 11 characters.
fn read_sender(text: &str) -> Option<String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_e164 = text
        .strip_prefix('+')
        .is_some_and(|rest| digits(rest) && (7..=15).contains(&rest.len()));
    let is_short_code = digits(text) && (3..=8).contains(&text.len());
    let is_alphanumeric = (1..=11).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " -+_&".contains(c))
        && text.chars().any(|c| c.is_ascii_alphabetic());
    (is_e164 || is_short_code || is_alphanumeric).then(|| text.to_owned())
}

fn append_path(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)], public_url: Option<&str>) -> (Settings, Vec<String>) {
        let mut reader = Reader::with(environment);
        let public_url = public_url.map(|url| Url::parse(url).unwrap());
        let reading = Reading {
            is_chosen: true,
            public_url: public_url.as_ref(),
        };
        let settings = Settings::read(&mut reader, reading);
        (settings, reader.fault_keys())
    }

    #[test]
    fn it_needs_an_account_credentials_and_a_sender() {
        let (settings, faults) = with(&[], None);

        assert_eq!(faults, ["twilio.account_sid", "twilio.auth_token", "twilio.from"]);
        assert!(settings.account().is_none());
    }

    #[test]
    fn the_callback_hangs_below_the_public_address() {
        let (settings, _) = with(&[], Some("https://nb.example.com/base/"));

        assert_eq!(
            settings.status_callback_url.unwrap().as_str(),
            "https://nb.example.com/base/twilio/status"
        );
        assert_eq!(
            settings.inbound_url.unwrap().as_str(),
            "https://nb.example.com/base/twilio/inbound"
        );
    }

    #[test]
    fn receipts_are_asked_for_only_where_they_can_be_checked() {
        let key = [
            ("TWILIO__ACCOUNT_SID", "AC1"),
            ("TWILIO__API_KEY_SID", "SK1"),
            ("TWILIO__API_KEY_SECRET", "secret"),
            ("TWILIO__FROM", "+15005550006"),
        ];
        let asks = |environment: &[(&str, &str)]| {
            let (settings, faults) = with(environment, Some("https://nb.example.com"));
            assert!(faults.is_empty(), "{faults:?}");
            settings.account().unwrap().status_callback.is_some()
        };

        assert!(!asks(&key));
        assert!(asks(&[&key[..], &[("TWILIO__AUTH_TOKEN", "token")]].concat()));
    }

    #[test]
    fn senders_are_numbers_short_codes_or_names() {
        for good in ["+15005550006", "12345", "NIGHTBELL", "My Desk-1"] {
            assert!(read_sender(good).is_some(), "{good}");
        }
        for bad in ["555-0100", "0", "+1", "a name that is too long", ""] {
            assert!(read_sender(bad).is_none(), "{bad}");
        }
    }
}
