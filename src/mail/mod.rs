//! Sends mail: one SMTP session for each try, by lettre. Knows nothing of the database: callers record what it returns.
//! Absent: what the mails say (see `render`) and when they are tried again (`worker::outbox`).

mod csv;
mod render;

pub use render::Templates;

use crate::domain::{
    mail::{Addresses, Mail, Security, SmtpServer},
    text::clean_line,
};
use jiff::Timestamp;
use lettre::{
    Address, Message,
    address::Envelope,
    message::{
        Attachment, Mailboxes, MultiPart,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::ExposeSecret;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Until the server is ready to take a mail. Slower ones are as good as gone; the mail is kept.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// For one mail to everybody it is for. A server may take long for a mail it has (RFC 5321, 4.5.3.2.6, has ten minutes):
/// who hangs up too early sends it twice. Callers hold their right to send for longer.
pub const SESSION_TIME: Duration = Duration::from_secs(300);
/// For closing the connection, which changes nothing: the server has the mail.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Why a mail did not go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// In a few words that anybody may read.
    pub short: String,
    /// What the server or the connection said, addresses masked; for the log.
    pub detail: String,
}

/// What became of one try.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The addresses for which the server took the mail.
    pub accepted: Vec<String>,
    /// Those that it refused for good.
    pub refused: Vec<(String, Why)>,
    /// Why the others did not get it yet.
    pub put_off: Option<Why>,
}

/// A mail server and the addresses on our mails. The connection is made anew for each.
pub struct Mailer {
    server: SmtpServer,
    addresses: Addresses,
    name: String,
}

impl Mailer {
    pub fn new(server: &SmtpServer, addresses: Addresses) -> Self {
        Self {
            name: format!("{}:{}", server.host, server.port),
            server: server.clone(),
            addresses,
        }
    }

    /// Which server it is, for messages.
    pub fn server(&self) -> &str {
        &self.name
    }

    /// Sends a mail to everybody who is not `settled`. One address that the server does not take keeps it from nobody else.
    pub async fn send(&self, mail: &Mail, message_id: &str, written_at: Timestamp, settled: &[String]) -> Outcome {
        let to: Vec<&Address> = self
            .to(mail)
            .iter()
            .map(|mailbox| &mailbox.email)
            .filter(|address| !settled.iter().any(|settled| settled == &address.to_string()))
            .collect();
        if to.is_empty() {
            return Outcome::default();
        }
        let deadline = Instant::now() + SESSION_TIME;
        let mut outcome = Outcome::default();
        let written = match self.write(mail, message_id, written_at) {
            Ok(mail) => mail.formatted(),
            Err(why) => {
                outcome.put_off = Some(why);
                return outcome;
            }
        };
        match self.talk(&to, &written, deadline).await {
            Ok(()) => outcome.accepted = to.iter().map(ToString::to_string).collect(),
            Err(refusal) if to.len() > 1 && refusal.may_be_about_one_address => {
                for address in to {
                    outcome.note(address, self.talk(&[address], &written, deadline).await);
                }
            }
            Err(refusal) => match to.as_slice() {
                [address] => outcome.note(address, Err(refusal)),
                _ => outcome.put_off = Some(refusal.why),
            },
        }
        outcome
    }

    fn to<'a>(&'a self, mail: &'a Mail) -> &'a Mailboxes {
        mail.to.as_ref().unwrap_or(&self.addresses.to)
    }

