//! The configuration: a TOML file under environment variables, read into domain types. Every fault is found at once,
//! with its key, its value and what to do. Absent: opening anything that is configured.

mod nightly;
mod reader;

pub use nightly::Nightly;
pub use reader::Fault;

use crate::domain::{
    event::{DEFAULT_SOURCE, Recipient},
    message::{Alphabet, Rules},
    phone::{PhoneNumber, Region},
};
use ipnet::IpNet;
use jiff::{SignedDuration, tz::TimeZone};
use reader::{Reader, Shown};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use url::Url;

/// Where the file is looked for when none is named.
const DEFAULT_FILE: &str = "/etc/nightbell/nightbell.toml";
/// Shorter times than this are a unit forgotten.
const SHORTEST: SignedDuration = SignedDuration::from_millis(50);
/// Twilio keeps a message in its queue for at most this long (message resource, "ValidityPeriod").
const MAX_VALIDITY: SignedDuration = SignedDuration::from_secs(36_000);

/// The whole configuration, checked.
pub struct Config {
    pub listen: SocketAddr,
    pub listen_admin: Option<SocketAddr>,
    pub database_url: SecretString,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub intake_tokens: Vec<SecretString>,
    pub admin_tokens: Vec<SecretString>,
    /// Requests a second for each good token; 0 is no limit.
    pub http_per_second: u32,
    pub trusted_proxies: Vec<IpNet>,
    pub sms: Sms,
    pub twilio: Twilio,
    pub nightly: Nightly,
    pub templates_dir: Option<PathBuf>,
    pub log: Log,
    pub sources: BTreeMap<String, Source>,
}

/// How messages are made and sent.
pub struct Sms {
    pub driver: Driver,
    pub rules: Rules,
    pub default_region: Region,
    /// Messages a second; 0 is unpaced.
    pub per_second: f64,
    pub max_in_flight: usize,
    pub lease: SignedDuration,
    pub timeout: SignedDuration,
    pub reconcile_after: SignedDuration,
    pub resend_when_absent: bool,
    pub poll_after: SignedDuration,
    pub expire_after: SignedDuration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Log,
    Twilio,
}

/// Twilio's settings, as far as they are there; `app` makes a client of them.
pub struct Twilio {
    pub account_sid: Option<String>,
    /// For signing in without an API key, and for checking signatures: the token, and the next one during a rotation.
    pub auth_tokens: Vec<SecretString>,
    pub api_key: Option<(String, SecretString)>,
    pub from: Option<String>,
    pub messaging_service_sid: Option<String>,
    pub base_url: Url,
    /// Where Twilio posts receipts, and the address they are signed for.
    pub status_callback_url: Option<Url>,
    pub validity_period: SignedDuration,
}

/// How the log looks.
pub struct Log {
    pub json: bool,
    pub filter: String,
}

/// One helpdesk.
#[derive(Clone)]
pub struct Source {
    /// Tokens that may speak for this source only.
    pub tokens: Vec<SecretString>,
    pub region: Region,
    /// Who is told when an event names nobody.
    pub fallback_recipients: Vec<Recipient>,
    pub each_later_recipient: bool,
}

/// What was read, and what is wrong with it.
pub struct Loaded {
    pub config: Config,
    pub faults: Vec<Fault>,
    /// Things worth a warning that do not stop anything.
    pub warnings: Vec<String>,
    /// The effective settings, secrets masked, in the order of the documentation.
    pub effective: Vec<(String, Shown)>,
}

/// Reads the file (`path`, else the default one if it is there) and the environment. Always returns a configuration;
/// where a setting is at fault, its default stands in.
pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Loaded {
    let mut reader = Reader::default();
    match path {
        Some(path) => reader.read_file(path),
        None if Path::new(DEFAULT_FILE).exists() => reader.read_file(Path::new(DEFAULT_FILE)),
        None => {}
    }
    reader.read_environment(environment);
    let config = read(&mut reader);
    let (faults, warnings, effective) = reader.finish();
    Loaded {
        config,
        faults,
        warnings,
        effective,
    }
}

