//! How mails look: the templates and what they may say. Absent: which alarms and outcomes there are.

use super::csv;
use crate::domain::{
    alarm::{Alarm, AlarmKind, TicketRef},
    day::zone_name,
    delivery::State,
    mail::{Attachment, Mail, MailKind},
    report::{BadOutcome, DoubtfulOptOut, Report, TrendDay, plural},
};
use jiff::{Timestamp, tz::TimeZone};
use minijinja::{Environment, Value, context};

/// Rows beyond this are in the CSV only: a mail of a thousand rows is read by nobody.
const SHOWN_ROWS: usize = 200;
/// The plain text fits a terminal.
const COLUMNS: usize = 78;
/// The longest bar of the trend, in characters and in pixels.
const BAR: i64 = 40;
const BAR_HEIGHT: i64 = 60;

/// The templates by name, compiled in.
const BUILT_IN: [(&str, &str); 6] = [
    ("report.txt", include_str!("../../templates/mail/report.txt")),
    ("report.html", include_str!("../../templates/mail/report.html")),
    ("alarms.txt", include_str!("../../templates/mail/alarms.txt")),
    ("alarms.html", include_str!("../../templates/mail/alarms.html")),
    ("notice.txt", include_str!("../../templates/mail/notice.txt")),
    ("notice.html", include_str!("../../templates/mail/notice.html")),
];

/// The mail templates: the admin's own where there are some, the built-in ones beside them for when those fail.
pub struct Templates {
    built_in: Environment<'static>,
    own: Environment<'static>,
}

const FOOTER: &str = "Sent by Nightbell, which texts people when a ticket turns critical. Phone numbers are masked.";

impl Templates {
    /// Compiles the built-in templates.
    pub fn built_in() -> Self {
        let mut built_in = environment();
        for (name, source) in BUILT_IN {
            // Compiled in and rendered by a test, so they cannot fail to parse here.
            let _ = built_in.add_template(name, source);
        }
        Self {
            built_in,
            own: environment(),
        }
    }

    /// The names that an admin's own template may have.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Puts an admin's own template before the built-in one. Fails with the template's own error and line.
    pub fn set_own(&mut self, name: &'static str, source: String) -> Result<(), minijinja::Error> {
        self.own.add_template_owned(name, source)
    }

    /// The mail of a report.
    pub fn report(&self, report: &Report, zone: &TimeZone) -> Mail {
        let subject = report.subject();
        let view = report_view(report, zone, &subject);
        Mail {
            kind: MailKind::Report,
            text: tidy(&self.render("report.txt", &view)),
            html: self.render("report.html", &view),
            attachment: report.asks_for_attention().then(|| Attachment {
                name: format!("nightbell-{}.csv", report.days.last),
                content: csv::write(report, zone),
            }),
            to: None,
            subject,
        }
    }

    /// The mail of alarms that were just raised, the most urgent first. `more` says that others come with the next mail.
    pub fn alarms(&self, alarms: &[Alarm], more: bool, zone: &TimeZone) -> Mail {
        let mut sorted: Vec<&Alarm> = alarms.iter().collect();
        sorted.sort_by_key(|alarm| (alarm.kind.urgency(), alarm.raised_at));
        let subject = alarms_subject(&sorted);
        let view = context! {
            title => subject.as_str(),
            alarms => sorted.into_iter().map(|alarm| alarm_view(alarm, zone)).collect::<Value>(),
            hidden => more,
            footer => FOOTER,
        };
        Mail {
            kind: MailKind::Alarms,
            text: tidy(&self.render("alarms.txt", &view)),
            html: self.render("alarms.html", &view),
            attachment: None,
            to: None,
            subject: format!("Nightbell: {subject}"),
        }
    }

    /// The mail of one event, in words: a title of one line, a text of several, and where it leads to.
    pub fn notice(&self, title: &str, text: &str, link: Option<&str>) -> Mail {
        let view = context! { title, text, link, footer => FOOTER };
        Mail {
            kind: MailKind::Notice,
            text: tidy(&self.render("notice.txt", &view)),
            html: self.render("notice.html", &view),
            attachment: None,
            to: None,
            subject: format!("Nightbell: {title}"),
        }
    }

