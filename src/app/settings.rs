//! The whole configuration: a TOML file under environment variables, read into domain types section by section. Every
//! fault is found at once, with its key, its value and what to do. Absent: the sections of carriers, which stand beside
//! their code, and opening anything that is configured.

use crate::{
    carrier,
    config::{Effective, Fault, Inbound, Log, Nightly, Reader, Sms, read_acknowledge, read_sources},
    domain::{acknowledge::Acknowledging, database_url::DatabaseUrl, source::Source},
    notify::{self, Destination},
    source,
};
use axum::http::HeaderName;
use ipnet::IpNet;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use url::Url;

/// Where the file is looked for when none is named.
const DEFAULT_FILE: &str = "/etc/nightbell/nightbell.toml";

/// The whole configuration, checked.
pub struct Config {
    pub listen: SocketAddr,
    pub listen_admin: Option<SocketAddr>,
    pub database_url: DatabaseUrl,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub intake_tokens: Vec<SecretString>,
    pub admin_tokens: Vec<SecretString>,
    /// Requests a second for each good token; 0 is no limit.
    pub http_per_second: u32,
    pub trusted_proxies: Vec<IpNet>,
    /// In which a trusted proxy names the admin whom it has logged in.
    pub proxy_header: Option<HeaderName>,
    /// Where the provider reaches us from outside.
    pub public_url: Option<Url>,
    pub sms: Sms,
    /// How people acknowledge alerts.
    pub acknowledging: Acknowledging,
    pub inbound: Inbound,
    pub carriers: carrier::Settings,
    pub nightly: Nightly,
    pub templates_dir: Option<PathBuf>,
    pub log: Log,
    pub sources: BTreeMap<String, Source>,
    /// Those of them that are polled.
    pub polled: Vec<source::Settings>,
    /// Who hears of lifecycle events: those that are configured, and the tickets of sources that want notes on them.
    pub webhooks: Vec<notify::Settings>,
}

/// What was read, and what is wrong with it.
pub struct Loaded {
    pub config: Config,
    pub faults: Vec<Fault>,
    /// Things worth a warning that do not stop anything.
    pub warnings: Vec<String>,
    /// In the order of the documentation.
    pub effective: Effective,
}

/// Reads the file (`path`, else the default one if it is there) and the environment. Always returns a configuration;
/// where a setting is at fault, its default stands in.
pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Loaded {
    let default = Path::new(DEFAULT_FILE);
    load_file(path.or(default.exists().then_some(default)), environment)
}

/// The same where no file is the default.
pub fn load_file(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Loaded {
    let mut reader = Reader::default();
    if let Some(path) = path {
        reader.read_file(path);
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
    let listen: SocketAddr = reader.parsed("listen", "127.0.0.1:8025", "an address and port like `127.0.0.1:8025`");
    let listen_admin = reader.optional("listen_admin", "an address and port like `127.0.0.1:8026`", |text| {
        text.parse().ok()
    });
    let database_url = reader.address("database_url", DatabaseUrl::DEFAULT);
    let database_url = DatabaseUrl::parse(database_url.expose_secret()).unwrap_or_else(|error| {
        reader.fault_secret("database_url", &error.to_string());
        DatabaseUrl::default()
    });
    let public_url = reader.optional(
        "public_url",
        "a web address like `https://nightbell.example.com`",
        Reader::web_url,
    );
    let time_zone = reader.parsed_with("time_zone", "UTC", "an IANA name like `Europe/Berlin`", |name| {
        TimeZone::get(name).ok()
    });
    let daily_limit = reader.number("daily_limit", 200, 0, 10_000_000);
    let intake_tokens = reader.secret_list("auth.intake_tokens");
    let admin_tokens = reader.secret_list("auth.admin_tokens");
    let proxy_header = reader.optional(
        "auth.proxy_header",
        "the name of a header like `X-Forwarded-User`",
        |text| text.parse::<HeaderName>().ok(),
    );
    let http_per_second = reader.number("http.per_second", 0, 0, 1_000_000);
    let trusted_proxies = reader.list(
        "http.trusted_proxies",
        "addresses or networks like `10.0.0.0/8`",
        |item| {
            item.parse()
                .ok()
                .or_else(|| item.parse::<std::net::IpAddr>().ok().map(IpNet::from))
        },
    );
    if proxy_header.is_some() && trusted_proxies.is_empty() && !reader.has_fault("http.trusted_proxies") {
        reader.fault("auth.proxy_header", "is believed from your own proxies only, and none are named: set `http.trusted_proxies` to their addresses, and let them remove this header from what comes from outside");
    }
    let chosen = carrier::Chosen::read(reader);
    let sms = Sms::read(reader);
    let inbound = Inbound::read(reader);
    let carriers = carrier::Settings::read(reader, &chosen, public_url.as_ref());
    let acknowledging = read_acknowledge(reader, public_url.as_ref());
    let nightly = Nightly::read(reader);
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
            "is not a folder that can be read: create it, or remove the setting to use the built-in templates",
        );
    }
    let log = Log::read(reader);
    let sources = read_sources(reader, sms.default_region);
    let read_polled = |(name, source): (&String, &Source)| source::Settings::read(reader, name, source);
    let polled: Vec<source::Settings> = sources.iter().filter_map(read_polled).collect();
    let mut webhooks = notify::Settings::read_all(reader, &sources);
    check_endpoints(reader, &webhooks, &polled, nightly.mail.is_some());
    let noted = polled.iter().filter(|settings| !settings.write_back.is_empty());
    webhooks.extend(noted.map(|settings| {
        notify::Settings::of_tickets(settings.notes_endpoint(), &settings.source, settings.write_back)
    }));

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
        proxy_header,
        public_url,
        sms,
        acknowledging,
        inbound,
        carriers,
        nightly,
        templates_dir,
        log,
        sources,
        polled,
        webhooks,
    }
}