fn read(reader: &mut Reader) -> Config {
    let listen = reader
        .parsed("listen", "127.0.0.1:8025", "an address and port like `127.0.0.1:8025`")
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8025)));
    let listen_admin = reader.optional("listen_admin", "an address and port like `127.0.0.1:8026`", |text| {
        text.parse().ok()
    });
    let database_url = reader.address("database_url", "sqlite://nightbell.db");
    if !["sqlite:", "postgres://", "postgresql://"]
        .iter()
        .any(|scheme| database_url.expose_secret().starts_with(scheme))
    {
        reader.fault_secret(
            "database_url",
            "is no database that Nightbell knows: write `sqlite://FILE` or `postgres://USER:PASSWORD@HOST/NAME`",
        );
    }
    let public_url = reader.optional(
        "public_url",
        "a web address like `https://nightbell.example.com`",
        read_web_url,
    );
    let time_zone = reader
        .parsed_with("time_zone", "UTC", "an IANA name like `Europe/Berlin`", |name| {
            TimeZone::get(name).ok()
        })
        .unwrap_or(TimeZone::UTC);
    let daily_limit = reader.number("daily_limit", 200, 0, 10_000_000);
    let intake_tokens = reader.secret_list("auth.intake_tokens");
    let admin_tokens = reader.secret_list("auth.admin_tokens");
    let http_per_second = u32::try_from(reader.number("http.per_second", 0, 0, 1_000_000)).unwrap_or(0);
    let trusted_proxies = reader.list(
        "http.trusted_proxies",
        "addresses or networks like `10.0.0.0/8`",
        |item| {
            item.parse()
                .ok()
                .or_else(|| item.parse::<std::net::IpAddr>().ok().map(IpNet::from))
        },
    );
    let sms = read_sms(reader);
    let twilio = read_twilio(reader, sms.driver, public_url.as_ref());
    let nightly = nightly::read(reader);
    if reader.text("heartbeat.url").is_some() {
        reader.warn("this version sends no heartbeat yet: `heartbeat.url` has no effect");
    }
    let templates_dir = reader.optional("templates.dir", "the path of a folder", |text| {
        Some(PathBuf::from(text))
    });
    if let Some(dir) = &templates_dir
        && !dir.is_dir()
    {
        reader.fault(
            "templates.dir",
            "is no folder that can be read: create it, or take the key away to use the built-in templates",
        );
    }
    let log = Log {
        json: reader.choice("log.format", "text", &[("text", false), ("json", true)]),
        filter: reader.text("log.filter").unwrap_or_else(|| "info".into()),
    };
    let sources = read_sources(reader, sms.default_region);

    let has_intake_tokens = !intake_tokens.is_empty() || sources.values().any(|source| !source.tokens.is_empty());
    if !listen.ip().is_loopback() && !has_intake_tokens {
        reader.fault("auth.intake_tokens", "is not set, but `listen` is open to other machines: set a token, for example one made by `openssl rand -hex 24`");
    }
    if !listen_admin.unwrap_or(listen).ip().is_loopback() && admin_tokens.is_empty() {
        reader.fault("auth.admin_tokens", "is not set, but the admin API is open to other machines: set a token, for example one made by `openssl rand -hex 24`");
    }
    Config {
        listen,
        listen_admin,
        database_url,
        time_zone,
        daily_limit,
        intake_tokens,
        admin_tokens,
        http_per_second,
        trusted_proxies,
        sms,
        twilio,
        nightly,
        templates_dir,
        log,
        sources,
    }
}