    /// A mail that only shows that mail works.
    pub fn test(server: &str) -> Mail {
        let text = format!("If you can read this, Nightbell can send mail through {server}.\n");
        Mail {
            kind: MailKind::Test,
            subject: "Nightbell: a test".into(),
            html: format!(
                "<p>{}</p>\n",
                text.trim_end().replace('&', "&amp;").replace('<', "&lt;")
            ),
            text,
            attachment: None,
            to: None,
        }
    }

    fn render(&self, name: &str, view: &Value) -> String {
        if let Ok(own) = self.own.get_template(name) {
            match own.render(view) {
                Ok(text) => return text,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        template = name,
                        error,
                        "the mail template failed; the built-in one is used"
                    );
                }
            }
        }
        let built_in = self.built_in.get_template(name);
        built_in
            .and_then(|template| template.render(view))
            .unwrap_or_else(|error| {
                tracing::error!(
                    template = name,
                    error = format!("{error:#}"),
                    "the built-in mail template failed"
                );
                String::new()
            })
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_filter("wrap", |text: &str, indent: Option<&str>| {
        let indent = indent.unwrap_or_default();
        let options = textwrap::Options::new(COLUMNS)
            .initial_indent(indent)
            .subsequent_indent(indent)
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(text, options)
    });
    environment
}

/// No blanks at the ends of lines but for the signature's mark, and one line break at the end.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| if line == "-- " { line } else { line.trim_end() })
        .collect();
    format!("{}\n", lines.join("\n").trim_end())
}

fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn report_view(report: &Report, zone: &TimeZone, subject: &str) -> Value {
    let shown = &report.rows[..report.rows.len().min(SHOWN_ROWS)];
    let group = |title, untold: bool| {
        let rows: Vec<Value> = shown
            .iter()
            .filter(|row| row.nobody_told == untold)
            .map(|row| row_view(row, zone))
            .collect();
        (!rows.is_empty()).then(|| context! { title, untold, rows })
    };
    let groups = [group("Nobody was told", true), group("Somebody else was told", false)];
    let most = report.trend.iter().map(|day| day.deliveries).max().unwrap_or(0).max(1);
    let total = |(state, count): &(State, i64)| context! { state => state.as_str(), count, bad => state.is_bad() };
    context! {
        title => subject,
        days => report.days_text(),
        one_day => report.days.first == report.days.last,
        zone => zone_name(zone),
        headline => headline(report),
        untold => report.untold_tickets() > 0,
        groups => groups.into_iter().flatten().collect::<Value>(),
        // How many rows are in the CSV only, and how many not even there.
        hidden => beyond(report.row_count, shown.len()),
        beyond_csv => beyond(report.row_count, report.rows.len()),
        opt_outs => opt_outs_view(report, zone),
        totals => report.totals.iter().map(total).collect::<Value>(),
        numbers => numbers(report),
        trend => report.trend.iter().map(|day| trend_view(day, most)).collect::<Value>(),
        footer => FOOTER,
    }
}

/// How many of `count` are not among those that are shown.
fn beyond(count: i64, shown: usize) -> i64 {
    count.saturating_sub(i64::try_from(shown).unwrap_or(i64::MAX)).max(0)
}

fn headline(report: &Report) -> String {
    let untold = report.untold_tickets();
    let bad = usize::try_from(report.row_count).unwrap_or(usize::MAX);
    let doubtful = match report.doubtful_opt_out_count {
        0 => String::new(),
        1 => " 1 opt-out is to be compared with the helpdesk.".to_owned(),
        count => format!(" {count} opt-outs are to be compared with the helpdesk."),
    };
    let failed = match (bad, untold) {
        (0, _) => "Nothing failed.".to_owned(),
        (_, 0) => format!("{bad} bad outcome{}; of each ticket somebody was told.", plural(bad)),
        (_, _) => format!(
            "{bad} bad outcome{}, and nobody was told of {untold} ticket{}.",
            plural(bad),
            plural(untold)
        ),
    };
    format!("{failed}{doubtful}")
}

