//! The connection to osTicket's database: one, made when it is needed and dropped after whatever went wrong. Every question
//! has a time limit, on the server too, and an error says in plain words what to do. Absent: the questions.

use crate::source::seen::HelpdeskError;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, FromRow,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow},
};
use std::{io, time::Duration};
use tokio::sync::Mutex;
use url::{Host, Url};

/// Nothing that is asked takes a second; a helpdesk that needs ten has other troubles, to which we must not add.
const ANSWER: Duration = Duration::from_secs(10);
/// By which numbers a server says that it is shutting down, or has ended the connection by itself or by its admin.
const CLOSED: [u16; 3] = [1053, 1927, 4031];
const FORM: &str = "write `mysql://USER:PASSWORD@HOST/DATABASE`";

/// A setting that cannot be right.
#[derive(Debug)]
pub struct WrongSetting {
    /// Its name within the source.
    pub name: &'static str,
    /// What is wrong and what would be right; reads on after the setting. Holds no secret.
    pub problem: String,
}

impl From<WrongSetting> for HelpdeskError {
    fn from(wrong: WrongSetting) -> Self {
        Self::new(format!("`{}` {}", wrong.name, wrong.problem))
    }
}

/// The way to osTicket's database.
pub struct Connection {
    options: MySqlConnectOptions,
    prefix: String,
    kept: Mutex<Option<MySqlConnection>>,
}

impl Connection {
    /// Checks the settings of a source, `url` (`mysql://USER:PASSWORD@HOST/DATABASE`) and `table_prefix` (usually `ost_`);
    /// connects to nothing yet.
    pub fn new(url: &SecretString, table_prefix: &str) -> Result<Self, WrongSetting> {
        let options = read_url(url).map_err(|problem| WrongSetting { name: "url", problem })?;
        // It becomes a part of the text of every statement, so it is nothing but a name. That of a table has at most 64
        // characters, of which osTicket's own take 24.
        let is_name = table_prefix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || table_prefix.len() > 40 {
            return Err(WrongSetting {
                name: "table_prefix",
                problem: "is no table prefix: write it as in osTicket's `include/ost-config.php`, like `ost_`; it has letters, digits and underscores".to_owned(),
            });
        }
        Ok(Self {
            options,
            prefix: table_prefix.to_owned(),
            kept: Mutex::default(),
        })
    }

