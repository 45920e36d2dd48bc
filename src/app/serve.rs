//! Runs the service until it is to stop, and stops it in order.

use super::{
    notifiers::make_endpoints,
    parts::{make_app_state, make_missing_tokens, make_nightly, make_polls, make_posts, make_workers, open_store},
    settings::{Config, Loaded},
};
use crate::{
    carrier::Carriers,
    config::Effective,
    domain::day::to_millisecond,
    http,
    store::{Db, Limits},
    telemetry, worker,
};
use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
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
    telemetry::start(&loaded.config.log)
        .context("`log.filter` cannot be read: write it like `info` or `nightbell=debug`")?;
    let service = Opened::open(loaded, role).await?;
    service.announce()?;
    service.run(stop_signal()?).await
}

/// A service that has its addresses and its database, and does nothing yet.
pub struct Opened {
    config: Config,
    warnings: Vec<String>,
    effective: Effective,
    role: Role,
    listener: TcpListener,
    admin_listener: Option<TcpListener>,
    pub store: Db,
    pub carriers: Carriers,
    /// Tokens that were made for this start only, each with what it is for.
    new_tokens: Vec<(&'static str, String)>,
}

impl Opened {
    pub async fn open(loaded: Loaded, role: Role) -> anyhow::Result<Self> {
        let Loaded {
            mut config,
            warnings,
            effective,
            ..
        } = loaded;
        let listener = bind("listen", config.listen).await?;
        let admin_listener = match config.listen_admin {
            Some(address) => Some(bind("listen_admin", address).await?),
            None => None,
        };
        let store = open_store(&config, Limits::QUICK).await?;
        if role != Role::All && !store.is_shared() {
            bail!(
                "a SQLite file has one process: `--role intake` and `--role worker` need a PostgreSQL `database_url`"
            );
        }
        Ok(Self {
            carriers: Carriers::open(&config.carriers)?,
            new_tokens: make_missing_tokens(&mut config),
            config,
            warnings,
            effective,
            role,
            listener,
            admin_listener,
            store,
        })
    }

    /// Where admins reach it.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.admin_listener.as_ref().unwrap_or(&self.listener).local_addr()
    }

    /// Prints where it listens, first of all, and tokens that hold for this start only. Standard output, never the log.
    fn announce(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{}", self.listener.local_addr()?)?;
        if let Some(admin) = &self.admin_listener {
            writeln!(out, "listening for admins on http://{}", admin.local_addr()?)?;
        }
        for (purpose, token) in &self.new_tokens {
            writeln!(out, "{purpose} token, for this start only: {token}")?;
        }
        Ok(out.flush()?)
    }

    /// Works until `until` ends; then finishes what is under way, in order.
    pub async fn run(self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self {
            config,
            warnings,
            effective,
            role,
            listener,
            admin_listener,
            store,
            carriers,
            new_tokens,
        } = self;
        if store.is_shared() && !new_tokens.is_empty() {
            tracing::warn!(
                "other processes on this database do not know the tokens made for this start: set `auth.intake_tokens` and `auth.admin_tokens`"
            );
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }

        let (stop, stopping) = watch::channel(false);
        // None of them waits for the others' connections.
        let worker_store = store.apart(Limits::QUICK);
        let nightly_store = store.apart(Limits::PATIENT);
        let endpoints = make_endpoints(&config, &worker_store)?;
        let app_state = Arc::new(make_app_state(&config, effective, &store, &carriers, endpoints)?);
        let nightly = Arc::new(make_nightly(&config, &nightly_store));
        let mut workers = make_workers(&config, &worker_store, &carriers, &nightly.owner).into_iter();
        let worker = workers.next().context("no channel has a carrier")?;
        let others = workers.collect();
        let longest_call = config.carriers.channels().map(|(_, rules)| rules.timeout).max();
        let drain = (longest_call.unwrap_or_default() + SEND_DRAIN).unsigned_abs();
        // Before anything can happen of which they are to hear.
        let endpoints = app_state.endpoints.keys().map(String::as_str);
        store
            .register_endpoints(endpoints, to_millisecond(Timestamp::now()))
            .await?;
        let mut jobs = make_polls(&config, &worker_store)?;
        jobs.extend(make_posts(&app_state.endpoints, &worker_store));
        let mut idle = stopping.clone();
        let mut sending = tokio::spawn(async move {
            if role == Role::Intake {
                let _ = idle.wait_for(|stop| *stop).await;
            } else {
                worker::run(worker, others, nightly, jobs, idle, drain).await;
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
            () = until => None,
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
        // The process ends, also if the database answers nothing any more.
        match tokio::time::timeout(drain + CLOSE, stopping).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped without waiting any longer for what was under way"),
        }
        failed.map_or(Ok(()), |why| bail!(why))
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{key}` = `{address}`: is another process there?"))
}

/// Ends when somebody asks us to stop.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
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
        tracing::warn!(%error, "cannot notify systemd of our state");
    }
}
