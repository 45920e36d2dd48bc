//! An osTicket for stories: its tables as far as they matter (facts/helpdesks.md, 1.2), and what its agents do there, with the
//! rows that it writes then.

use super::mariadb::MariaDb;
use sqlx::{AssertSqlSafe, MySqlConnection};

const TABLES: &str = "
create table ost_ticket (ticket_id int unsigned auto_increment primary key, number varchar(20), user_id int unsigned not null default 0,
    status_id int unsigned not null default 0, dept_id int unsigned not null default 0, staff_id int unsigned not null default 0,
    team_id int unsigned not null default 0, created datetime not null, updated datetime not null, lastupdate datetime,
    key (user_id), key (status_id), key (dept_id), key (staff_id), key (team_id), key (created));
create table ost_ticket_status (id int auto_increment primary key, name varchar(60) not null, state varchar(16), unique (name), key (state));
create table ost_ticket_priority (priority_id tinyint auto_increment primary key, priority varchar(60) not null, priority_desc varchar(30)
    not null, priority_urgency tinyint unsigned not null default 0, unique (priority), key (priority_urgency));
create table ost_ticket__cdata (ticket_id int unsigned primary key, subject mediumtext, priority mediumtext);
create table ost_form (id int unsigned auto_increment primary key, type varchar(8) not null, title varchar(255) not null, key (type));
create table ost_form_field (id int unsigned auto_increment primary key, form_id int unsigned not null, type varchar(255) not null,
    label varchar(255) not null, name varchar(64) not null, sort int unsigned not null default 0, key (form_id));
create table ost_form_entry (id int unsigned auto_increment primary key, form_id int unsigned not null, object_id int unsigned,
    object_type char(1) not null default 'T', sort int unsigned not null default 1, created datetime not null,
    key (object_type, object_id));
create table ost_form_entry_values (entry_id int unsigned not null, field_id int unsigned not null, value text, value_id int,
    primary key (entry_id, field_id));
create table ost_thread (id int unsigned auto_increment primary key, object_id int unsigned not null, object_type char(1) not null,
    created datetime not null, key (object_id), key (object_type));
create table ost_event (id int unsigned auto_increment primary key, name varchar(60) not null, unique (name));
create table ost_thread_event (id int unsigned auto_increment primary key, thread_id int unsigned not null default 0, event_id int unsigned,
    staff_id int unsigned not null default 0, team_id int unsigned not null default 0, dept_id int unsigned not null default 0,
    data varchar(1024), username varchar(128) not null default 'SYSTEM', uid int unsigned, uid_type char(1) not null default 'S',
    annulled tinyint unsigned not null default 0, timestamp datetime not null, key (thread_id, event_id, timestamp));
create table ost_staff (staff_id int unsigned auto_increment primary key, dept_id int unsigned not null default 0, username varchar(32) not null,
    firstname varchar(32), lastname varchar(32), email varchar(255), phone varchar(24) not null default '', phone_ext varchar(6),
    mobile varchar(24) not null default '', isactive tinyint not null default 1, onvacation tinyint unsigned not null default 0,
    unique (username));
create table ost_department (id int unsigned auto_increment primary key, name varchar(128) not null, manager_id int unsigned not null default 0,
    key (manager_id));
create table ost_team (team_id int unsigned auto_increment primary key, lead_id int unsigned not null default 0, name varchar(125) not null,
    unique (name), key (lead_id));
create table ost_team_member (team_id int unsigned not null, staff_id int unsigned not null, flags int unsigned not null default 1,
    primary key (team_id, staff_id));
create table ost_user (id int unsigned auto_increment primary key, org_id int unsigned not null default 0, name varchar(128) not null,
    key (org_id));
create table ost_organization (id int unsigned auto_increment primary key, name varchar(128) not null default '', manager varchar(16) not null
    default '');
insert into ost_ticket_status (id, name, state) values (1, 'Open', 'open'), (2, 'Resolved', 'closed'), (3, 'Closed', 'closed'),
    (4, 'Archived', 'archived');
insert into ost_ticket_priority values (1, 'low', 'Low', 4), (2, 'normal', 'Normal', 3), (3, 'high', 'High', 2),
    (4, 'emergency', 'Emergency', 1);
insert into ost_form values (2, 'T', 'Ticket Details'), (3, 'G', 'What the AI thinks');
insert into ost_form_field values (20, 2, 'text', 'Issue Summary', 'subject', 1), (21, 2, 'thread', 'Issue Details', 'message', 2),
    (22, 2, 'priority', 'Priority Level', 'priority', 3), (30, 3, 'text', 'Confidence', 'ai_confidence', 1),
    (31, 3, 'text', 'Estimate', 'estimated_hours', 2);
insert into ost_event (id, name) values (1, 'created'), (2, 'closed'), (3, 'reopened'), (4, 'assigned'), (6, 'transferred'), (9, 'edited');
insert into ost_organization values (1, 'Acme Corp', '');
insert into ost_user values (1, 1, 'Bo Client');
insert into ost_department values (1, 'Support', 0);
";

/// An osTicket with a department, a client, and no staff yet.
pub struct OsTicket<'a> {
    server: &'a MariaDb,
    database: String,
}

impl<'a> OsTicket<'a> {
    pub async fn on(server: &'a MariaDb) -> Self {
        let database = server.create_database().await;
        let osticket = Self { server, database };
        osticket.run(TABLES).await;
        let user = &osticket.database;
        let grants = format!("create user {user} identified by 'hush'; grant select on {user}.* to {user}");
        osticket.run(&grants).await;
        osticket
    }