    /// What the names of the tables begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// All rows of a question, which must hold nothing that came from outside but numbers: it is sent as it stands, since
    /// lists of numbers would otherwise be prepared anew for every length.
    pub async fn ask<T>(&self, question: String) -> Result<Vec<T>, HelpdeskError>
    where
        T: for<'r> FromRow<'r, MySqlRow>,
    {
        let mut kept = self.kept.lock().await;
        // Taken out until all went well: what was broken off must not be asked again.
        let asking = self.ask_on(kept.take(), question);
        let (connection, rows) = match tokio::time::timeout(ANSWER, asking).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return Err(self.explain(&error)),
            Err(_) => return Err(self.say(&format!("did not answer within {} seconds", ANSWER.as_secs()))),
        };
        *kept = Some(connection);
        let rows: Result<Vec<T>, sqlx::Error> = rows.iter().map(T::from_row).collect();
        rows.map_err(|error| self.explain(&error))
    }

    async fn ask_on(
        &self,
        kept: Option<MySqlConnection>,
        question: String,
    ) -> Result<(MySqlConnection, Vec<MySqlRow>), sqlx::Error> {
        if let Some(mut connection) = kept {
            match rows(&mut connection, question.clone()).await {
                Err(error) if is_closed(&error) => {}
                answer => return Ok((connection, answer?)),
            }
        }
        let mut connection = self.connect().await?;
        let rows = rows(&mut connection, question).await?;
        Ok((connection, rows))
    }

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = MySqlConnection::connect_with(&self.options).await?;
        // Nothing is ever written there, even where the user may.
        rows(&mut connection, "set session transaction read only".to_owned()).await?;
        // What nobody waits for any more must end there too. The two servers name it differently.
        let version: String = sqlx::query_scalar("select version()")
            .fetch_one(&mut connection)
            .await?;
        let limit = if version.contains("MariaDB") {
            format!("set session max_statement_time = {}", ANSWER.as_secs())
        } else {
            format!("set session max_execution_time = {}", ANSWER.as_millis())
        };
        match rows(&mut connection, limit).await {
            // A server too old to know it.
            Ok(_) | Err(sqlx::Error::Database(_)) => Ok(connection),
            Err(error) => Err(error),
        }
    }

    fn place(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }

    fn say(&self, what: &str) -> HelpdeskError {
        HelpdeskError::new(format!("osTicket's database at {} {what}", self.place()))
    }

    /// An error in plain words, without the server's own: they may quote anything.
    fn explain(&self, error: &sqlx::Error) -> HelpdeskError {
        let text = match error {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<MySqlDatabaseError>() {
                Some(error) => self.explain_number(error.number(), error.message()),
                None => "answers with an error that nobody knows".to_owned(),
            },
            sqlx::Error::Io(error) => explain_io(error),
            sqlx::Error::Tls(_) => {
                "cannot be talked to over TLS: see `ssl-mode` and `ssl-ca` in `url`, and the server's certificate"
                    .to_owned()
            }
            sqlx::Error::ColumnDecode { index, .. } | sqlx::Error::ColumnNotFound(index) => {
                format!("has something else in {index} than osTicket 1.14 to 1.18 has: which version is it?")
            }
            // Also what the way of logging in needs and the connection does not give.
            sqlx::Error::Protocol(_) | sqlx::Error::Configuration(_) => {
                "is no MySQL or MariaDB server, or its user logs in by a plugin that is not known here: give the user a password of `caching_sha2_password` (over TLS) or `mysql_native_password`"
                    .to_owned()
            }
            _ => "cannot be asked: the connection broke off".to_owned(),
        };
        self.say(&text)
    }

    /// What an error's number means (MySQL's and MariaDB's lists agree on these).
    fn explain_number(&self, number: u16, message: &str) -> String {
        let table = self.table_in(message);
        match number {
            1044 | 1049 => format!(
                "has no database `{}`, or the user in `url` may not use it",
                self.options.get_database().unwrap_or_default()
            ),
            1045 | 1698 => "refuses the user or the password in `url`".to_owned(),
            1129 | 1130 => "does not let this machine in: see the host part of the user, and `FLUSH HOSTS`".to_owned(),
            1040 | 1203 | 1226 => "has too many connections open".to_owned(),
            1142 | 1143 => format!("does not let the user in `url` read {table}: `GRANT SELECT` on it"),
            1146 => format!("has no table {table}: is `table_prefix` (`{}`) right?", self.prefix()),
            1054 => "lacks a column that osTicket 1.14 to 1.18 has: which version is it?".to_owned(),
            1969 | 3024 | 1317 => format!("ended a question after {} seconds", ANSWER.as_secs()),
            number if CLOSED.contains(&number) => "is shutting down, or has closed the connection".to_owned(),
            number => format!("answers with error {number}"),
        }
    }

    /// The table that a message of the server names.
    fn table_in(&self, message: &str) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut words = message.split(|c| !is_name(c));
        let table = words.rfind(|word| !word.is_empty() && word.starts_with(self.prefix()));
        table.map_or_else(|| "one of osTicket's tables".to_owned(), |table| format!("`{table}`"))
    }
}

/// Whether the connection is no more: the server was started anew, or has closed what was idle for long.
fn is_closed(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            let error = error.try_downcast_ref::<MySqlDatabaseError>();
            error.is_some_and(|error| CLOSED.contains(&error.number()))
        }
        _ => false,
    }
}

async fn rows(connection: &mut MySqlConnection, question: String) -> Result<Vec<MySqlRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(question)).fetch_all(connection).await
}

