//! Makes the text of an SMS: renders the template and shortens it until it fits. Absent: reading template files
//! (`app` does that) and who gets the text.

use super::{
    acknowledge,
    event::{Event, Recipient},
    sms::{self, Size},
    text::{clean_text, truncate},
};
use minijinja::{Environment, Value};
use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation;

/// The template that ships inside the program.
pub const BUILT_IN: &str = include_str!("../../templates/sms/critical.txt");
/// The name of the admin's own template.
const OWN: &str = "critical.txt";
/// Twilio refuses a longer body (error 21617).
const MAX_CHARACTERS: usize = 1_600;
/// Shorter than this, a subject says nothing: then the optional lines go instead.
const MIN_SUBJECT: usize = 20;
const MAX_NUMBER: usize = 40;
const MAX_CLIENT: usize = 60;
const MAX_NAME: usize = 60;

/// How a text may be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Any character; the cheapest encoding that holds the text.
    Auto,
    /// Only what GSM-7 has: others are transliterated, emoji dropped.
    Gsm,
}

/// Limits on a text.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub max_segments: usize,
    pub alphabet: Alphabet,
}

/// A text ready to be sent, and what it costs.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    pub text: String,
    #[serde(flatten)]
    pub size: Size,
}

/// What the template may say. Every field is optional but the number, so that fitting can take fields away.
#[derive(Clone, Copy)]
struct Fields<'a> {
    number: &'a str,
    subject: &'a str,
    client: Option<&'a str>,
    urgency: Option<&'a str>,
    confidence: Option<i64>,
    estimated_hours: Option<f64>,
    url: Option<&'a str>,
    recipient_name: Option<&'a str>,
    recipient_role: Option<&'a str>,
    /// Goes after the optional lines, and before the link to the ticket.
    ack_code: Option<&'static str>,
    ack_link: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn of(event: &'a Event, to: Option<&'a Recipient>) -> Self {
        let (ticket, client) = (&event.ticket, &event.client);
        let capped = |text: &'a Option<String>, max| text.as_deref().map(|text| truncate(text, max));
        Self {
            number: truncate(ticket.number.as_deref().unwrap_or(&ticket.id), MAX_NUMBER),
            subject: &ticket.subject,
            client: capped(&client.organisation, MAX_CLIENT).or(capped(&client.name, MAX_CLIENT)),
            urgency: Some("CRITICAL"),
            // Rounded, because "95.37 %" is a false precision in a text at night; the range is checked as the event is read.
            confidence: ticket.confidence_percent.map(|percent| percent.round() as i64),
            estimated_hours: ticket.estimated_hours.map(|hours| (hours * 100.0).round() / 100.0),
            url: ticket.url.as_deref(),
            recipient_name: to.and_then(|to| capped(&to.name, MAX_NAME)),
            recipient_role: to.and_then(|to| capped(&to.role, MAX_NAME)),
            ack_code: None,
            ack_link: None,
        }
    }

    /// All that others have put into it.
    fn words(&self) -> String {
        let words = [
            self.client,
            self.url,
            self.recipient_name,
            self.recipient_role,
            self.ack_link,
        ];
        let words = [self.number, self.subject]
            .into_iter()
            .chain(words.into_iter().flatten());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Without the members that have no value, which a template could not tell from a text.
    fn context(&self) -> Value {
        // As a text: `4`, where a template would write the number `4.0`.
        let estimated_hours = self.estimated_hours.map(|hours| hours.to_string());
        let members = [
            ("number", Some(Value::from(self.number))),
            ("subject", Some(Value::from(self.subject))),
            ("client", self.client.map(Value::from)),
            ("urgency", self.urgency.map(Value::from)),
            ("confidence", self.confidence.map(Value::from)),
            ("estimated_hours", estimated_hours.map(Value::from)),
            ("url", self.url.map(Value::from)),
            ("recipient_name", self.recipient_name.map(Value::from)),
            ("recipient_role", self.recipient_role.map(Value::from)),
            ("ack_code", self.ack_code.map(Value::from)),
            ("ack_link", self.ack_link.map(Value::from)),
        ];
        Value::from_pairs(members.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

/// The name of a helpdesk's own template.
fn own_of(source: &str) -> String {
    format!("{OWN}/{source}")
}

/// Makes the texts of messages: by the admin's own template where there is one, by the built-in one when that fails.
pub struct Templates {
    environment: Environment<'static>,
    rules: Rules,
}

impl Templates {
    /// Compiles the built-in template.
    pub fn built_in(rules: Rules) -> Self {
        let mut environment = Environment::new();
        // The built-in template is compiled in and rendered by a test, so it cannot fail to parse here.
        let _ = environment.add_template("built-in", BUILT_IN);
        Self { environment, rules }
    }

    /// Puts `source` before the built-in template. Fails with the template's own error and line if it does not parse;
    /// then the built-in one stays in force.
    pub fn set_own(&mut self, source: String) -> Result<(), minijinja::Error> {
        self.environment.add_template_owned(OWN, source)
    }

    /// The same for the tickets of one helpdesk.
    pub fn set_own_of(&mut self, source: &str, text: String) -> Result<(), minijinja::Error> {
        self.environment.add_template_owned(own_of(source), text)
    }

    /// Makes the text for one person, or for nobody in particular: by the template of the ticket's helpdesk, else by the
    /// admin's own. If one fails, `warn` is told why and the next is used, at last the built-in one.
    pub fn compose(&self, event: &Event, to: Option<&Recipient>, warn: impl FnMut(&minijinja::Error)) -> Message {
        self.make(event, &Fields::of(event, to), warn)
    }

    /// The same with ways to acknowledge the alert: a link, and a code at random for which `random` gives numbers. Returns the
    /// code if the text has it. It occurs nowhere else in it, so that another one may be put in its place.
    pub fn compose_answerable(
        &self,
        event: &Event,
        to: Option<&Recipient>,
        ack_link: Option<&str>,
        random: Option<impl FnMut() -> u32>,
        warn: impl FnMut(&minijinja::Error),
    ) -> (Message, Option<&'static str>) {
        let mut fields = Fields {
            ack_link,
            ..Fields::of(event, to)
        };
        fields.ack_code = random.map(|random| acknowledge::code_apart_from(&self.carried(fields.words()), random));
        let message = self.make(event, &fields, warn);
        let code = fields.ack_code.filter(|code| message.text.contains(code));
        (message, code)
    }

    fn make(&self, event: &Event, fields: &Fields<'_>, mut warn: impl FnMut(&minijinja::Error)) -> Message {
        let of_source = own_of(&event.source);
        let there = [of_source.as_str(), OWN]
            .into_iter()
            .filter(|name| self.environment.get_template(name).is_ok());
        let mut made = there.filter_map(|name| self.fit(name, fields).inspect_err(&mut warn).ok());
        let text = made
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| self.fit("built-in", fields).unwrap_or_default());
        let size = sms::measure(&text);
        Message { text, size }
    }

    /// A text that somebody wrote themselves, as it can be carried; or how much too long it is for one message, in characters.
    pub fn write(&self, text: &str) -> Result<Message, usize> {
        let text = self.carried(clean_text(text));
        match text.encode_utf16().count().checked_sub(MAX_CHARACTERS + 1) {
            Some(beyond) => Err(beyond + 1),
            None => Ok(Message {
                size: sms::measure(&text),
                text,
            }),
        }
    }

    fn carried(&self, text: String) -> String {
        match self.rules.alphabet {
            Alphabet::Auto => text,
            Alphabet::Gsm => sms::to_gsm(&text),
        }
    }

    /// Renders, then takes away in order: the end of the subject, the optional lines, how to acknowledge, and last the link to
    /// the ticket.
    fn fit(&self, template: &str, fields: &Fields<'_>) -> Result<String, minijinja::Error> {
        let full = self.render(template, fields)?;
        if fits(&full, self.rules.max_segments) {
            return Ok(full);
        }
        let mut fields = *fields;
        let optional_lines: [fn(&mut Fields<'_>); 4] = [
            |_| {},
            |fields| fields.estimated_hours = None,
            |fields| fields.client = None,
            |fields| (fields.urgency, fields.confidence) = (None, None),
        ];
        for take_away in optional_lines {
            take_away(&mut fields);
            if let Some(text) = self.shorten_subject(template, &fields)? {
                return Ok(text);
            }
        }
        // The number, the links and the code alone are more than the segments allowed: better too long than useless.
        let subject = cut_subject(fields.subject, MIN_SUBJECT);
        fields.subject = &subject;
        let text = self.render(template, &fields)?;
        if fits(&text, usize::MAX) {
            return Ok(text);
        }
        (fields.ack_code, fields.ack_link) = (None, None);
        let text = self.render(template, &fields)?;
        if fits(&text, usize::MAX) {
            return Ok(text);
        }
        fields.url = None;
        let text = self.render(template, &fields)?;
        let mut text = text.as_str();
        while text.encode_utf16().count() > MAX_CHARACTERS {
            text = truncate(text, (text.chars().count() - 1).min(MAX_CHARACTERS));
        }
        Ok(text.to_owned())
    }

    /// The text with the longest subject that fits, or `None` if even a short one does not.
    fn shorten_subject(&self, template: &str, fields: &Fields<'_>) -> Result<Option<String>, minijinja::Error> {
        let with_subject = |kept: usize| {
            let subject = &cut_subject(fields.subject, kept);
            self.render(template, &Fields { subject, ..*fields })
        };
        let max_segments = self.rules.max_segments;
        let mut best = with_subject(MIN_SUBJECT)?;
        if !fits(&best, max_segments) {
            return Ok(None);
        }
        let (mut low, mut high) = (MIN_SUBJECT, fields.subject.graphemes(true).count());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let text = with_subject(middle)?;
            if fits(&text, max_segments) {
                (best, low) = (text, middle);
            } else {
                high = middle - 1;
            }
        }
        Ok(Some(best))
    }

    fn render(&self, template: &str, fields: &Fields<'_>) -> Result<String, minijinja::Error> {
        let rendered = self.carried(self.environment.get_template(template)?.render(fields.context())?);
        // A line whose value is missing is blank here, and goes.
        let lines = rendered.lines().map(str::trim_end);
        Ok(lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n"))
    }
}

/// The subject itself if it has at most `kept` graphemes, else its beginning and `…`, together as many.
fn cut_subject(subject: &str, kept: usize) -> String {
    if subject.graphemes(true).nth(kept).is_none() {
        return subject.to_owned();
    }
    let beginning: String = subject.graphemes(true).take(kept.saturating_sub(1)).collect();
    format!("{}…", beginning.trim_end())
}

fn fits(text: &str, max_segments: usize) -> bool {
    sms::measure(text).segments <= max_segments && text.encode_utf16().count() <= MAX_CHARACTERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{event, json};
    use jiff::Timestamp;
    use serde_json::json;

    const AUTO: Rules = segments(4);

    const fn segments(max_segments: usize) -> Rules {
        Rules {
            max_segments,
            alphabet: Alphabet::Auto,
        }
    }

    fn event(ticket: serde_json::Value, client: serde_json::Value) -> Event {
        let body = json!({"ticket": ticket, "client": client}).to_string();
        event::parse(&json::parse(body.as_bytes()).unwrap(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn example() -> Event {
        event(
            json!({"id": "3", "number": "108749", "subject": "Checkout page 500 error", "urgency": "critical", "estimated_hours": 4.5,
                   "url": "https://tickets.example.com/scp/tickets.php?number=108749", "ai": {"confidence_percent": 95}}),
            json!({"name": "Bo Client", "organisation": "Acme Corp"}),
        )
    }

    fn text(event: &Event, rules: Rules) -> String {
        let templates = Templates::built_in(rules);
        templates.compose(event, None, |error| panic!("{error:#}")).text
    }

    #[test]
    fn the_default_text_is_the_one_of_the_contract() {
        assert_eq!(
            text(&example(), AUTO),
            "🚨 CRITICAL TICKET #108749\nSubject: Checkout page 500 error\nClient: Acme Corp\nUrgency: CRITICAL (95%)\n\
             Est. Hours: 4.5\nView: https://tickets.example.com/scp/tickets.php?number=108749"
        );
    }

    #[test]
    fn a_line_without_its_value_disappears() {
        let bare = event(json!({"id": 7, "subject": "Fire", "urgency": "critical"}), json!(null));

        let expected = "🚨 CRITICAL TICKET #7\nSubject: Fire\nUrgency: CRITICAL";
        assert_eq!(text(&bare, AUTO), expected);
    }

    #[test]
    fn a_long_subject_is_shortened_and_the_other_lines_stay() {
        let mut long = example();
        long.ticket.subject = "ab ".repeat(3_000);
        let text = text(&long, AUTO);

        assert_eq!(sms::measure(&text).segments, 4);
        assert!(
            text.contains("…\nClient: Acme Corp\n") && text.ends_with("number=108749"),
            "{text}"
        );
    }

    #[test]
    fn optional_lines_go_before_the_link_does() {
        let text = text(&example(), segments(2));

        assert_eq!(sms::measure(&text).segments, 2);
        assert!(
            text.starts_with("🚨 CRITICAL TICKET #108749\nSubject: Checkout page 500 e"),
            "{text}"
        );
        assert!(
            !text.contains("Est. Hours") && text.ends_with("number=108749"),
            "{text}"
        );
    }

    #[test]
    fn number_and_link_stay_even_if_that_takes_more_segments() {
        let mut long = example();
        long.ticket.url = Some(format!("https://tickets.example.com/{}", "x".repeat(500)));
        let text = text(&long, segments(1));

        assert!(
            text.contains("#108749") && text.contains("xxx") && !text.contains("Client"),
            "{text}"
        );
    }

    #[test]
    fn the_link_goes_last_when_1600_characters_are_not_enough() {
        let mut long = example();
        long.ticket.url = Some(format!("https://tickets.example.com/{}", "x".repeat(1_900)));
        let text = text(&long, AUTO);

        assert!(text.contains("#108749") && !text.contains("View:"), "{text}");
        assert!(text.encode_utf16().count() <= MAX_CHARACTERS);
    }

    fn answerable(event: &Event, rules: Rules) -> (String, Option<&'static str>) {
        let templates = Templates::built_in(rules);
        let link = "https://bell.example/a/TOKEN";
        let (message, code) =
            templates.compose_answerable(event, None, Some(link), Some(|| 0), |error| panic!("{error:#}"));
        (message.text, code)
    }

    #[test]
    fn ways_to_acknowledge_are_the_last_lines_and_are_kept_when_the_subject_is_shortened() {
        let mut long = example();
        long.ticket.subject = "ab ".repeat(3_000);
        for (event, segments_) in [(example(), 4), (long.clone(), 4), (long, 3)] {
            let (text, code) = answerable(&event, segments(segments_));

            let end = format!(
                "number=108749\nAck: https://bell.example/a/TOKEN\nReply ACK {}",
                code.unwrap()
            );
            assert!(text.ends_with(&end), "{text}");
            assert_eq!(text.matches(code.unwrap()).count(), 1);
            assert!(sms::measure(&text).segments <= segments_, "{text}");
        }
        let mut far = example();
        far.ticket.url = Some(format!("https://tickets.example.com/{}", "x".repeat(1_480)));
        let (text, code) = answerable(&far, AUTO);
        assert_eq!(code, None, "{text}");
        assert!(
            text.ends_with("xxx") && !text.contains("Ack:"),
            "they go before the link: {text}"
        );
    }

    #[test]
    fn the_code_in_a_text_occurs_in_nothing_else() {
        let mut event = example();
        let mut numbers = 0..;
        let first = acknowledge::code_of(0);
        event.ticket.subject = format!("Room {first}");
        let templates = Templates::built_in(AUTO);
        let next = || numbers.next().unwrap();
        let (message, code) = templates.compose_answerable(&event, None, None, Some(next), |_| ());

        assert_eq!(code, Some(acknowledge::code_of(1)));
        assert_eq!(message.text.matches(code.unwrap()).count(), 1);
        let mut own = Templates::built_in(AUTO);
        own.set_own("{{ number }} only".into()).unwrap();
        let (_, unused) = own.compose_answerable(&event, None, None, Some(|| 0), |_| ());
        assert_eq!(unused, None, "a template without it needs none");
    }

    #[test]
    fn gsm_costs_fewer_segments() {
        let alphabet = Alphabet::Gsm;
        let gsm = text(&example(), Rules { alphabet, ..AUTO });

        assert!(gsm.starts_with("CRITICAL TICKET #108749\n"), "{gsm}");
        assert!(sms::measure(&gsm).segments < sms::measure(&text(&example(), AUTO)).segments);
    }

    #[test]
    fn an_own_template_that_fails_falls_back_with_a_warning() {
        let mut templates = Templates::built_in(AUTO);
        templates.set_own("{{ number.nope.nope }}".into()).unwrap();
        let mut warned = false;
        let message = templates.compose(&example(), None, |_| warned = true);

        assert!(warned && message.text.contains("CRITICAL TICKET #108749"));
        assert!(templates.set_own("{% if %}".into()).is_err());
    }

    #[test]
    fn a_helpdesk_may_have_a_template_of_its_own() {
        let mut templates = Templates::built_in(AUTO);
        let first = |templates: &Templates, source: &str| {
            let mut event = example();
            event.source = source.into();
            templates
                .compose(&event, None, |_| ())
                .text
                .lines()
                .next()
                .unwrap()
                .to_owned()
        };

        templates.set_own("all {{ number }}".into()).unwrap();
        templates.set_own_of("acme", "acme {{ number }}".into()).unwrap();
        templates.set_own_of("broken", "{{ number.nope.nope }}".into()).unwrap();

        assert_eq!(first(&templates, "acme"), "acme 108749");
        assert_eq!(first(&templates, "default"), "all 108749");
        assert_eq!(first(&templates, "broken"), "all 108749");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn no_subject_or_client_breaks_the_limits(subject in "\\PC{0,2000}", client in "\\PC{0,300}", max_segments in 1..9_usize, gsm: bool) {
            let mut odd = example();
            odd.ticket.subject = crate::domain::text::clean_line(&subject, 1_000);
            odd.client.organisation = Some(client);
            let alphabet = if gsm { Alphabet::Gsm } else { Alphabet::Auto };
            let text = text(&odd, Rules { max_segments, alphabet });

            proptest::prop_assert!(text.contains("#108749") && text.contains("number=108749"));
            proptest::prop_assert!(sms::measure(&text).segments <= max_segments.max(3), "{}", text);
        }
    }
}
