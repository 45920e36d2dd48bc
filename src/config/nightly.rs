//! The settings of the nightly jobs and of mails: when the jobs are due, where mails go, and how long things are kept.

use super::reader::Reader;
use crate::domain::{
    mail::{Addresses, Security, SmtpServer},
    nightly::NightlyTime,
};
use lettre::message::{Mailbox, Mailboxes};
use secrecy::ExposeSecret;

/// What the nightly jobs and the mails go by.
pub struct Nightly {
    pub time: NightlyTime,
    /// `None` where mails have no server or nobody to go to: then they are kept and logged.
    pub mail: Option<MailSettings>,
    /// Whether a day without failures is reported too.
    pub always: bool,
    pub receipt_days: i64,
    pub personal_days: i64,
    /// How long lifecycle events are kept.
    pub event_days: i64,
}

/// Where mails go, and through which server.
#[derive(Clone)]
pub struct MailSettings {
    pub server: SmtpServer,
    pub addresses: Addresses,
}

impl Nightly {
    pub fn read(reader: &mut Reader) -> Self {
        let to = read_addresses(reader, "report.to");
        let from = read_addresses(reader, "report.from");
        let reply_to = read_addresses(reader, "report.reply_to");
        let server = reader.secret("report.smtp_url").and_then(|text| {
            let server = SmtpServer::parse(text.expose_secret());
            if server.is_none() {
                reader.fault_secret(
                    "report.smtp_url",
                    "is not a mail server: write `smtp://USER:PASSWORD@HOST:587` (STARTTLS), `smtps://USER:PASSWORD@HOST` (TLS) or `smtp://localhost`; percent-encode special characters of the password; `?tls=none`, `opportunistic` or `required` may follow `smtp://…`",
                );
            }
            server
        });
        if server.as_ref().is_some_and(SmtpServer::exposes_password) {
            reader
                .warn("`report.smtp_url` sends its password readable by everybody on the way: remove `?tls=…` from it");
        }
        let is_tls_port = |server: &SmtpServer| server.port == 465 && server.security != Security::Tls;
        if server.as_ref().is_some_and(is_tls_port) {
            reader.warn(
                "`report.smtp_url` names port 465, where servers speak TLS from the first byte: write `smtps://…`",
            );
        }
        if from.iter().flat_map(Mailboxes::iter).count() > 1 {
            reader.fault("report.from", "is more than one address: name one");
        }
        Self {
            mail: mail_settings(reader, server, to, from, reply_to),
            always: reader.choice("report.when", "failures", &[("failures", false), ("always", true)]),
            time: reader.checked("nightly.schedule", "0 0 0 * * *", NightlyTime::parse),
            receipt_days: reader.number("retention.receipt_days", 30, 1, 36_500),
            personal_days: reader.number("retention.personal_days", 365, 1, 36_500),
            event_days: reader.number("retention.event_days", 30, 1, 36_500),
        }
    }
}

fn mail_settings(
    reader: &mut Reader,
    server: Option<SmtpServer>,
    to: Option<Mailboxes>,
    from: Option<Mailboxes>,
    reply_to: Option<Mailboxes>,
) -> Option<MailSettings> {
    let (server, to) = match (server, to) {
        (Some(server), Some(to)) => (server, to),
        (Some(_), None) if !reader.has_fault("report.to") => {
            reader.warn("`report.to` is not set, so reports and alarms are mailed to nobody: they are kept and logged");
            return None;
        }
        (None, Some(_)) if !reader.has_fault("report.smtp_url") && !reader.has_fault("report.smtp_url_file") => {
            reader.warn("`report.smtp_url` is not set, so no mail is sent: reports and alarms are kept and logged");
            return None;
        }
        _ => return None,
    };
    let from = match from {
        Some(from) => from.into_single()?,
        None => {
            // Most servers take a sender of the domain that they serve.
            let domain = to.iter().next()?.email.domain();
            let address = format!("nightbell@{domain}").parse().ok()?;
            Mailbox::new(Some("Nightbell".into()), address)
        }
    };
    // An answer reaches the colleagues who got the same mail, rather than a box that nobody reads.
    let reply_to = reply_to.unwrap_or_else(|| to.clone());
    Some(MailSettings {
        server,
        addresses: Addresses { from, to, reply_to },
    })
}

/// Mail addresses: a list, or a text as it would stand in a mail's header.
fn read_addresses(reader: &mut Reader, key: &str) -> Option<Mailboxes> {
    let text = reader.joined(key)?;
    let read = text.parse::<Mailboxes>().ok();
    let parsed = read.filter(|list| list.iter().next().is_some());
    if parsed.is_none() {
        reader.fault(
            key,
            "is not a mail address: write it like `duty@example.com` or `Duty <duty@example.com>`, several with commas between",
        );
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and how many faults and warnings there are.
    fn with(environment: &[(&str, &str)]) -> (Nightly, usize, usize) {
        let mut reader = Reader::with(environment);
        let nightly = Nightly::read(&mut reader);
        let (faults, warnings, _) = reader.finish();
        (nightly, faults.len(), warnings.len())
    }

    #[test]
    fn a_server_and_an_address_are_enough_to_send_mail() {
        let server = ("REPORT__SMTP_URL", "smtp://localhost:2525");
        let comma = ("REPORT__TO", "Duty, Night <duty@example.com>, boss@example.com");
        let quoted = ("REPORT__TO", "\"Duty, Night\" <duty@example.com>, boss@example.com");
        assert_eq!(with(&[comma, server]).1, 1, "a comma in a name needs quotes");

        let (nightly, faults, warnings) = with(&[quoted, server]);
        let addresses = nightly.mail.unwrap().addresses;

        assert_eq!((faults, warnings), (0, 0));
        assert_eq!(addresses.from.to_string(), "Nightbell <nightbell@example.com>");
        assert_eq!(addresses.to.iter().count(), 2);
        assert_eq!(addresses.reply_to.to_string(), addresses.to.to_string());
    }

    #[test]
    fn half_of_it_is_a_warning_and_nonsense_a_fault() {
        for (name, value, faults, warnings) in [
            ("REPORT__TO", "a@example.com", 0, 1),
            ("REPORT__SMTP_URL", "smtp://localhost", 0, 1),
            ("REPORT__TO", "nobody", 1, 0),
            ("REPORT__FROM", "a@example.com, b@example.com", 1, 0),
            ("REPORT__SMTP_URL", "mail.example.com", 1, 0),
            ("REPORT__WHEN", "sometimes", 1, 0),
            ("NIGHTLY__SCHEDULE", "0 0 * * *", 1, 0),
            ("RETENTION__PERSONAL_DAYS", "0", 1, 0),
        ] {
            let outcome = with(&[(name, value)]);
            assert_eq!((outcome.1, outcome.2), (faults, warnings), "{name}={value}");
        }
    }
}
