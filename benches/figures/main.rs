//! The figures: how many events a second are durably accepted and sent, how long one takes to the provider, what a
//! process weighs, and the same of a peer on the same cores in the same minutes. Starts the release binary and a fake
//! provider on loopback; prints a table and, for programs, one line of JSON for each row.
//!
//!     cargo bench --bench figures [-- --pair alertmanager] [--pairs 5] [--seconds 4] [--rows N] [--only NAME,NAME]
//!     cargo bench --bench figures -- --against ANOTHER-NIGHTBELL-BINARY [...]
//!
//! Runs of the two sides take turns (A B, B A, …); given are medians and the span. A row whose reference varies more than
//! 1.5-fold over its runs says so and is void. `--rows` begins with a ledger of that many alerts. `--only` takes beginnings
//! of names. `--against` compares every row with another build of Nightbell; NIGHTBELL_BENCH_BINARY takes the place of this
//! build.
//!
//! In the `endpoints` rows two endpoints, each a process of its own, hear of every lifecycle event, in turns with none.
//!
//! In the `flow` rows both sides accept and send as events come, `_1` and `_64` being the connections. The provider is in the
//! client's thread, or (`_threads`) a process of its own with a thread for each connection, which
//! (`_two_writes`) answers in two writes with Nagle's algorithm on: 40 ms for each call. In the `_paced` rows neither
//! side sends what it accepts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on should panic"
)]

mod http;
mod prefill;
mod provider;
mod rows;
mod subject;

use rows::Bench;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use subject::Subject;

/// What is asked for on the command line.
struct Options {
    ours: Subject,
    peer: Option<Subject>,
    /// Another build of Nightbell.
    before: Option<Subject>,
    pairs: usize,
    seconds: f64,
    rows: u64,
    only: Option<Vec<String>>,
}

fn options() -> Options {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let build = |path: PathBuf| Subject::Nightbell(Box::leak(path.into_boxed_path()));
    Options {
        ours: std::env::var_os("NIGHTBELL_BENCH_BINARY").map_or_else(
            || Subject::Nightbell(Path::new(env!("CARGO_BIN_EXE_nightbell"))),
            |path| build(path.into()),
        ),
        before: value("--against").map(|path| build(path.into())),
        peer: value("--pair").map(|name| match name.as_str() {
            "alertmanager" => Subject::Alertmanager,
            other => panic!("`--pair {other}` is no peer: `alertmanager` is"),
        }),
        pairs: value("--pairs").map_or(5, |pairs| pairs.parse().expect("`--pairs` takes a number")),
        seconds: value("--seconds").map_or(4.0, |seconds| seconds.parse().expect("`--seconds` takes a number")),
        rows: value("--rows").map_or(0, |rows| rows.parse().expect("`--rows` takes a number")),
        only: value("--only").map(|names| names.split(',').map(str::to_owned).collect()),
    }
}

impl Options {
    /// Whom a row is compared with, in words.
    fn reference_name(&self, plan: &rows::Plan, who: rows::Who) -> &'static str {
        match plan.reference {
            rows::Reference::NoEndpoints => "without endpoints",
            _ if self.before.is_some() => "before",
            _ => who.name(),
        }
    }
}

/// What several runs gave.
struct Sample(Vec<f64>);

impl Sample {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    fn json(&self) -> serde_json::Value {
        json!({"median": self.median(), "min": self.least(), "max": self.most(), "runs": self.0})
    }
}

/// A row of the table: what was measured, of us and of whoever we compare with.
struct Row {
    name: &'static str,
    unit: &'static str,
    goal: &'static str,
    ours: Sample,
    reference: Option<(&'static str, Sample)>,
}

impl Row {
    fn print(&self) {
        let span = |sample: &Sample| {
            format!(
                "{} ({} to {})",
                number(sample.median()),
                number(sample.least()),
                number(sample.most())
            )
        };
        let mut line = format!("{:<34} {:<6} {:<34}", self.name, self.unit, span(&self.ours));
        let mut record = json!({"row": self.name, "unit": self.unit, "goal": self.goal, "nightbell": self.ours.json()});
        if let Some((name, theirs)) = &self.reference {
            let ratios = Sample(
                self.ours
                    .0
                    .iter()
                    .zip(&theirs.0)
                    .map(|(ours, theirs)| ours / theirs)
                    .collect(),
            );
            let is_void = theirs.most() > 1.5 * theirs.least();
            line += &format!(
                " {name} {}, ratio {:.2} ({:.2} to {:.2}){}",
                span(theirs),
                ratios.median(),
                ratios.least(),
                ratios.most(),
                if is_void {
                    " VOID: the reference varies too much"
                } else {
                    ""
                }
            );
            record["reference"] =
                json!({"name": name, "figures": theirs.json(), "ratio": ratios.json(), "void": is_void});
        }
        println!("{line}   [goal: {}]", self.goal);
        println!("{record}");
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn main() {
    if std::env::args().any(|argument| argument == provider::THREADS_ARGUMENT) {
        provider::Threads::run();
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run(options()));
}

async fn run(options: Options) {
    let database = if options.rows > 0 {
        println!("filling a ledger with {} alerts …", options.rows);
        // An older build could not open what a newer one made.
        Some(prefill::database(options.before.unwrap_or(options.ours), options.rows).await)
    } else {
        None
    };
    println!(
        "2 cores or whatever this machine has, shared by the service, the client, the fake provider and the peer; WAL, \
         synchronous=FULL; ledger of {} alerts; {} runs of {} s a row\n",
        options.rows, options.pairs, options.seconds
    );
    let bench = Bench::start(Duration::from_secs_f64(options.seconds), database.clone(), options.rows).await;
    for plan in rows::ALL {
        if options
            .only
            .as_ref()
            .is_some_and(|only| !only.iter().any(|name| plan.name.starts_with(name.as_str())))
        {
            continue;
        }
        measure(&bench, plan, &options).await;
    }
    if let Some(database) = database {
        let _ = std::fs::remove_dir_all(database.parent().unwrap());
    }
}

/// Measures one plan, in turns with its reference, and prints its rows.
async fn measure(bench: &Bench, plan: &rows::Plan, options: &Options) {
    let reference = match (options.before, plan.reference) {
        (_, rows::Reference::NoEndpoints) => Some(rows::Who::Subject(options.ours)),
        (Some(before), _) => Some(rows::Who::Subject(before)),
        (None, rows::Reference::None) => None,
        (None, rows::Reference::Commits) => Some(rows::Who::Commits),
        (None, rows::Reference::Peer) => options.peer.map(rows::Who::Subject),
    };
    let us = match plan.reference {
        rows::Reference::NoEndpoints => rows::Who::WithEndpoints(options.ours),
        _ => rows::Who::Subject(options.ours),
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        let turns = if pair % 2 == 0 { [true, false] } else { [false, true] };
        for is_ours in turns {
            if is_ours {
                ours.push(bench.run(plan.what, us).await);
            } else if let Some(reference) = reference {
                theirs.push(bench.run(plan.what, reference).await);
            }
        }
    }
    for (at, (name, unit, goal)) in plan.figures.iter().copied().enumerate() {
        let sample = |runs: &[Vec<f64>]| Sample(runs.iter().map(|run| run[at]).collect());
        Row {
            name,
            unit,
            goal,
            ours: sample(&ours),
            reference: reference
                .filter(|_| theirs.iter().all(|run| run[at].is_finite()))
                .map(|who| (options.reference_name(plan, who), sample(&theirs))),
        }
        .print();
    }
}
