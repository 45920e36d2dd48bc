//! The test environment: one service, one fake Twilio, one database, and people with phones.

use super::{
    clock::Clock,
    database::Database,
    eventually,
    service::{Service, command},
    smtp::Smtp,
    twilio::{ACCOUNT, AUTH_TOKEN, Answers, Message, Twilio, sign, text_form},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const INTAKE: &str = "intake-token";
pub const ADMIN: &str = "admin-token";
/// Our own number, from which messages go.
pub const OUR_NUMBER: &str = "+15005550006";
/// Differs from the bound address, as behind a proxy: receipts must be checked against this one.
pub const PUBLIC: &str = "https://nightbell.example.test/behind/proxy";

/// How a test environment is to be set up.
pub struct Plan {
    database: Database,
    settings: BTreeMap<String, String>,
    clock: Option<Clock>,
}

impl Plan {
    /// A service that sends through the fake Twilio, unpaced.
    pub fn on(database: Database) -> Self {
        let mut plan = Self {
            database,
            settings: BTreeMap::new(),
            clock: None,
        };
        for (key, value) in [
            ("LISTEN", "127.0.0.1:0"),
            ("AUTH__INTAKE_TOKENS", INTAKE),
            ("AUTH__ADMIN_TOKENS", ADMIN),
            ("PUBLIC_URL", PUBLIC),
            ("SMS__DRIVER", "twilio"),
            ("SMS__PER_SECOND", "0"),
            ("TWILIO__ACCOUNT_SID", ACCOUNT),
            ("TWILIO__AUTH_TOKEN", AUTH_TOKEN),
            ("TWILIO__FROM", OUR_NUMBER),
        ] {
            plan = plan.set(key, value);
        }
        let url = plan.database.url.clone();
        plan.set("DATABASE_URL", &url)
    }

    /// The service's environment so far.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Where it will run.
    pub fn folder(&self) -> &std::path::Path {
        self.database.folder.path()
    }

    /// Sets `NIGHTBELL_<key>`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(format!("NIGHTBELL_{key}"), value.to_owned());
        self
    }

    /// Sets any other environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Mails go to two people through this server.
    pub fn mailing(self, smtp: &Smtp) -> Self {
        let url = smtp.url("");
        self.set("REPORT__TO", "Duty <duty@example.test>, boss@example.test")
            .set("REPORT__FROM", "Nightbell <nightbell@example.test>")
            .set("REPORT__SMTP_URL", &url)
            .environment("SSL_CERT_FILE", smtp.authority.to_str().unwrap())
    }

    /// Takes a setting away.
    pub fn unset(mut self, key: &str) -> Self {
        self.settings.remove(&format!("NIGHTBELL_{key}"));
        self
    }

    /// Puts the service into another time; `None` if this machine cannot.
    pub fn at(mut self, time: &str, story: &str) -> Option<Self> {
        let clock = Clock::starting(time, &self.database.folder, story)?;
        self.settings.extend(clock.environment());
        self.clock = Some(clock);
        Some(self)
    }

    pub async fn build(self) -> TestEnv {
        let twilio = Twilio::start().await;
        let plan = self.set("TWILIO__BASE_URL", &twilio.url);
        twilio.set_clock(plan.clock.as_ref().map_or(0, Clock::ahead_s));
        let service = Service::start(&plan.settings, plan.database.folder.path());
        TestEnv {
            service,
            twilio,
            database: plan.database,
            settings: plan.settings,
            clock: plan.clock,
            client: crate::support::client(),
        }
    }
}

pub struct TestEnv {
    pub service: Service,
    pub twilio: Twilio,
    pub database: Database,
    pub settings: BTreeMap<String, String>,
    clock: Option<Clock>,
    client: reqwest::Client,
}

/// An answer of the service.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: Value,
}

impl TestEnv {
    pub async fn on(database: Database) -> Self {
        Plan::on(database).build().await
    }

