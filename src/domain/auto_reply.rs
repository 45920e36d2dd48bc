//! The texts by which we answer what people text us: made of templates, each of which ships inside the program. Absent: when
//! there is an answer (see `store::inbound`), and reading template files (`app` does that).

use super::{
    message::{Alphabet, Message, Rules},
    sms,
    text::truncate,
};
use jiff::{Timestamp, tz::TimeZone};
use minijinja::{Environment, Value, context};

/// The templates by the names of their files below `sms/`.
const BUILT_IN: [(&str, &str); 6] = [
    ("help.txt", include_str!("../../templates/sms/help.txt")),
    ("open_alerts.txt", include_str!("../../templates/sms/open_alerts.txt")),
    ("wrong_code.txt", include_str!("../../templates/sms/wrong_code.txt")),
    (
        "already_acknowledged.txt",
        include_str!("../../templates/sms/already_acknowledged.txt"),
    ),
    ("not_critical.txt", include_str!("../../templates/sms/not_critical.txt")),
    ("nothing_open.txt", include_str!("../../templates/sms/nothing_open.txt")),
];

const MAX_NUMBER: usize = 40;
/// So that several fit into a text.
const MAX_SUBJECT: usize = 40;
const MAX_NAME: usize = 60;

/// An alert as an answer names it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Of the ticket, as people know it.
    pub number: &'a str,
    pub subject: Option<&'a str>,
    pub code: Option<&'a str>,
}

/// What we answer.
#[derive(Clone, Copy, Debug)]
pub enum AutoReply<'a> {
    Help,
    /// Several alerts are open: each with its code.
    OpenAlerts(&'a [Named<'a>]),
    WrongCode {
        code: &'a str,
        open: &'a [Named<'a>],
    },
    AlreadyAcknowledged {
        alert: Named<'a>,
        by: Option<&'a str>,
        by_self: bool,
        at: Timestamp,
    },
    NotCritical(Named<'a>),
    NothingOpen,
}

impl AutoReply<'_> {
    fn template(&self) -> &'static str {
        match self {
            Self::Help => "help.txt",
            Self::OpenAlerts(_) => "open_alerts.txt",
            Self::WrongCode { .. } => "wrong_code.txt",
            Self::AlreadyAcknowledged { .. } => "already_acknowledged.txt",
            Self::NotCritical(_) => "not_critical.txt",
            Self::NothingOpen => "nothing_open.txt",
        }
    }

    fn alerts(&self) -> &[Named<'_>] {
        match self {
            Self::OpenAlerts(alerts) => alerts,
            Self::WrongCode { open, .. } => open,
            Self::Help | Self::AlreadyAcknowledged { .. } | Self::NotCritical(_) | Self::NothingOpen => &[],
        }
    }
}

/// Makes the texts: by the admin's own template where there is one, by the built-in one when that fails.
pub struct AutoReplies {
    environment: Environment<'static>,
    rules: Rules,
    time_zone: TimeZone,
}

impl AutoReplies {
    pub fn built_in(rules: Rules, time_zone: TimeZone) -> Self {
        let mut environment = Environment::new();
        for (name, source) in BUILT_IN {
            // Compiled in and rendered by a test, so they cannot fail to parse here.
            let _ = environment.add_template(name, source);
        }
        Self {
            environment,
            rules,
            time_zone,
        }
    }

    /// The names of the files that may stand in for the built-in templates.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Puts `source` before the built-in template of this name. Fails with the template's own error if it does not parse.
    pub fn set_own(&mut self, name: &str, source: String) -> Result<(), minijinja::Error> {
        self.environment.add_template_owned(own(name), source)
    }

    /// The text at this time, with as many alerts as fit into the segments allowed. An own template that fails is told to
    /// `warn`, and the built-in one is used.
    pub fn write(&self, reply: &AutoReply<'_>, now: Timestamp, mut warn: impl FnMut(&minijinja::Error)) -> Message {
        let name = reply.template();
        let own = own(name);
        let text = match self.environment.get_template(&own) {
            Ok(_) => self.fit(&own, reply, now).inspect_err(&mut warn).ok(),
            Err(_) => None,
        };
        let text = text
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| self.fit(name, reply, now).unwrap_or_default());
        Message {
            size: sms::measure(&text),
            text,
        }
    }

    fn fit(&self, template: &str, reply: &AutoReply<'_>, now: Timestamp) -> Result<String, minijinja::Error> {
        let mut shown = reply.alerts().len();
        loop {
            let text = self.render(template, reply, shown, now)?;
            if sms::measure(&text).segments <= self.rules.max_segments || shown <= 1 {
                return Ok(text);
            }
            shown -= 1;
        }
    }

    fn render(
        &self,
        template: &str,
        reply: &AutoReply<'_>,
        shown: usize,
        now: Timestamp,
    ) -> Result<String, minijinja::Error> {
        let alerts = reply.alerts();
        let list: Vec<Value> = alerts.iter().take(shown).map(words_of).collect();
        let more = alerts.len().saturating_sub(shown);
        let context = match reply {
            AutoReply::Help | AutoReply::NothingOpen => context! {},
            AutoReply::OpenAlerts(_) => context! { alerts => list, more },
            AutoReply::WrongCode { code, .. } => context! { code => *code, alerts => list, more },
            AutoReply::NotCritical(alert) => words_of(alert),
            AutoReply::AlreadyAcknowledged { alert, by, by_self, at } => context! {
                by => by.map(|by| truncate(by, MAX_NAME)),
                by_self,
                time => self.time(*at, now),
                ..words_of(alert)
            },
        };
        let text = self.environment.get_template(template)?.render(context)?;
        // A line without a value is blank here, and goes.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join("\n");
        Ok(match self.rules.alphabet {
            Alphabet::Auto => text,
            Alphabet::Gsm => sms::to_gsm(&text),
        })
    }

    /// The local time; with the day where that is another one.
    fn time(&self, at: Timestamp, now: Timestamp) -> String {
        let (at, now) = (
            at.to_zoned(self.time_zone.clone()),
            now.to_zoned(self.time_zone.clone()),
        );
        let form = if at.date() == now.date() {
            "%H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        at.strftime(form).to_string()
    }
}

