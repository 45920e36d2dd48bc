//! The composition root: makes the modules' parts out of the configuration (see `settings`), runs them together, and stops
//! them in order. What commands do with the same parts stands in `commands`.

mod commands;
mod moving;
mod settings;

pub use commands::{ReportRequest, nightly, send_test_mail};
pub use moving::{backup, export, import, migrate};
pub use settings::{Loaded, load};

use crate::{
    carrier::Carriers,
    config::ChannelRules,
    domain::{
        event::Recipient,
        message::Templates,
        phone::{PhoneNumber, Region},
        route::Channel,
    },
    http::{self, AppState, RateLimiter, Tokens, Webhooks},
    intake::{Intake, Source, Texts},
    mail::{self, Mailer},
    store::{Db, LaterRecipients, Limits},
    telemetry,
    worker::{Nightly, NightlyRules, Rules, Worker},
};
use anyhow::{Context, bail};
use jiff::SignedDuration;
use secrecy::SecretString;
use settings::Config;
use std::{io::Write, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Mutex, watch},
};

/// How long requests that are under way may take to end at a stop.
const HTTP_DRAIN: Duration = Duration::from_secs(10);
/// Beyond the drain, what closing the database may take at a stop.
const CLOSE: Duration = Duration::from_secs(4);
/// Beyond the provider's own time-out, what recording the answers may take at a stop.
const SEND_DRAIN: SignedDuration = SignedDuration::from_secs(10);

/// What a process does. Roles apart need PostgreSQL, where they meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything
    All,
    /// Take events and receipts and answer admins; send nothing
    Intake,
    /// Send, ask, report and clean up; answer only health checks
    Worker,
}

/// Runs the service until SIGTERM or SIGINT. The configuration has no faults.
pub async fn serve(loaded: Loaded, role: Role) -> anyhow::Result<()> {
    let Loaded {
        mut config, warnings, ..
    } = loaded;
    telemetry::start(&config.log).context("`log.filter` cannot be read: write it like `info` or `nightbell=debug`")?;
    let listener = bind("listen", config.listen).await?;
    let admin_listener = match config.listen_admin {
        Some(address) => Some(bind("listen_admin", address).await?),
        None => None,
    };
    let store = Db::open(&config.database_url, Limits::QUICK).await?;
    if role != Role::All && !store.is_shared() {
        bail!("a SQLite file has one process: `--role intake` and `--role worker` need a PostgreSQL `database_url`");
    }
    let carriers = Carriers::open(&config.carriers)?;
    let new_tokens = make_missing_tokens(&mut config);
    announce(&listener, admin_listener.as_ref(), &new_tokens)?;
    if store.is_shared() && !new_tokens.is_empty() {
        tracing::warn!(
            "other processes on this database do not know the tokens made for this start: set `auth.intake_tokens` and `auth.admin_tokens`"
        );
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }

    let (stop, stopping) = watch::channel(false);
    let app_state = Arc::new(make_app_state(&config, &store, &carriers)?);
    // None of them waits for the others' connections.
    let worker_store = store.apart(Limits::QUICK);
    let nightly_store = store.apart(Limits::PATIENT);
    let nightly = Arc::new(make_nightly(&config, &nightly_store));
    let mut workers = make_workers(&config, &worker_store, &carriers, &nightly.owner).into_iter();
    let worker = workers.next().context("no channel has a carrier")?;
    let others = workers.collect();
    let longest_call = config.carriers.channels().map(|(_, rules)| rules.timeout).max();
    let drain = (longest_call.unwrap_or_default() + SEND_DRAIN).unsigned_abs();
    let mut idle = stopping.clone();
    let mut sending = tokio::spawn(async move {
        if role == Role::Intake {
            let _ = idle.wait_for(|stop| *stop).await;
        } else {
            worker.run(others, nightly, idle, drain).await;
        }
    });
    let endpoints = match role {
        Role::All | Role::Intake => http::Endpoints::All,
        Role::Worker => http::Endpoints::Health,
    };
    let mut serving = tokio::spawn(http::serve(
        Arc::clone(&app_state),
        endpoints,
        listener,
        admin_listener,
        stopping,
    ));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        database = store.engine(),
        driver = %app_state.route.provider,
        "ready"
    );
    notify_systemd(sd_notify::NotifyState::Ready);

    let failed = tokio::select! {
        () = stop_signal()? => None,
        why = store.fatal().reported() => Some(why),
        ended = &mut sending => Some(format!("the worker ended: {ended:?}")),
        ended = &mut serving => Some(format!("the HTTP server ended: {ended:?}")),
    };
    notify_systemd(sd_notify::NotifyState::Stopping);
    tracing::info!("stopping: no new claims; finishing what is under way");
    stop.send_replace(true);
    let worker_ends = async {
        if !sending.is_finished()
            && let Err(error) = sending.await
        {
            tracing::error!(%error, "the worker panicked");
        }
    };
    let requests_end = async {
        if !serving.is_finished() && tokio::time::timeout(HTTP_DRAIN, serving).await.is_err() {
            tracing::warn!(after_s = HTTP_DRAIN.as_secs(), "cut off requests that did not end");
        }
    };
    let stopping = async {
        tokio::join!(worker_ends, requests_end);
        tokio::join!(worker_store.close(), nightly_store.close());
        store.close().await;
    };
    // Whatever a database does that has fallen silent, the process ends.
    match tokio::time::timeout(drain + CLOSE, stopping).await {
        Ok(()) => tracing::info!("stopped"),
        Err(_) => tracing::warn!("stopped without waiting any longer for what was under way"),
    }
    failed.map_or(Ok(()), |why| bail!(why))
}