fn read_sms(reader: &mut Reader) -> Sms {
    let sms = Sms {
        driver: reader.choice("sms.driver", "log", &[("log", Driver::Log), ("twilio", Driver::Twilio)]),
        rules: Rules {
            max_segments: usize::try_from(reader.number("sms.max_segments", 4, 1, 24)).unwrap_or(4),
            alphabet: reader.choice(
                "sms.encoding",
                "auto",
                &[("auto", Alphabet::Auto), ("gsm", Alphabet::Gsm)],
            ),
        },
        default_region: reader
            .parsed_with("sms.default_region", "US", "a country code like `DE`", Region::parse)
            .unwrap_or_else(Region::us),
        per_second: reader.decimal("sms.per_second", 1.0, 0.0, 10_000.0),
        max_in_flight: usize::try_from(reader.number("sms.max_in_flight", 64, 1, 10_000)).unwrap_or(64),
        lease: reader.duration("sms.lease", "60s", SHORTEST, SignedDuration::from_hours(1)),
        timeout: reader.duration("sms.timeout", "15s", SHORTEST, SignedDuration::from_mins(10)),
        reconcile_after: reader.duration("sms.reconcile_after", "3m", SHORTEST, SignedDuration::from_hours(24)),
        resend_when_absent: reader.flag("sms.resend_when_absent", true),
        poll_after: reader.duration("sms.poll_after", "10m", SHORTEST, SignedDuration::from_hours(24)),
        expire_after: reader.duration(
            "sms.expire_after",
            "72h",
            SHORTEST,
            SignedDuration::from_hours(24 * 365),
        ),
    };
    if sms.lease < sms.timeout * 2 {
        reader.fault(
            "sms.lease",
            "is less than twice `sms.timeout`: a slow call could be taken for lost; make it at least twice as long",
        );
    }
    sms
}

fn read_twilio(reader: &mut Reader, driver: Driver, public_url: Option<&Url>) -> Twilio {
    let account_sid = reader.text("twilio.account_sid");
    let auth_tokens: Vec<SecretString> = ["twilio.auth_token", "twilio.secondary_auth_token"]
        .iter()
        .filter_map(|key| reader.secret(key))
        .collect();
    let api_key_sid = reader.text("twilio.api_key_sid");
    let api_key_secret = reader.secret("twilio.api_key_secret");
    let from = reader.optional(
        "twilio.from",
        "a number like `+15005550006`, a short code or up to 11 letters and digits",
        read_sender,
    );
    let messaging_service_sid = reader.text("twilio.messaging_service_sid");
    let base_url = reader
        .parsed_with(
            "twilio.base_url",
            "https://api.twilio.com",
            "a web address",
            read_web_url,
        )
        .unwrap_or_else(default_base_url);
    let callback = reader.optional(
        "twilio.status_callback_url",
        "a web address like `https://nightbell.example.com/twilio/status`",
        read_web_url,
    );
    let validity_period = reader.duration(
        "twilio.validity_period",
        "4h",
        SignedDuration::from_secs(1),
        MAX_VALIDITY,
    );

    if driver == Driver::Twilio {
        if account_sid.is_none() {
            reader.fault(
                "twilio.account_sid",
                "is not set: copy it from the Twilio console (it begins with `AC`)",
            );
        }
        match (&api_key_sid, &api_key_secret) {
            (None, None) if auth_tokens.is_empty() => reader.fault(
                "twilio.auth_token",
                "is not set: copy it from the Twilio console, or set `twilio.api_key_sid` and `twilio.api_key_secret`",
            ),
            (Some(_), None) => reader.fault(
                "twilio.api_key_secret",
                "is not set, but `twilio.api_key_sid` is: set both or neither",
            ),
            (None, Some(_)) => reader.fault(
                "twilio.api_key_sid",
                "is not set, but `twilio.api_key_secret` is: set both or neither",
            ),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if from.is_none() && messaging_service_sid.is_none() && !reader.has("twilio.from") {
            reader.fault(
                "twilio.from",
                "is not set: set the sender's number, or `twilio.messaging_service_sid`",
            );
        }
        if base_url.scheme() == "http" {
            reader.warn(
                "`twilio.base_url` is `http`: credentials and phone numbers travel readable by everybody on the way",
            );
        }
    }
    let status_callback_url = callback.or_else(|| Some(append_path(public_url?, "twilio/status")));
    if driver == Driver::Twilio && status_callback_url.is_some() && auth_tokens.is_empty() {
        reader.warn("`twilio.auth_token` is not set, so receipts cannot be checked and are not asked for: an API key signs in, but Twilio signs with the auth token");
    }
    if driver == Driver::Twilio && status_callback_url.is_none() {
        reader.warn("`public_url` is not set, so Twilio cannot post receipts");
    }
    // Twilio refuses a callback whose host has an underscore (error 21609), and with it the message.
    if status_callback_url
        .as_ref()
        .and_then(Url::host_str)
        .is_some_and(|host| host.contains('_'))
    {
        reader.fault(
            "public_url",
            "has an underscore in its host name, which Twilio refuses: use another name",
        );
    }
    Twilio {
        account_sid,
        auth_tokens,
        api_key: api_key_sid.zip(api_key_secret),
        from,
        messaging_service_sid,
        base_url,
        status_callback_url,
        validity_period,
    }
}

fn read_sources(reader: &mut Reader, default_region: Region) -> BTreeMap<String, Source> {
    let mut names = reader.names_below("sources");
    names.insert(DEFAULT_SOURCE.to_owned());
    let mut sources = BTreeMap::new();
    for name in names {
        let key = |member: &str| format!("sources.{name}.{member}");
        let tokens = reader.secret_list(&key("tokens"));
        let region = reader
            .optional(&key("region"), "a country code like `DE`", Region::parse)
            .unwrap_or(default_region);
        let source = Source {
            tokens,
            region,
            // Read by the same region as they will be when somebody is texted.
            fallback_recipients: read_recipients(reader, &key("fallback_recipients"), region),
            each_later_recipient: reader.choice(
                &key("later_recipients"),
                "untold",
                &[("untold", false), ("each", true)],
            ),
        };
        sources.insert(name, source);
    }
    sources
}

/// Fallback recipients: numbers, or tables with `phone`, `name`, `role`, `staff_id` and `region`.
fn read_recipients(reader: &mut Reader, key: &str, default_region: Region) -> Vec<Recipient> {
    let mut recipients = Vec::new();
    for item in reader.items(key) {
        let member = |name: &str| item.get(name).cloned();
        let recipient = Recipient {
            staff_id: member("staff_id"),
            role: member("role"),
            name: member("name"),
            phone: member("phone"),
            region: member("region").map(|name| Region::parse(&name).unwrap_or(Region::UNKNOWN)),
        };
        let is_usable = recipient
            .phone
            .as_deref()
            .is_some_and(|phone| PhoneNumber::parse(phone, recipient.region.unwrap_or(default_region)).is_some());
        if is_usable {
            recipients.push(recipient);
        } else {
            reader.fault_secret(key, "has an entry without a usable phone: write each with `+` and country code and without an extension, like `\"+14155550101\"` or `{ phone = \"+14155550101\", name = \"Grace\" }`; one without a country code needs a `region` like `DE`");
        }
    }
    recipients
}

fn read_web_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    plain.then_some(url)
}

