//! A mail server on loopback: takes mail over plain SMTP, STARTTLS or TLS, asks for a password if told to, and fails in
//! every way that mail servers do. Reads mails with a parser of its own (mail-parser), not with the code under test.

use super::database::Folder;
use base64::{Engine, prelude::BASE64_STANDARD};
use mail_parser::{MessageParser, MimeHeaders};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// How connections are secured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Plain,
    StartTls,
    Tls,
}

/// A mail that the server took.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub user: Option<String>,
    pub over_tls: bool,
    pub raw: String,
}

impl Mail {
    fn part<T>(&self, look: impl FnOnce(&mail_parser::Message<'_>) -> T) -> T {
        look(
            &MessageParser::default()
                .parse(self.raw.as_bytes())
                .expect("a mail that can be parsed"),
        )
    }

    pub fn subject(&self) -> String {
        self.part(|mail| mail.subject().unwrap_or_default().to_owned())
    }

    pub fn text(&self) -> String {
        self.part(|mail| mail.body_text(0).unwrap_or_default().replace("\r\n", "\n"))
    }

    pub fn html(&self) -> String {
        self.part(|mail| mail.body_html(0).unwrap_or_default().into_owned())
    }

    pub fn message_id(&self) -> String {
        self.part(|mail| mail.message_id().unwrap_or_default().to_owned())
    }

    pub fn header(&self, name: &str) -> String {
        self.part(|mail| mail.header_raw(name.to_owned()).unwrap_or_default().trim().to_owned())
    }

    /// The attached file's name and text.
    pub fn attachment(&self) -> Option<(String, String)> {
        self.part(|mail| {
            let file = mail.attachment(0)?;
            Some((
                file.attachment_name()?.to_owned(),
                String::from_utf8(file.contents().to_vec()).unwrap(),
            ))
        })
    }
}

#[derive(Default)]
struct FakeState {
    mails: Vec<Mail>,
    is_closed: bool,
    /// What to answer to an address instead of yes.
    refused: BTreeMap<String, String>,
    /// What to answer after the data, instead of yes.
    data_answer: Option<String>,
    /// Notified before the yes after the data is given.
    gate: Option<Arc<Notify>>,
    password: Option<(String, String)>,
}

/// A running mail server.
pub struct Smtp {
    pub port: u16,
    pub mode: Mode,
    /// The certificate of its authority, for `SSL_CERT_FILE`.
    pub authority: std::path::PathBuf,
    state: Arc<Mutex<FakeState>>,
    _folder: Folder,
}

impl Smtp {
    pub async fn start(mode: Mode) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = Folder::new();
        let (acceptor, authority) = make_certificate();
        let path = folder.path().join("authority.pem");
        std::fs::write(&path, authority).unwrap();
        let state = Arc::new(Mutex::new(FakeState::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !shared.lock().unwrap().is_closed {
                    tokio::spawn(answer(stream, mode, acceptor.clone(), Arc::clone(&shared)));
                }
            }
        });
        Self {
            port,
            mode,
            authority: path,
            state,
            _folder: folder,
        }
    }

    /// Its address with `user:password@` before it and the security that it offers.
    pub fn url(&self, credentials: &str) -> String {
        let at = if credentials.is_empty() { "" } else { "@" };
        let (scheme, query) = match self.mode {
            Mode::Plain => ("smtp", ""),
            Mode::StartTls => ("smtp", "?tls=required"),
            Mode::Tls => ("smtps", ""),
        };
        format!("{scheme}://{credentials}{at}127.0.0.1:{}{query}", self.port)
    }

    /// Whether connections break at once.
    pub fn close(&self, closed: bool) {
        self.state.lock().unwrap().is_closed = closed;
    }

    /// Answers this to an address.
    pub fn refuse(&self, address: &str, answer: &str) {
        self.state.lock().unwrap().refused.insert(address.into(), answer.into());
    }

    /// Answers this to every mail; `None` takes them again.
    pub fn answer_data(&self, answer: Option<&str>) {
        self.state.lock().unwrap().data_answer = answer.map(str::to_owned);
    }

    /// Takes mails, but says so only when notified.
    pub fn hold_answer(&self, gate: Option<Arc<Notify>>) {
        self.state.lock().unwrap().gate = gate;
    }

    pub fn ask_for(&self, user: &str, password: &str) {
        self.state.lock().unwrap().password = Some((user.into(), password.into()));
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.lock().unwrap().mails.clone()
    }

    /// Waits until this many mails were taken.
    pub async fn received(&self, count: usize) -> Vec<Mail> {
        super::eventually(&format!("{count} mails"), async || {
            let mails = self.mails();
            if mails.len() >= count { Ok(mails) } else { Err(mails) }
        })
        .await
    }
}