/// Makes the texts of messages as the configuration says.
pub fn texts(config: &Config) -> Texts {
    Texts {
        templates: load_templates(config.templates_dir.as_deref()),
        rules: config.sms.rules,
    }
}

/// Reads the admin's own SMS template, if there is one; a bad one is said and not used.
fn load_templates(dir: Option<&Path>) -> Templates {
    let mut templates = Templates::built_in();
    let Some(path) = dir.map(|dir| dir.join("sms/critical.txt")) else {
        return templates;
    };
    match std::fs::read_to_string(&path) {
        Ok(source) => {
            if let Err(error) = templates.set_own(source) {
                tracing::warn!(path = %path.display(), %error, "the template cannot be used; the built-in one is");
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the template cannot be read; the built-in one is used")
        }
    }
    templates
}

/// Reads the admin's own mail templates, where there are some; a bad one is said and not used.
fn load_mail_templates(dir: Option<&Path>) -> mail::Templates {
    let mut templates = mail::Templates::built_in();
    let Some(dir) = dir else {
        return templates;
    };
    for name in mail::Templates::names() {
        let path = dir.join("mail").join(name);
        let error = match std::fs::read_to_string(&path) {
            Ok(source) => templates.set_own(name, source).err().map(|error| format!("{error:#}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            tracing::warn!(path = %path.display(), error, "the template cannot be used; the built-in one is");
        }
    }
    templates
}

async fn bind(key: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{key}` = `{address}`: is another process there?"))
}

/// Prints where we listen, first of all, and tokens that hold for this start only. Standard output, never the log.
fn announce(listener: &TcpListener, admin: Option<&TcpListener>, new_tokens: &[(&str, String)]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    if let Some(admin) = admin {
        writeln!(out, "listening for admins on http://{}", admin.local_addr()?)?;
    }
    for (purpose, token) in new_tokens {
        writeln!(out, "{purpose} token, for this start only: {token}")?;
    }
    Ok(out.flush()?)
}

/// Makes tokens where none are configured; only a loopback address gets this far without any.
fn make_missing_tokens(config: &mut Config) -> Vec<(&'static str, String)> {
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

fn make_app_state(config: &Config, store: &Db, carriers: &Carriers) -> anyhow::Result<AppState> {
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
            auth_tokens: twilio.auth_tokens.clone(),
            ..Webhooks::default()
        },
        readiness: http::Readiness::default(),
        nightly: config.nightly.time,
        has_mail: config.nightly.mail.is_some(),
    })
}

fn make_intake(config: &Config, store: &Db) -> Intake {
    let sources = config.sources.iter().map(|(name, source)| {
        let source = Source {
            region: source.region,
            fallback_recipients: source.fallback_recipients.clone(),
            later_recipients: if source.each_later_recipient {
                LaterRecipients::Each
            } else {
                LaterRecipients::Untold
            },
        };
        (name.clone(), source)
    });
    Intake::new(store.clone(), sources.collect(), texts(config))
}

fn make_nightly(config: &Config, store: &Db) -> Nightly {
    let fallback = |people: &[Recipient], region: Region| {
        let numbers = people.iter().filter_map(|person| {
            let phone = PhoneNumber::parse(person.phone.as_deref()?, person.region.unwrap_or(region))?;
            Some(phone.as_e164().to_owned())
        });
        numbers.collect::<Vec<String>>()
    };
    Nightly {
        store: store.clone(),
        mailer: config
            .nightly
            .mail
            .as_ref()
            .map(|mail| Mailer::new(&mail.server, mail.addresses.clone())),
        templates: load_mail_templates(config.templates_dir.as_deref()),
        rules: NightlyRules {
            time: config.nightly.time,
            time_zone: config.time_zone.clone(),
            daily_limit: config.daily_limit,
            always: config.nightly.always,
            receipt_days: config.nightly.receipt_days,
            personal_days: config.nightly.personal_days,
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
fn make_workers(config: &Config, store: &Db, carriers: &Carriers, owner: &str) -> Vec<Arc<Worker>> {
    let clock = Arc::default();
    let open = config
        .carriers
        .channels()
        .filter_map(|(channel, _)| carriers.of(channel));
    let routes: Vec<_> = open.map(|carrier| Arc::clone(carrier.route())).collect();
    let make = |(channel, rules)| {
        Some(Arc::new(Worker {
            store: store.clone(),
            carrier: carriers.of(channel)?,
            rules: worker_rules(config, rules),
            owner: owner.to_owned(),
            clock: Arc::clone(&clock),
            routes: routes.clone(),
            wake: Mutex::new(store.wake()),
        }))
    };
    config.carriers.channels().filter_map(make).collect()
}

fn worker_rules(config: &Config, channel: &ChannelRules) -> Rules {
    Rules {
        time_zone: config.time_zone.clone(),
        daily_limit: config.daily_limit,
        per_second: channel.per_second,
        max_in_flight: channel.max_in_flight,
        lease: channel.lease,
        timeout: channel.timeout,
        reconcile_after: channel.reconcile_after,
        resend_when_absent: channel.resend_when_absent,
        poll_after: channel.poll_after,
        expire_after: channel.expire_after,
    }
}

/// Ends when somebody asks us to stop.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells systemd, if it started us.
fn notify_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd how we are");
    }
}