fn default_base_url() -> Url {
    // A literal that a test reads.
    #[expect(clippy::expect_used, reason = "the text is a constant")]
    Url::parse("https://api.twilio.com").expect("a constant address")
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

    fn with(environment: &[(&str, &str)]) -> Loaded {
        load(
            None,
            environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    fn fault_keys(environment: &[(&str, &str)]) -> Vec<String> {
        with(environment).faults.into_iter().map(|fault| fault.key).collect()
    }

    fn file_fault_keys(text: &str) -> Vec<String> {
        let path = std::env::temp_dir().join(format!("nightbell-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        let loaded = load(Some(&path), std::iter::empty());
        std::fs::remove_file(path).unwrap();
        loaded.faults.into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn no_configuration_at_all_is_a_good_one() {
        let loaded = with(&[]);

        assert!(loaded.faults.is_empty() && loaded.warnings.is_empty());
        assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:8025");
        assert!(loaded.config.sources.contains_key("default"));
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let keys = fault_keys(&[
            ("NIGHTBELL_LISTEN", "nowhere"),
            ("NIGHTBELL_TIME_ZONE", "Mars/Olympus"),
            ("NIGHTBELL_DAILY_LIMIT", "-1"),
            ("NIGHTBELL_SMS__DRIVER", "pigeon"),
            ("NIGHTBELL_SMS__LEASE", "soon"),
            ("NIGHTBELL_TWILIO__FROM", "555-0100"),
        ]);

        assert_eq!(
            keys,
            [
                "listen",
                "time_zone",
                "daily_limit",
                "sms.driver",
                "sms.lease",
                "twilio.from"
            ]
        );
    }

    #[test]
    fn twilio_needs_an_account_credentials_and_a_sender() {
        assert_eq!(
            fault_keys(&[("NIGHTBELL_SMS__DRIVER", "twilio")]),
            ["twilio.account_sid", "twilio.auth_token", "twilio.from"]
        );
    }

    #[test]
    fn an_open_address_needs_tokens() {
        assert_eq!(
            fault_keys(&[("NIGHTBELL_LISTEN", "0.0.0.0:8025")]),
            ["auth.intake_tokens", "auth.admin_tokens"]
        );
        assert_eq!(
            fault_keys(&[
                ("NIGHTBELL_LISTEN", "0.0.0.0:8025"),
                ("NIGHTBELL_AUTH__INTAKE_TOKENS", "a"),
                ("NIGHTBELL_LISTEN_ADMIN", "127.0.0.1:0")
            ]),
            [""; 0]
        );
    }

    #[test]
    fn an_empty_token_in_a_list_is_a_fault() {
        for (variable, key) in [
            ("NIGHTBELL_AUTH__INTAKE_TOKENS", "auth.intake_tokens"),
            ("NIGHTBELL_AUTH__ADMIN_TOKENS", "auth.admin_tokens"),
            ("NIGHTBELL_SOURCES__ACME__TOKENS", "sources.acme.tokens"),
        ] {
            for value in ["a,,b", "a,", ",a", "a, ,b", ","] {
                assert_eq!(fault_keys(&[(variable, value)]), [key], "{variable}={value}");
            }
            for value in ["", " ", "a", "a, b"] {
                assert_eq!(fault_keys(&[(variable, value)]), [""; 0], "{variable}={value}");
            }
        }
    }

    #[test]
    fn an_empty_token_in_a_file_is_a_fault() {
        for (text, wrong) in [
            ("[auth]\nintake_tokens = [\"a\", \"\"]", vec!["auth.intake_tokens"]),
            ("[auth]\nadmin_tokens = [\" \"]", vec!["auth.admin_tokens"]),
            ("[sources.acme]\ntokens = \"a,,b\"", vec!["sources.acme.tokens"]),
            ("[auth]\nintake_tokens = [\"a\", \"b\"]\nadmin_tokens = []", vec![]),
        ] {
            assert_eq!(file_fault_keys(text), wrong, "{text}");
        }
    }

    #[test]
    fn a_lease_shorter_than_two_time_outs_is_refused() {
        assert_eq!(fault_keys(&[("NIGHTBELL_SMS__LEASE", "20s")]), ["sms.lease"]);
        assert_eq!(
            fault_keys(&[("NIGHTBELL_SMS__LEASE", "20s"), ("NIGHTBELL_SMS__TIMEOUT", "10s")]),
            [""; 0]
        );
    }

    #[test]
    fn the_callback_hangs_below_the_public_address() {
        let loaded = with(&[("NIGHTBELL_PUBLIC_URL", "https://nb.example.com/bell/")]);

        assert_eq!(
            loaded.config.twilio.status_callback_url.unwrap().as_str(),
            "https://nb.example.com/bell/twilio/status"
        );
    }

    #[test]
    fn a_source_is_made_by_naming_it() {
        let loaded = with(&[
            ("NIGHTBELL_SOURCES__ACME__TOKENS", "one, two"),
            ("NIGHTBELL_SOURCES__ACME__REGION", "de"),
            (
                "NIGHTBELL_SOURCES__ACME__FALLBACK_RECIPIENTS",
                "+14155550101,+14155550102",
            ),
            ("NIGHTBELL_SOURCES__ACME__LATER_RECIPIENTS", "each"),
        ]);
        let acme = &loaded.config.sources["acme"];

        assert!(loaded.faults.is_empty());
        assert_eq!(
            (
                acme.tokens.len(),
                acme.region.to_string(),
                acme.fallback_recipients.len()
            ),
            (2, "DE".to_owned(), 2)
        );
        assert!(acme.each_later_recipient);
    }

    #[test]
    fn secrets_are_never_shown() {
        let loaded = with(&[
            ("NIGHTBELL_TWILIO__AUTH_TOKEN", "hush-hush"),
            ("NIGHTBELL_AUTH__ADMIN_TOKENS", "hush-hush"),
            ("NIGHTBELL_DATABASE_URL", "postgres://bell:hush-hush@db/nightbell"),
        ]);
        let shown: String = loaded
            .effective
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();

        assert!(
            !shown.contains("hush") && shown.contains("postgres://bell:****@db/nightbell"),
            "{shown}"
        );
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