/// The name of the admin's own template.
fn own(name: &str) -> String {
    format!("own/{name}")
}

fn words_of(alert: &Named<'_>) -> Value {
    context! {
        number => truncate(alert.number, MAX_NUMBER),
        subject => truncate(alert.subject.unwrap_or_default(), MAX_SUBJECT).trim_end(),
        code => alert.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(number: &'a str, subject: &'a str, code: &'a str) -> Named<'a> {
        Named {
            number,
            subject: Some(subject),
            code: Some(code),
        }
    }

    fn replies(max_segments: usize) -> AutoReplies {
        let rules = Rules {
            max_segments,
            alphabet: Alphabet::Auto,
        };
        AutoReplies::built_in(rules, TimeZone::get("Europe/Berlin").unwrap())
    }

    fn text(replies: &AutoReplies, reply: AutoReply<'_>) -> String {
        let now = "2026-11-22T13:00:00Z".parse().unwrap();
        replies.write(&reply, now, |error| panic!("{error:#}")).text
    }

    #[test]
    fn every_answer_has_its_text() {
        let (replies, alert) = (replies(4), named("108749", "Checkout", "K7P"));
        let two = [alert, named("7", "Printer on fire", "M3X")];
        let already = |by, by_self, at: &str| {
            let at = at.parse().unwrap();
            text(&replies, AutoReply::AlreadyAcknowledged { alert, by, by_self, at })
        };

        assert!(text(&replies, AutoReply::Help).contains("STOP"));
        assert_eq!(
            text(&replies, AutoReply::OpenAlerts(&two)),
            "Several tickets are critical. Reply OK and the code of the one you mean:\nK7P: #108749 Checkout\nM3X: #7 Printer on fire"
        );
        assert_eq!(
            text(&replies, AutoReply::WrongCode { code: "AAA", open: &[] }),
            "No open ticket that you were told of has the code AAA."
        );
        assert!(
            text(
                &replies,
                AutoReply::WrongCode {
                    code: "AAA",
                    open: &two
                }
            )
            .ends_with("M3X: #7 Printer on fire")
        );
        assert_eq!(
            already(Some("Mona Meyer"), false, "2026-11-22T12:05:00Z"),
            "Ticket #108749 was acknowledged before by Mona Meyer, at 13:05."
        );
        assert_eq!(
            already(Some("Mona Meyer"), true, "2026-11-21T23:30:00Z"),
            "Ticket #108749 was acknowledged before by you, at 00:30."
        );
        assert_eq!(
            already(None, false, "2026-11-20T12:05:00Z"),
            "Ticket #108749 was acknowledged before, at 2026-11-20 13:05."
        );
        assert!(text(&replies, AutoReply::NotCritical(alert)).starts_with("Ticket #108749 is no longer critical"));
        assert!(text(&replies, AutoReply::NothingOpen).contains("nothing is left to acknowledge"));
    }

    #[test]
    fn as_many_alerts_are_listed_as_fit() {
        let many = vec![named("108749", "A subject of some length that is cut", "K7P"); 40];

        let text = text(&replies(2), AutoReply::OpenAlerts(&many));

        assert!(sms::measure(&text).segments <= 2, "{text}");
        let listed = text.matches("K7P").count();
        assert!(
            listed >= 3 && text.ends_with(&format!("and {} more", 40 - listed)),
            "{text}"
        );
    }

    #[test]
    fn an_own_template_stands_in_and_one_that_fails_does_not() {
        let mut replies = replies(4);
        replies.set_own("help.txt", "Hilfe: 030 1234567\n".into()).unwrap();
        replies.set_own("nothing_open.txt", "{{ 1 / 0 }}".into()).unwrap();
        assert!(replies.set_own("not_critical.txt", "{% if %}".into()).is_err());

        assert_eq!(text(&replies, AutoReply::Help), "Hilfe: 030 1234567");
        let mut warned = 0;
        let made = replies.write(&AutoReply::NothingOpen, Timestamp::UNIX_EPOCH, |_| warned += 1);
        assert!(made.text.contains("nothing is left") && warned == 1, "{made:?}");
    }
}