    /// Starts the service again after it ended.
    pub fn restart(&mut self) {
        self.service = Service::start(&self.settings, self.database.folder.path());
    }

    /// Runs a command of the program with the service's settings; returns its exit code, standard output and error.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = command(&self.settings, self.database.folder.path());
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// A second process on the same database.
    pub fn start_another(&self) -> Service {
        Service::start(&self.settings, self.database.folder.path())
    }

    /// Turns everybody's clock: the service's, and the provider's with it.
    pub fn turn_clock_to(&self, time: &str) {
        self.turn_own_clock_to(time);
        self.twilio.set_clock(self.clock.as_ref().unwrap().ahead_s());
    }

    /// Turns the service's clock only.
    pub fn turn_own_clock_to(&self, time: &str) {
        self.clock.as_ref().unwrap().turn_to(time);
    }

    /// Turns the service's clock so many seconds away from the real one.
    pub fn turn_clock_by(&self, seconds: i64) {
        self.clock.as_ref().unwrap().turn_by(seconds);
    }

    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let mut request = self
            .client
            .request(method, format!("http://{}{path}", self.service.address))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let text = response.text().await.unwrap();
        Reply {
            status,
            content_type,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    /// Posts raw bytes as an event.
    pub async fn post_raw(&self, body: impl Into<Vec<u8>>) -> Reply {
        let bearer = format!("Bearer {INTAKE}");
        self.request(
            Method::POST,
            "/v1/events",
            &[("authorization", &bearer), ("content-type", "application/json")],
            body.into(),
        )
        .await
    }

    pub async fn post(&self, event: &Value) -> Reply {
        self.post_raw(event.to_string()).await
    }

    /// Posts an event that must raise an alert; returns the alert's id.
    pub async fn raise(&self, event: &Value) -> String {
        let reply = self.post(event).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.body["alert_id"].as_str().unwrap().to_owned()
    }

    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let bearer = format!("Bearer {ADMIN}");
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        self.request(
            method,
            path,
            &[("authorization", &bearer), ("content-type", "application/json")],
            bytes,
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let reply = self.admin(Method::GET, path, None).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.body
    }

    /// The deliveries of an alert.
    pub async fn deliveries(&self, alert: &str) -> Vec<Value> {
        self.get(&format!("/v1/alerts/{alert}")).await["deliveries"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Waits until the alert's deliveries stand so, in order.
    pub async fn stand(&self, alert: &str, states: &[&str]) -> Vec<Value> {
        eventually(&format!("deliveries that stand {states:?}"), async || {
            let deliveries = self.deliveries(alert).await;
            let seen: Vec<&str> = deliveries
                .iter()
                .map(|delivery| delivery["state"].as_str().unwrap())
                .collect();
            if seen == states {
                Ok(deliveries)
            } else {
                Err(deliveries)
            }
        })
        .await
    }

    /// Waits until so many slots of today's limit are taken: a try that is under way has one for as long as it lasts.
    pub async fn slots_are_used(&self, wanted: i64) {
        eventually(&format!("{wanted} slots of the limit in use"), async || {
            let used = self.get("/v1/limit").await["used"].clone();
            if used == wanted { Ok(()) } else { Err(used) }
        })
        .await;
    }

    /// Posts a receipt as Twilio would: signed over the public address.
    pub async fn report(&self, message: &Message, status: &str, code: Option<&str>) -> u16 {
        let mut form = vec![
            ("AccountSid", ACCOUNT),
            ("From", &message.from),
            ("To", &message.to),
            ("MessageSid", &message.sid),
            ("SmsSid", &message.sid),
        ];
        form.extend([
            ("MessageStatus", status),
            ("SmsStatus", status),
            ("ApiVersion", "2010-04-01"),
        ]);
        form.extend(code.map(|code| ("ErrorCode", code)));
        let url = message.callback.clone().unwrap();
        self.post_receipt(&url, &form, &sign(AUTH_TOKEN, &url, &form)).await
    }

    /// Posts a receipt without a code; `None` if there was no answer.
    pub async fn try_report(&self, message: &Message, status: &str) -> Option<u16> {
        let posting = message.report_to(&self.client, &self.service.address, status, None);
        tokio::time::timeout(super::ANSWER, posting).await.ok().flatten()
    }

    /// Somebody with this phone texts us: as Twilio posts it, signed.
    pub async fn text_from(&self, phone: &str, text: &str) -> u16 {
        self.text_to(&self.service.address, phone, text).await
    }

    /// The same to the process at this address.
    pub async fn text_to(&self, address: &str, phone: &str, text: &str) -> u16 {
        let sid = format!("SM{}", uuid::Uuid::new_v4().simple());
        let form = [
            ("ToCountry", "US"),
            ("ToState", "CA"),
            ("SmsMessageSid", &sid),
            ("NumMedia", "0"),
            ("ToCity", ""),
            ("FromZip", "94107"),
            ("SmsSid", &sid),
            ("FromState", "CA"),
            ("SmsStatus", "received"),
            ("FromCity", "SAN FRANCISCO"),
            ("Body", text),
            ("FromCountry", "US"),
            ("To", "+15005550006"),
            ("NumSegments", "1"),
            ("MessageSid", &sid),
            ("AccountSid", ACCOUNT),
            ("From", phone),
            ("ApiVersion", "2010-04-01"),
        ];
        let signature = sign(AUTH_TOKEN, &format!("{PUBLIC}/twilio/inbound"), &form);
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self.client.post(format!("http://{address}/twilio/inbound"));
        let request = request.header("x-twilio-signature", signature);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body.finish()).send().await.unwrap();
        answer.status().as_u16()
    }

    /// Posts a form to the path that the public address leads to, with this signature.
    pub async fn post_receipt(&self, url: &str, form: &[(&str, &str)], signature: &str) -> u16 {
        let query = url
            .split('#')
            .next()
            .unwrap()
            .split_once('?')
            .map(|(_, query)| format!("?{query}"))
            .unwrap_or_default();
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let headers = [
            ("x-twilio-signature", signature),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.request(
            Method::POST,
            &format!("/twilio/status{query}"),
            &headers,
            body.finish().into_bytes(),
        )
        .await
        .status
    }

    /// A person texts our number; a message of its own each time.
    pub async fn text(&self, from: &str, body: &str) -> Reply {
        let sid = format!("SM{}", uuid::Uuid::new_v4().simple());
        self.post_text(&text_form(&sid, from, OUR_NUMBER, body)).await
    }

    /// Posts a text as Twilio would: signed over the public address.
    pub async fn post_text(&self, form: &[(&str, &str)]) -> Reply {
        let signature = sign(AUTH_TOKEN, &format!("{PUBLIC}/twilio/inbound"), form);
        self.post_text_signed(form, &signature).await
    }

    pub async fn post_text_signed(&self, form: &[(&str, &str)], signature: &str) -> Reply {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let headers = [
            ("x-twilio-signature", signature),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let body = body.finish().into_bytes();
        self.request(Method::POST, "/twilio/inbound", &headers, body).await
    }

    /// Somebody with this number, whose phone answers so.
    pub fn phone(&self, number: &str, answers: impl IntoIterator<Item = Answers>) -> Value {
        self.twilio.script(number, answers);
        person(number)
    }
}

pub fn person(number: &str) -> Value {
    json!({"staff_id": number, "role": "assignee", "name": "Grace Hopper", "phone": number})
}

/// A critical event for a ticket.
pub fn critical(ticket: &str, recipients: &[Value]) -> Value {
    json!({"source": "default", "type": "ticket.urgency_changed", "ticket": {"id": ticket, "number": format!("10{ticket}"),
        "subject": "Printer on fire", "urgency": "critical", "url": "https://tickets.example.com/1"},
        "client": {"name": "Bo Client", "organisation": "Acme Corp"}, "recipients": recipients})
}