/// The opt-outs that a person should check, and why; nothing where there are none.
fn opt_outs_view(report: &Report, zone: &TimeZone) -> Value {
    let opt_outs = &report.doubtful_opt_outs;
    let shown = &opt_outs[..opt_outs.len().min(SHOWN_ROWS)];
    if shown.is_empty() {
        return Value::from(());
    }
    let row = |opt_out: &DoubtfulOptOut| {
        context! {
            phone => opt_out.phone.clone(),
            staff_id => opt_out.staff_id.clone(),
            reason => opt_out.reason.clone(),
            since => local(opt_out.since, zone),
        }
    };
    let explanation = DoubtfulOptOut::explanation();
    context! {
        meaning => explanation.meaning,
        advice => explanation.advice,
        rows => shown.iter().map(row).collect::<Value>(),
        hidden => beyond(report.doubtful_opt_out_count, shown.len()),
    }
}

fn numbers(report: &Report) -> String {
    let waiting = match report.deferred {
        0 => "Nothing waits for a free slot.".to_owned(),
        1 => "1 delivery still waits for a free slot.".to_owned(),
        count => format!("{count} deliveries still wait for a free slot."),
    };
    let used = if report.days.first == report.days.last {
        format!("Daily limit: {} of {} used.", report.used, report.limit)
    } else {
        format!("Slots of the daily limit used: {}.", report.used)
    };
    format!("{used} {waiting} Opt-outs gained: {}.", report.opt_outs_gained)
}

/// How a message is called that no ticket is the cause of.
const NO_TICKET: &str = "A message of its own";

fn row_view(row: &BadOutcome, zone: &TimeZone) -> Value {
    context! {
        ticket => row.ticket.as_ref().map_or_else(|| NO_TICKET.to_owned(), TicketRef::name),
        subject => row.ticket.as_ref().and_then(|ticket| ticket.subject.clone()),
        url => row.ticket.as_ref().and_then(|ticket| ticket.url.clone()),
        person => person(row),
        state => row.state.as_str(),
        at => local(row.at, zone),
        code => row.code,
        meaning => row.explanation.meaning.clone(),
        advice => row.explanation.advice.clone(),
    }
}

/// Who it was to be sent to, as far as that is known.
fn person(row: &BadOutcome) -> String {
    let name = row.person.as_deref().unwrap_or("somebody without a name");
    let role = row.role.as_ref().map(|role| format!(" ({})", role.replace('_', " ")));
    let role = role.unwrap_or_default();
    let phone = row.phone.as_deref().unwrap_or("no number");
    format!("{name}{role}, {phone}")
}

fn trend_view(day: &TrendDay, most: i64) -> Value {
    let scaled = |count: i64, full: i64| match count {
        0 => 0,
        count => (count * full / most).max(1),
    };
    let text = day.day.to_string();
    let (bad, good) = (scaled(day.bad, BAR), scaled(day.deliveries - day.bad, BAR));
    let repeat = |sign: &str, times: i64| sign.repeat(usize::try_from(times).unwrap_or(0));
    context! {
        short => text.get(8..).unwrap_or_default(),
        day => text,
        deliveries => day.deliveries,
        bad => day.bad,
        bar => format!("{}{}", repeat("#", good), repeat("!", bad)),
        good_height => scaled(day.deliveries - day.bad, BAR_HEIGHT),
        bad_height => scaled(day.bad, BAR_HEIGHT),
    }
}

fn alarms_subject(alarms: &[&Alarm]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for kind in AlarmKind::ALL {
        let of_kind: Vec<&&Alarm> = alarms.iter().filter(|alarm| alarm.kind == *kind).collect();
        let ticket = match of_kind.as_slice() {
            [] => continue,
            [only] => {
                let ticket = only.ticket.as_ref();
                ticket.map_or_else(String::new, |ticket| format!(" (ticket {})", ticket.name()))
            }
            many => format!(" ({} times)", many.len()),
        };
        parts.push(format!("{}{ticket}", kind.title()));
    }
    parts.join("; ")
}

fn alarm_view(alarm: &Alarm, zone: &TimeZone) -> Value {
    let ticket = alarm.ticket.as_ref();
    context! {
        title => alarm.kind.title(),
        at => local(alarm.raised_at, zone),
        detail => alarm.detail.clone(),
        ticket => ticket.map(|ticket| format!("Ticket {} of source {}", ticket.name(), ticket.source)),
        subject => ticket.and_then(|ticket| ticket.subject.as_deref()),
        url => ticket.and_then(|ticket| ticket.url.as_deref()),
        person => alarm.person.clone(),
        advice => alarm.kind.advice(),
    }
}
