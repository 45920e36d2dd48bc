//! A ledger that has grown: a database with as many alerts as one asks for, each sent, delivered and receipted.

use crate::subject::{Setting, Subject, fresh_folder};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::path::PathBuf;

/// The numbers from 1 to `$1`.
const NUMBERS: &str = "with recursive n(n) as (select 1 union all select n + 1 from n where n < $1) ";

/// Makes a database with `alerts` of them, as `subject` has its tables; returns the file.
pub async fn database(subject: Subject, alerts: u64) -> PathBuf {
    let setting = Setting {
        endpoints: Vec::new(),
        sends: false,
        database: None,
        receipts: false,
    };
    // The service itself makes the tables.
    let running = subject.start("127.0.0.1:1", &setting).await;
    let folder = fresh_folder();
    let file = folder.join("filled.db");
    let mut made = connect(&running.folder.join("nightbell.db")).await;
    sqlx::query("vacuum into $1")
        .bind(file.to_str().unwrap())
        .execute(&mut made)
        .await
        .unwrap();
    made.close().await.unwrap();
    drop(running);

    let mut connection = connect(&file).await;
    for pragma in [
        "journal_mode = off",
        "synchronous = off",
        "foreign_keys = off",
        "cache_size = -500000",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(format!("pragma {pragma}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
    }
    sqlx::query("begin").execute(&mut connection).await.unwrap();
    for insert in [
        "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name, client_organisation,
            estimated_hours, confidence_percent, event_id, event_type, occurred_at, received_at)
         select printf('00%06x-0000-7000-8000-%012x', n / 65536, n), 'default', 'old-' || n, n, 'Checkout page 500 error',
            'https://tickets.example.com/scp/tickets.php?number=' || n, 'Bo Client', 'Acme Corp', 4.5, 95.0, 'evt-' || n,
            'ticket.urgency_changed', 1700000000000 + n, 1700000000000 + n from n",
        "insert into delivery (id, alert_id, channel, phone, round, staff_id, role, name, message, segments, state, attempts,
            provider, provider_message_id, provider_status, provider_at, claims, looks, timeline_length, moved_at,
            received_at, created_at, updated_at)
         select printf('00%06x-0000-7000-9000-%012x', n / 65536, n), printf('00%06x-0000-7000-8000-%012x', n / 65536, n),
            'sms', '+1212' || printf('%07d', n % 8000000 + 2000000), 0, '2', 'assignee', 'Grace Hopper',
            '🚨 CRITICAL TICKET #' || n || char(10) || 'Subject: Checkout page 500 error' || char(10) ||
            'Client: Acme Corp' || char(10) || 'Urgency: CRITICAL (95%)' || char(10) || 'Est. Hours: 4.5' || char(10) ||
            'View: https://tickets.example.com/scp/tickets.php?number=' || n,
            3, 'delivered', 1, 'twilio', printf('SM%032x', n), 'delivered', 1700000000000 + n, 0, 0, 5,
            1700000000000 + n, 1700000000000 + n, 1700000000000 + n, 1700000000000 + n from n",
        "insert into attempt (delivery_id, number, provider, account, message_id, limit_day, begun_at, deadline_at,
            answered_at, outcome)
         select printf('00%06x-0000-7000-9000-%012x', n / 65536, n), 1, 'twilio', 'AC1', printf('SM%032x', n),
            '2023-11-14', 1700000000000 + n, 1700000060000 + n, 1700000000100 + n, 'accepted' from n",
        "insert into timeline (delivery_id, seq, at, what, detail)
         select printf('00%06x-0000-7000-9000-%012x', n / 65536, n), l.column1, 1700000000000 + n, l.column2, l.column3
         from n cross join (values (1, 'pending', 'to be sent'), (2, 'sending', 'attempt 1 by twilio'),
            (3, 'accepted', 'attempt 1: the provider says `queued`'), (4, 'sent', 'attempt 1: the provider says `sent`'),
            (5, 'delivered', 'attempt 1: the provider says `delivered`')) as l",
        "insert into receipt (id, provider, message_id, status, news, error_code, delivery_id, attempt, received_at,
            applied_at)
         select printf('00%06x-0000-7000-a%03x-%012x', n / 65536, length(l.column1), n), 'twilio', printf('SM%032x', n),
            l.column1, l.column1, '', printf('00%06x-0000-7000-9000-%012x', n / 65536, n), 1, 1700000000000 + n,
            1700000000000 + n
         from n cross join (values ('sent'), ('delivered')) as l",
    ] {
        let (into, select) = insert.split_once("select ").unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("{into} {NUMBERS} select {select}")))
            .bind(i64::try_from(alerts).unwrap())
            .execute(&mut connection)
            .await
            .unwrap();
    }
    sqlx::query("commit").execute(&mut connection).await.unwrap();
    // As a service leaves it.
    sqlx::query("pragma journal_mode = wal")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    file
}

async fn connect(file: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}
