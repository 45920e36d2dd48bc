//! Makes the modules' parts of the configuration. Absent: running them (see `serve`).

use super::settings::Config;
use crate::{
    carrier::Carriers,
    config::Effective,
    domain::{
        auto_reply::AutoReplies,
        day::to_millisecond,
        event::Recipient,
        lifecycle::EventType,
        message::Templates,
        phone::Region,
        route::{Channel, ChannelRules},
        source::{Source, SourceLimits},
    },
    http::{self, AppState, Pages, RateLimiter, Tokens, Webhooks},
    intake::Intake,
    mail::{self, Mailer},
    notify::{self, Endpoints},
    source::{Helpdesk, Poller},
    store::{Db, InboundRules, Limits, OpenError},
    worker::{self, Nightly, NightlyRules, TimedJob, Worker},
};
use anyhow::Context;
use jiff::Timestamp;
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, Semaphore};

/// Makes the texts of messages as the configuration says.
pub fn load_templates(config: &Config) -> Templates {
    let mut templates = Templates::built_in(config.sms.rules);
    load_own(config, "sms/critical.txt", |text| templates.set_own(text));
    for source in config.sources.keys() {
        let name = format!("sms/critical.{source}.txt");
        load_own(config, &name, |text| templates.set_own_of(source, text));
    }
    templates
}

fn load_auto_replies(config: &Config) -> AutoReplies {
    let mut replies = AutoReplies::built_in(config.sms.rules, config.time_zone.clone());
    for name in AutoReplies::names() {
        load_own(config, &format!("sms/{name}"), |source| replies.set_own(name, source));
    }
    replies
}

pub fn load_mail_templates(config: &Config) -> mail::Templates {
    let mut templates = mail::Templates::built_in();
    for name in mail::Templates::names() {
        load_own(config, &format!("mail/{name}"), |source| {
            templates.set_own(name, source)
        });
    }
    templates
}