/// What an endpoint needs of other sections.
fn check_endpoints(reader: &mut Reader, endpoints: &[notify::Settings], polled: &[source::Settings], has_mail: bool) {
    let noted = polled.iter().filter(|settings| !settings.write_back.is_empty());
    let names: Vec<String> = noted.map(source::Settings::notes_endpoint).collect();
    let is_mail_at_fault = ["report.to", "report.smtp_url", "report.smtp_url_file"]
        .iter()
        .any(|key| reader.has_fault(key));
    for endpoint in endpoints {
        let key = format!("webhooks.{}.kind", endpoint.name);
        if matches!(&endpoint.destination, Some(Destination::Mail(_))) && !has_mail && !is_mail_at_fault {
            reader.fault(
                &key,
                "needs a mail server: set `report.smtp_url`, and `report.to`, from whose domain mails come",
            );
        }
        if names.contains(&endpoint.name) {
            reader.fault(
                &key,
                "belongs to an endpoint with the name of the one that writes notes on tickets: give it another name",
            );
        }
    }
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
    fn the_name_of_an_admin_is_believed_from_named_proxies_only() {
        let proxies = ("NIGHTBELL_HTTP__TRUSTED_PROXIES", "127.0.0.1");
        let header = |name| ("NIGHTBELL_AUTH__PROXY_HEADER", name);

        assert_eq!(fault_keys(&[header("X-Forwarded-User")]), ["auth.proxy_header"]);
        assert_eq!(fault_keys(&[header("X-Forwarded-User"), proxies]), [""; 0]);
        assert_eq!(fault_keys(&[header("X Forwarded"), proxies]), ["auth.proxy_header"]);
    }

    #[test]
    fn a_notifier_needs_what_it_mails_by_and_a_name_of_its_own() {
        let kind = ("NIGHTBELL_WEBHOOKS__DUTY__KIND", "mail");
        let mail = [
            ("NIGHTBELL_REPORT__TO", "duty@example.com"),
            ("NIGHTBELL_REPORT__SMTP_URL", "smtp://localhost"),
        ];
        assert_eq!(fault_keys(&[kind]), ["webhooks.duty.kind"]);
        assert_eq!(fault_keys(&[kind, mail[0], mail[1]]), [""; 0]);

        let source = "[sources.rt]\nkind = \"rt\"\nurl = \"https://rt.example.com\"\ntoken = \"t\"\nwrite_back =";
        let endpoint = "[webhooks.ticket-rt]\nkind = \"slack\"\nurl = \"https://hooks.example.com/\"";
        let with = |value: &str| file_fault_keys(&format!("{source} {value}\n{endpoint}"));
        assert_eq!(with("false"), [""; 0]);
        for value in ["true", "[\"alert.settled\", \"delivery.*\"]"] {
            assert_eq!(with(value), ["webhooks.ticket-rt.kind"], "{value}");
        }
        for value in [
            "[\"opt_out.created\"]",
            "\"sometimes\"",
            "[\"alert.settled\", \"alert\"]",
        ] {
            assert_eq!(with(value), ["sources.rt.write_back"], "{value}");
        }
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
    fn secrets_are_never_shown() {
        let loaded = with(&[
            ("NIGHTBELL_TWILIO__AUTH_TOKEN", "hush-hush"),
            ("NIGHTBELL_AUTH__ADMIN_TOKENS", "hush-hush"),
            ("NIGHTBELL_DATABASE_URL", "postgres://bell:hush-hush@db/nightbell"),
        ]);
        let shown: String = loaded
            .effective
            .iter()
            .map(|(key, value)| format!("{key} = {value:?}\n"))
            .collect();

        assert!(
            !shown.contains("hush") && shown.contains("postgres://bell:****@db/nightbell"),
            "{shown}"
        );
    }
}
