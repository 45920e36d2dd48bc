//! A mail before anybody sends it, who it goes to, and the server that takes it. Absent: SMTP (see `mail`).

use super::words::words;
use jiff::SignedDuration;
use lettre::message::{Mailbox, Mailboxes};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use std::net::IpAddr;
use url::Url;

words! {
    /// What a mail is for.
    MailKind { Report = "report", Alarms = "alarms", Notice = "notice", Test = "test" }
}

words! {
    /// Where a report's mail stands.
    #[derive(utoipa::ToSchema)]
    MailState {
        /// It is not to be mailed.
        Kept = "kept",
        /// It waits for the mail server.
        Mailing = "mailing",
        Sent = "sent",
    }
}

/// A mail's content: the same in plain text and in HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub kind: MailKind,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub attachment: Option<Attachment>,
    /// Who it goes to; `None`: to whom all mails go.
    pub to: Option<Mailboxes>,
}

/// A file that goes with a mail; text/csv in UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    pub content: String,
}

/// The addresses on a mail.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub from: Mailbox,
    pub to: Mailboxes,
    pub reply_to: Mailboxes,
}

/// How the connection to the mail server is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// By STARTTLS where the server offers it.
    Opportunistic,
    /// By STARTTLS, or not at all used.
    StartTls,
    /// By TLS from the first byte.
    Tls,
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub credentials: Option<(String, SecretString)>,
}

impl SmtpServer {
    /// Reads `smtp://[user:password@]host[:port][?tls=none|opportunistic|required]` or `smtps://…` (TLS from the first
    /// byte). Without `tls`, `smtp` is plain to this machine itself, and elsewhere STARTTLS: required with a password,
    /// else where it is offered. `None` if it is no such address.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let decode = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let credentials = match url.password() {
            Some(password) => Some((decode(url.username())?, SecretString::from(decode(password)?))),
            None if url.username().is_empty() => None,
            None => return None,
        };
        let mut tls = None;
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "tls" if tls.is_none() => tls = Some(value.into_owned()),
                _ => return None,
            }
        }
        let security = match (url.scheme(), tls.as_deref()) {
            ("smtps", None | Some("required")) => Security::Tls,
            ("smtp", Some("required")) => Security::StartTls,
            ("smtp", Some("opportunistic")) => Security::Opportunistic,
            ("smtp", Some("none")) => Security::Plain,
            ("smtp", None) if is_this_machine(host) => Security::Plain,
            ("smtp", None) if credentials.is_some() => Security::StartTls,
            ("smtp", None) => Security::Opportunistic,
            _ => return None,
        };
        // Ports: 465 for submission over TLS, 587 for submission with a password, 25 to a relay (RFC 8314, RFC 6409).
        let port = url.port().unwrap_or(match (security, credentials.is_some()) {
            (Security::Tls, _) => 465,
            (Security::StartTls, _) | (_, true) => 587,
            (Security::Plain | Security::Opportunistic, false) => 25,
        });
        Some(Self {
            host: host.to_owned(),
            port,
            security,
            credentials,
        })
    }

    /// Whether a password would travel readable by everybody on the way.
    pub fn exposes_password(&self) -> bool {
        self.credentials.is_some()
            && !is_this_machine(&self.host)
            && matches!(self.security, Security::Plain | Security::Opportunistic)
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How long a mail waits after its try number `tries` (from 1) failed: from 5 seconds, doubling, to half an hour. For
/// ever, because a report that is late is better than none.
pub fn retry_after(tries: i64) -> SignedDuration {
    let doublings = u32::try_from((tries - 1).clamp(0, 20)).unwrap_or(20);
    SignedDuration::from_secs(5 * 2_i64.pow(doublings)).min(SignedDuration::from_mins(30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn the_address_says_host_port_security_and_password() {
        for (text, host, port, security, password) in [
            ("smtp://localhost", "localhost", 25, Security::Plain, false),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Security::Plain, false),
            ("smtp://[::1]:2525", "::1", 2525, Security::Plain, false),
            ("smtp://mail.net", "mail.net", 25, Security::Opportunistic, false),
            ("smtp://me:pw@mail.net", "mail.net", 587, Security::StartTls, true),
            (
                "smtp://me:pw@mail.net:25?tls=none",
                "mail.net",
                25,
                Security::Plain,
                true,
            ),
            (
                "smtp://localhost?tls=required",
                "localhost",
                587,
                Security::StartTls,
                false,
            ),
            ("smtps://me:pw@mail.net", "mail.net", 465, Security::Tls, true),
        ] {
            let server = SmtpServer::parse(text).unwrap();
            let read = (
                server.host.as_str(),
                server.port,
                server.security,
                server.credentials.is_some(),
            );
            assert_eq!(read, (host, port, security, password), "{text}");
        }
    }

    #[test]
    fn a_mail_is_tried_again_soon_and_then_every_half_hour() {
        let waits: Vec<i64> = [1, 2, 3, 9, 10, 1_000]
            .into_iter()
            .map(|tries| retry_after(tries).as_secs())
            .collect();

        assert_eq!(waits, [5, 10, 20, 1_280, 1_800, 1_800]);
    }

    #[test]
    fn user_and_password_may_hold_any_character() {
        let server = SmtpServer::parse("smtp://me%40example.com:p%3Aw%2F%C3%A4@mail.example.com").unwrap();
        let (user, password) = server.credentials.unwrap();

        assert_eq!((user.as_str(), password.expose_secret()), ("me@example.com", "p:w/ä"));
    }

    #[test]
    fn what_is_no_mail_server_is_refused() {
        for bad in [
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://me@mail.example.com",
            "smtp://mail.example.com?tls=maybe",
            "smtps://mail.example.com?tls=none",
            "smtp://mail.example.com?ssl=on",
        ] {
            assert!(SmtpServer::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_exposed_only_where_nothing_secures_it() {
        let exposed = |text: &str| SmtpServer::parse(text).unwrap().exposes_password();

        assert!(exposed("smtp://me:pw@mail.example.com?tls=none"));
        assert!(exposed("smtp://me:pw@mail.example.com?tls=opportunistic"));
        assert!(!exposed("smtp://me:pw@mail.example.com") && !exposed("smtp://me:pw@localhost"));
    }
}