    /// Its database's address for a user who may only read.
    pub fn url(&self) -> String {
        self.url_with("hush")
    }

    pub fn url_with(&self, password: &str) -> String {
        let (name, port) = (&self.database, self.server.port);
        format!("mysql://{name}:{password}@127.0.0.1:{port}/{name}")
    }

    /// The name of the database, and of the user who may only read it.
    pub fn name(&self) -> &str {
        &self.database
    }

    pub async fn connect(&self) -> MySqlConnection {
        self.server.connect(&self.database).await
    }

    /// Runs statements behind its back.
    pub async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.unwrap();
    }

    /// Asks for one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(format!("select cast(({sql}) as signed)"));
        sqlx::query_scalar(sql)
            .fetch_one(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// Somebody who works there; the number is a mobile one.
    pub async fn staff(&self, name: &str, mobile: &str) -> i64 {
        let login = name.to_lowercase();
        self.insert(&format!(
            "insert into ost_staff (username, firstname, lastname, email, mobile) values ('{login}', '{name}', 'Hopper',
             '{login}@example.test', '{mobile}')"
        ))
        .await
    }

    async fn insert(&self, sql: &str) -> i64 {
        let mut connection = self.connect().await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await;
        i64::try_from(done.unwrap().last_insert_id()).unwrap()
    }

    /// A ticket of normal priority that is nobody's.
    pub async fn ticket(&self, subject: &str) -> i64 {
        let ticket = self
            .insert(
                "insert into ost_ticket (number, user_id, status_id, dept_id, created, updated, lastupdate)
                 values (cast(100000 + rand() * 900000 as int), 1, 1, 1, now(), now(), now())",
            )
            .await;
        let entry = self
            .insert(&format!(
                "insert into ost_form_entry (form_id, object_id, created) values (2, {ticket}, now())"
            ))
            .await;
        self.run(&format!(
            "insert into ost_form_entry_values values ({entry}, 20, '{subject}', null), ({entry}, 22, 'Normal', 2);
             insert into ost_thread (object_id, object_type, created) values ({ticket}, 'T', now())"
        ))
        .await;
        let _ = self
            .try_run(&format!(
                "insert into ost_ticket__cdata values ({ticket}, '{subject}', '2')"
            ))
            .await;
        self.log(ticket, "created", "").await;
        ticket
    }

    async fn try_run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.map(drop)
    }

    /// Writes an event of a ticket; its id.
    async fn log(&self, ticket: i64, event: &str, data: &str) -> i64 {
        self.insert(&log_of(ticket, event, data)).await
    }

    /// An agent sets a ticket's priority.
    pub async fn set_priority(&self, ticket: i64, priority: &str) {
        self.set_priority_silently(ticket, priority).await;
        self.log(ticket, "edited", r#"{"fields":{"22":[]}}"#).await;
    }

    /// Somebody sets it in the database, of which osTicket knows nothing.
    pub async fn set_priority_silently(&self, ticket: i64, priority: &str) {
        self.run(&format!(
            "update ost_form_entry_values v join ost_form_entry e on e.id = v.entry_id join ost_ticket_priority p
                on p.priority = '{priority}'
             set v.value = p.priority_desc, v.value_id = p.priority_id
             where v.field_id = 22 and e.object_type = 'T' and e.object_id = {ticket}"
        ))
        .await;
        let _ = self
            .try_run(&format!(
                "update ost_ticket__cdata set priority = (select priority_id from ost_ticket_priority
                 where priority = '{priority}') where ticket_id = {ticket}"
            ))
            .await;
    }

    /// Raises a ticket to the highest priority.
    pub async fn raise(&self, ticket: i64) {
        self.set_priority(ticket, "emergency").await;
    }

    pub async fn assign(&self, ticket: i64, staff: i64) {
        self.run(&format!(
            "update ost_ticket set staff_id = {staff}, updated = now() where ticket_id = {ticket}"
        ))
        .await;
        self.log(ticket, "assigned", &format!(r#"{{"staff":[{staff},"Grace Hopper"]}}"#))
            .await;
    }

    pub async fn assign_team(&self, ticket: i64, team: i64) {
        self.run(&format!(
            "update ost_ticket set team_id = {team}, updated = now() where ticket_id = {ticket}"
        ))
        .await;
        self.log(ticket, "assigned", &format!(r#"{{"team":{team}}}"#)).await;
    }

    pub async fn close(&self, ticket: i64) {
        self.run(&format!(
            "update ost_ticket set status_id = 3, updated = now() where ticket_id = {ticket}"
        ))
        .await;
        self.log(ticket, "closed", r#"{"status":[3,"Closed"]}"#).await;
    }

    /// Fills in what an admin's own form asks for.
    pub async fn answer(&self, ticket: i64, confidence: &str, hours: &str) {
        let entry = self
            .insert(&format!(
                "insert into ost_form_entry (form_id, object_id, created) values (3, {ticket}, now())"
            ))
            .await;
        self.run(&format!(
            "insert into ost_form_entry_values values ({entry}, 30, '{confidence}', null), ({entry}, 31, '{hours}', null)"
        ))
        .await;
    }
}

/// The statement that writes an event of a ticket.
pub fn log_of(ticket: i64, event: &str, data: &str) -> String {
    format!(
        "insert into ost_thread_event (thread_id, event_id, data, username, timestamp)
         select th.id, e.id, '{data}', 'grace', now() from ost_thread th join ost_event e on e.name = '{event}'
         where th.object_type = 'T' and th.object_id = {ticket}"
    )
}