    fn write(&self, mail: &Mail, message_id: &str, written_at: Timestamp) -> Result<Message, Why> {
        let mut message = Message::builder()
            .from(self.addresses.from.clone())
            .subject(&mail.subject)
            .date(written_at.into())
            .message_id(Some(format!("<{message_id}@{}>", self.addresses.from.email.domain())))
            // No person wrote it, so that nobody's holiday answers (RFC 3834); Exchange reads only its own header.
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"));
        for mailbox in self.to(mail).iter() {
            message = message.to(mailbox.clone());
        }
        for mailbox in self.addresses.reply_to.iter() {
            message = message.reply_to(mailbox.clone());
        }
        let body = MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone());
        let mail = match &mail.attachment {
            Some(file) => {
                let kind = ContentType::parse("text/csv; charset=utf-8").unwrap_or(ContentType::TEXT_PLAIN);
                let file = Attachment::new(file.name.clone()).body(file.content.clone(), kind);
                message.multipart(MultiPart::mixed().multipart(body).singlepart(file))
            }
            None => message.multipart(body),
        };
        mail.map_err(|error| Why {
            short: "the mail cannot be written with these addresses".into(),
            detail: error.to_string(),
        })
    }

    async fn talk(&self, to: &[&Address], mail: &[u8], deadline: Instant) -> Result<(), Refusal> {
        let too_slow = |detail| Refusal::local(&format!("{} did not answer in time", self.name), detail);
        let envelope = Envelope::new(
            Some(self.addresses.from.email.clone()),
            to.iter().map(|address| (*address).clone()).collect(),
        )
        .map_err(|error| Refusal::local("nobody is left to send it to", &error.to_string()))?;
        let connecting = timeout_at(deadline.min(Instant::now() + CONNECT_TIME), self.connect());
        let mut connection = connecting
            .await
            .map_err(|_| too_slow("it was not ready to take a mail"))?
            .map_err(|error| self.understand(&error))?;
        timeout_at(deadline, connection.send(&envelope, mail))
            .await
            .map_err(|_| too_slow("it may have the mail; a second copy has the same Message-ID"))?
            .map_err(|error| self.understand(&error))?;
        let _ = timeout(CLOSE_TIME, connection.quit()).await;
        Ok(())
    }

    /// Connects, secures the connection and signs in, as configured.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let server = &self.server;
        let hello = ClientId::default();
        let tls = || TlsParameters::new(server.host.clone());
        let from_the_start = (server.security == Security::Tls).then(tls).transpose()?;
        let address = (server.host.as_str(), server.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIME), &hello, from_the_start, None).await?;
        match server.security {
            Security::StartTls => connection.starttls(tls()?, &hello).await?,
            Security::Opportunistic if connection.can_starttls() => connection.starttls(tls()?, &hello).await?,
            Security::Opportunistic | Security::Plain | Security::Tls => {}
        }
        if let Some((user, password)) = &server.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await?;
        }
        Ok(connection)
    }

    /// Translates lettre's error into what a tired admin can act on.
    fn understand(&self, error: &Error) -> Refusal {
        let server = &self.name;
        let code = error.status().map(|code| code.to_string());
        let said = explain(error);
        let short = match code.as_deref() {
            Some(code @ ("530" | "534" | "535" | "538")) => {
                format!("{server} does not accept our user name and password ({code})")
            }
            Some(code) if code.starts_with('4') => format!("{server} put the mail off ({code})"),
            Some(code) => format!("{server} refused the mail ({code})"),
            None if said.to_lowercase().contains("certificate") => {
                format!("the certificate of {server} is not trusted: make its authority known to this machine")
            }
            None if error.is_tls() => format!("no secure connection to {server}"),
            None if error.is_timeout() => format!("{server} did not answer in time"),
            None if error.is_client() => format!("{server} does not offer what is needed: {said}"),
            None => format!("no connection to {server}, or it broke"),
        };
        Refusal {
            // 45x and 55x speak of the mailbox or the mail; others of us or the server (RFC 5321, 4.2.3).
            may_be_about_one_address: code
                .as_deref()
                .is_some_and(|code| code.starts_with("45") || code.starts_with("55")),
            is_final: error.is_permanent(),
            why: Why { short, detail: said },
        }
    }
}

impl Outcome {
    fn note(&mut self, address: &Address, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.accepted.push(address.to_string()),
            Err(refusal) if refusal.is_final && refusal.may_be_about_one_address => {
                self.refused.push((address.to_string(), refusal.why));
            }
            Err(refusal) => self.put_off = Some(refusal.why),
        }
    }
}

/// Why one talk failed, and whether that may lie with one address only.
struct Refusal {
    may_be_about_one_address: bool,
    is_final: bool,
    why: Why,
}

impl Refusal {
    fn local(short: &str, detail: &str) -> Self {
        Self {
            may_be_about_one_address: false,
            is_final: false,
            why: Why {
                short: short.to_owned(),
                detail: detail.to_owned(),
            },
        }
    }
}

/// An address as a log may hold it; any other word stays as it is.
pub fn mask_address(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((user, domain)) => format!("{}***@{domain}", user.chars().take(1).collect::<String>()),
        None => address.to_owned(),
    }
}

/// The error with its causes on one line, addresses masked.
fn explain(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    // lettre's errors say their causes too, and wrap their own kind.
    let mut parts: Vec<String> = Vec::new();
    for cause in causes {
        for part in cause.to_string().split(": ") {
            if !parts.iter().any(|known| known == part) {
                parts.push(part.to_owned());
            }
        }
    }
    let masked: Vec<String> = parts.join(": ").split_whitespace().map(mask_address).collect();
    clean_line(&masked.join(" "), 300)
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}