/// Reads an admin's own template, if there is one; a bad one is said and not used.
fn load_own(config: &Config, name: &str, set: impl FnOnce(String) -> Result<(), minijinja::Error>) {
    let Some(path) = config.templates_dir.as_ref().map(|dir| dir.join(name)) else {
        return;
    };
    let error = match std::fs::read_to_string(&path) {
        Ok(source) => set(source).err().map(|error| format!("{error:#}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = error {
        tracing::warn!(path = %path.display(), error, "the template cannot be used; the built-in one is");
    }
}

/// Makes tokens where none are configured; only a loopback address gets this far without any.
pub fn make_missing_tokens(config: &mut Config) -> Vec<(&'static str, String)> {
    let mut made = Vec::new();
    let mut fill = |purpose, tokens: &mut Vec<SecretString>| {
        if tokens.is_empty() {
            let token = format!("nightbell-{purpose}-{}", uuid::Uuid::new_v4().simple());
            tokens.push(token.clone().into());
            made.push((purpose, token));
        }
    };
    fill("intake", &mut config.intake_tokens);
    fill("admin", &mut config.admin_tokens);
    made
}

pub fn make_app_state(
    config: &Config,
    effective: Effective,
    store: &Db,
    carriers: &Carriers,
    endpoints: Endpoints,
) -> anyhow::Result<AppState> {
    let carrier = carriers.of(Channel::Sms).context("`sms.driver` is not set")?;
    let rules = config.carriers.rules(Channel::Sms).context("`sms.driver` is not set")?;
    let (mut intake_tokens, mut admin_tokens) = (Tokens::default(), Tokens::default());
    intake_tokens.add(&config.intake_tokens, None);
    for (name, source) in &config.sources {
        intake_tokens.add(&source.tokens, Some(name));
    }
    admin_tokens.add(&config.admin_tokens, None);
    let twilio = &config.carriers.sections.twilio;
    Ok(AppState {
        acknowledging: config.acknowledging.clone(),
        store: store.clone(),
        intake: make_intake(config, store),
        intake_tokens,
        admin_tokens,
        rate_limiter: RateLimiter::new(config.http_per_second, config.trusted_proxies.clone()),
        default_region: config.sms.default_region,
        time_zone: config.time_zone.clone(),
        daily_limit: config.daily_limit,
        poll_after: rules.poll_after,
        route: Arc::clone(carrier.route()),
        webhooks: Webhooks {
            status_url: twilio.status_callback_url.clone(),
            inbound_url: twilio.inbound_url.clone(),
            auth_tokens: twilio.auth_tokens.clone(),
            ..Webhooks::default()
        },
        keywords: config.inbound.keywords.clone(),
        inbound: Arc::new(InboundRules {
            help: config.inbound.help,
            cancels_others: config.acknowledging.rules.cancels_others,
            replies: Arc::new(load_auto_replies(config)),
        }),
        readiness: http::Readiness::default(),
        nightly: config.nightly.time,
        has_mail: config.nightly.mail.is_some(),
        endpoints,
        pages: make_pages(config, effective),
    })
}

fn make_intake(config: &Config, store: &Db) -> Intake {
    let acknowledging = config.acknowledging.clone();
    Intake::new(
        store.clone(),
        config.sources.clone(),
        load_templates(config),
        acknowledging,
    )
}

/// Opens the database to write to it: what becomes of alerts is written down for the endpoints that want to hear of it.
pub async fn open_store(config: &Config, limits: Limits) -> Result<Db, OpenError> {
    let store = Db::open(&config.database_url, limits).await?;
    store.listen_for(notify::wanted(&config.webhooks));
    Ok(store)
}

/// A job for each endpoint.
pub fn make_posts(endpoints: &Endpoints, store: &Db) -> Vec<TimedJob> {
    let make = |endpoint| worker::webhooks::job(endpoint, store);
    endpoints.values().map(make).collect()
}

/// How often it is looked whether a helpdesk is to be asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a round under way at a stop may take to end: cut off, it would keep others waiting for its lease.
const HELPDESK_DRAIN: Duration = Duration::from_secs(5);

/// A job for each helpdesk that is polled, and the one that looks for what is to be told of tickets in the end.
pub fn make_polls(config: &Config, store: &Db) -> anyhow::Result<Vec<TimedJob>> {
    let intake = Arc::new(make_intake(config, store));
    let clock = || to_millisecond(Timestamp::now());
    let noted = config.polled.iter().filter(|settings| !settings.write_back.is_empty());
    let noted = noted.map(|settings| settings.source.clone()).collect();
    let mut jobs = Vec::new();
    if notify::wanted(&config.webhooks).contains(EventType::AlertSettled) {
        jobs.push(worker::settled(store, noted));
    }
    for settings in &config.polled {
        let Some(source) = config.sources.get(&settings.source).cloned() else {
            continue;
        };
        let helpdesk = Arc::new(Helpdesk::open(settings, &source)?);
        let poller = Arc::new(Poller {
            helpdesk,
            source,
            settings: settings.clone(),
            intake: Arc::clone(&intake),
            store: store.clone(),
            clock,
        });
        // A handful for the whole life of the process.
        let name = format!("poll the helpdesk `{}`", settings.source).leak();
        let every = settings.every.unsigned_abs().min(LOOK_EVERY);
        let poll = TimedJob::new(name, every, &poller, |poller| async move { poller.round().await });
        jobs.push(poll.drained_for(HELPDESK_DRAIN));
    }
    Ok(jobs)
}

fn make_pages(config: &Config, effective: Effective) -> Pages {
    // Admins with an address of their own do not come by the public one.
    let public_url = config.public_url.as_ref().filter(|_| config.listen_admin.is_none());
    Pages::new(
        &config.time_zone,
        config.proxy_header.clone(),
        public_url.is_some_and(|url| url.scheme() == "https"),
        effective,
    )
}

pub fn make_nightly(config: &Config, store: &Db) -> Nightly {
    let fallback = |people: &[Recipient], region: Region| {
        let phones = people.iter().filter_map(|person| person.read_phone(region).ok());
        phones.map(|phone| phone.as_e164().to_owned()).collect::<Vec<String>>()
    };
    Nightly {
        store: store.clone(),
        mailer: config
            .nightly
            .mail
            .as_ref()
            .map(|mail| Mailer::new(&mail.server, mail.addresses.clone())),
        templates: load_mail_templates(config),
        rules: NightlyRules {
            time: config.nightly.time,
            time_zone: config.time_zone.clone(),
            daily_limit: config.daily_limit,
            always: config.nightly.always,
            receipt_days: config.nightly.receipt_days,
            personal_days: config.nightly.personal_days,
            event_days: config.nightly.event_days,
            endpoints: config.webhooks.iter().map(|endpoint| endpoint.name.clone()).collect(),
            fallback: config
                .sources
                .iter()
                .map(|(name, source)| (name.clone(), fallback(&source.fallback_recipients, source.region)))
                .collect(),
        },
        owner: uuid::Uuid::now_v7().simple().to_string(),
    }
}

/// One worker for each channel that has a carrier.
pub fn make_workers(config: &Config, store: &Db, carriers: &Carriers, owner: &str) -> Vec<Arc<Worker>> {
    let clock = Arc::default();
    let limited = |(name, source): (&String, &Source)| Some((name.clone(), source.daily_limit?));
    let source_limits = Arc::new(config.sources.iter().filter_map(limited).collect::<SourceLimits>());
    let open = config
        .carriers
        .channels()
        .filter_map(|(channel, _)| carriers.of(channel));
    let routes: Vec<_> = open.map(|carrier| Arc::clone(carrier.route())).collect();
    let make = |(channel, rules): (Channel, &ChannelRules)| {
        Some(Arc::new(Worker {
            store: store.clone(),
            carrier: carriers.of(channel)?,
            log: Carriers::to_log(),
            rules: *rules,
            calls: Arc::new(Semaphore::new(rules.max_in_flight)),
            time_zone: config.time_zone.clone(),
            daily_limit: config.daily_limit,
            source_limits: Arc::clone(&source_limits),
            owner: owner.to_owned(),
            clock: Arc::clone(&clock),
            routes: routes.clone(),
            wake: Mutex::new(store.wake()),
        }))
    };
    config.carriers.channels().filter_map(make).collect()
}