/// A certificate for 127.0.0.1 and localhost, and the authority that signed it, in PEM.
fn make_certificate() -> (TlsAcceptor, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority_certificate.pem())
}

async fn answer(stream: TcpStream, mode: Mode, acceptor: TlsAcceptor, state: Arc<Mutex<FakeState>>) -> Option<()> {
    if mode == Mode::Tls {
        let mut lines = BufReader::new(acceptor.accept(stream).await.ok()?);
        say(&mut lines, "220 sink.example.test ESMTP").await?;
        talk(&mut lines, true, false, &state).await;
        return Some(());
    }
    let mut lines = BufReader::new(stream);
    say(&mut lines, "220 sink.example.test ESMTP").await?;
    if talk(&mut lines, false, mode == Mode::StartTls, &state).await? == Ended::ForTls {
        let mut lines = BufReader::new(acceptor.accept(lines.into_inner()).await.ok()?);
        talk(&mut lines, true, false, &state).await;
    }
    Some(())
}

#[derive(PartialEq, Eq)]
enum Ended {
    ForTls,
    ForGood,
}

async fn talk<S>(lines: &mut S, over_tls: bool, offers_tls: bool, state: &Arc<Mutex<FakeState>>) -> Option<Ended>
where
    S: AsyncBufRead + AsyncWrite + AsyncRead + Unpin,
{
    let (mut from, mut to, mut user) = (String::new(), Vec::new(), None);
    let password = state.lock().unwrap().password.clone();
    loop {
        let line = hear(lines).await?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" => {
                say(lines, "250-sink.example.test").await?;
                if offers_tls {
                    say(lines, "250-STARTTLS").await?;
                } else if password.is_some() {
                    say(lines, "250-AUTH PLAIN LOGIN").await?;
                }
                say(lines, "250 8BITMIME").await?;
            }
            "STARTTLS" if offers_tls => {
                say(lines, "220 go on").await?;
                return Some(Ended::ForTls);
            }
            "AUTH" => {
                let given = rest
                    .strip_prefix("PLAIN ")
                    .and_then(|text| BASE64_STANDARD.decode(text).ok())?;
                let given = String::from_utf8(given).unwrap();
                let parts: Vec<&str> = given.split('\0').collect();
                if password
                    .as_ref()
                    .is_some_and(|(name, word)| parts[1] == name && parts[2] == word)
                {
                    user = Some(parts[1].to_owned());
                    say(lines, "235 welcome").await?;
                } else {
                    say(lines, "535 5.7.8 wrong").await?;
                }
            }
            "MAIL" if password.is_some() && user.is_none() => say(lines, "530 5.7.0 sign in first").await?,
            "MAIL" => {
                from = address(rest);
                say(lines, "250 ok").await?;
            }
            "RCPT" => {
                let address = address(rest);
                let refusal = state.lock().unwrap().refused.get(&address).cloned();
                match refusal {
                    Some(refusal) => say(lines, &refusal).await?,
                    None => {
                        to.push(address);
                        say(lines, "250 ok").await?;
                    }
                }
            }
            "DATA" => {
                say(lines, "354 go on").await?;
                let raw = hear_data(lines).await?;
                let (answer, gate) = {
                    let mut state = state.lock().unwrap();
                    if state.data_answer.is_none() {
                        let (from, to, user) = (std::mem::take(&mut from), std::mem::take(&mut to), user.clone());
                        state.mails.push(Mail {
                            from,
                            to,
                            user,
                            over_tls,
                            raw,
                        });
                    }
                    (state.data_answer.clone(), state.gate.clone())
                };
                if let Some(gate) = gate {
                    gate.notified().await;
                }
                say(lines, answer.as_deref().unwrap_or("250 taken")).await?;
            }
            "QUIT" => {
                say(lines, "221 bye").await?;
                return Some(Ended::ForGood);
            }
            _ => say(lines, "250 ok").await?,
        }
    }
}

fn address(rest: &str) -> String {
    let (_, rest) = rest.split_once('<').unwrap();
    rest.split_once('>').unwrap().0.to_owned()
}

async fn hear<S: AsyncBufRead + Unpin>(lines: &mut S) -> Option<String> {
    let mut line = String::new();
    (lines.read_line(&mut line).await.ok()? > 0).then(|| line.trim_end().to_owned())
}

async fn hear_data<S: AsyncBufRead + Unpin>(lines: &mut S) -> Option<String> {
    let mut raw = String::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line.trim_end() == "." {
            return Some(raw);
        }
        raw.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

async fn say<S: AsyncWrite + Unpin>(lines: &mut S, text: &str) -> Option<()> {
    lines.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
    lines.flush().await.ok()
}