fn explain_io(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "does not answer: is it running, and is the address in `url` right?",
        io::ErrorKind::NotFound => "is not there: is the socket in `url` right, and the server running?",
        io::ErrorKind::PermissionDenied => "cannot be reached: may Nightbell's user use the socket in `url`?",
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "cannot be reached over the network: is there a firewall between?"
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "closed the connection: is it starting or stopping?",
        // A name that cannot be resolved has no kind of its own.
        _ => "is not there: is the host in `url` right, and can this machine resolve its name?",
    };
    text.to_owned()
}

fn read_url(url: &SecretString) -> Result<MySqlConnectOptions, String> {
    let url = Url::parse(url.expose_secret()).map_err(|error| {
        format!("is no address ({error}): {FORM}, special characters of the password percent-encoded")
    })?;
    if !matches!(url.scheme(), "mysql" | "mariadb") {
        return Err(format!("is not the address of a MySQL or MariaDB database: {FORM}"));
    }
    if url.path().trim_matches('/').is_empty() {
        return Err(format!("names no database: {FORM}"));
    }
    let options = MySqlConnectOptions::from_url(&url)
        .map_err(|_| "has a user, a password or a parameter that cannot be read: percent-encode special characters")?;
    let options = match url.host() {
        // Without the brackets of an address.
        Some(Host::Ipv6(ip)) => options.host(&ip.to_string()),
        _ => options,
    };
    // osTicket writes times in the zone of the database's machine, and so sets its sessions.
    let options = options.timezone("SYSTEM".to_owned());
    let options = options.pipes_as_concat(false).no_engine_substitution(false);
    Ok(options.disable_statement_logging())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_without_what_is_secret_in_it() {
        let wrong = |url: &str, prefix: &str| {
            let wrong = Connection::new(&url.into(), prefix).err();
            wrong.map(|wrong| (wrong.name, wrong.problem)).unwrap_or_default()
        };

        assert_eq!(wrong("mysql://sms_ro:hush@127.0.0.1/osticket", "ost_").0, "");
        assert_eq!(wrong("mariadb://sms_ro@[::1]:3307/osticket", "").0, "");
        for url in [
            "127.0.0.1/hush",
            "postgres://sms_ro:hush@db/osticket",
            "mysql://sms_ro:hush@db",
            "mysql://sms_ro:hush@db/",
            "mysql://sms_ro:hu/sh@db/osticket",
            "mysql://sms_ro:hush@db/osticket?ssl-mode=hush",
        ] {
            let (name, problem) = wrong(url, "ost_");
            assert!(name == "url" && !problem.contains("hu"), "{url}: {name} {problem}");
        }
        for prefix in ["ost-", "ost_; drop table x", "`", "o st"] {
            assert_eq!(wrong("mysql://db/osticket", prefix).0, "table_prefix", "{prefix}");
        }
    }

    #[test]
    fn an_error_says_what_to_do_and_nothing_of_what_the_server_said() {
        let connection = Connection::new(&"mysql://sms_ro:hush@db/osticket".into(), "ost_").unwrap();
        let said = |number, message: &str| connection.explain_number(number, message);

        assert_eq!(
            said(1146, "Table 'osticket.ost_ticket_priority' doesn't exist"),
            "has no table `ost_ticket_priority`: is `table_prefix` (`ost_`) right?"
        );
        assert_eq!(
            said(
                1142,
                "SELECT command denied to user 'sms_ro'@'localhost' for table `osticket`.`ost_staff`"
            ),
            "does not let the user in `url` read `ost_staff`: `GRANT SELECT` on it"
        );
        assert!(said(1045, "Access denied for user 'sms_ro'").contains("refuses the user or the password"));
        assert!(said(1049, "Unknown database 'osticket'").contains("no database `osticket`"));
        assert_eq!(said(4711, "a row says: Printer on fire"), "answers with error 4711");
    }
}
