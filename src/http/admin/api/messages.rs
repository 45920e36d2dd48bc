//! `/v1/messages`: a message to one person that no ticket is the cause of. It counts against the daily limit, minds opt-outs,
//! and is a delivery as others are, with `alert_id` null.

use super::query::NO_PHONE;
use crate::{
    domain::{
        delivery,
        id::DeliveryId,
        json::{Fault, Reader},
        message::Message,
        phone::{self, PhoneNumber, Region},
        route::Channel,
        text::clean_line,
    },
    http::{
        body::{self, Id},
        deadline::{in_time, now},
        error::{ForAdmins, ForMessages, KeyedBody, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{MessageRequest, MessageTaken, NewDelivery, Recipient, new_id},
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// Longer names are cut.
const MAX_LINE: usize = 200;
/// Longer keys are refused: two might be one when cut.
const MAX_KEY: usize = 255;
const KEY: &str = "idempotency-key";
/// Said when the database does not answer at all.
const NO_ANSWER: &str =
    "the database did not answer in time; it may or may not have been stored: with an `Idempotency-Key`, send it again";

/// A message to one person.
#[derive(ToSchema)]
#[schema(as = NewMessage)]
#[expect(dead_code, reason = "describes what `read` reads; a test compares the two")]
pub struct MessageBody {
    /// In any writing; without a country code it is read by the region's rules.
    #[schema(examples("+14155550101"))]
    phone: String,
    /// At most 1,600 characters.
    #[schema(examples("Server room: 41 °C. Go and look."))]
    text: String,
    #[schema(examples("Grace Hopper"))]
    name: Option<String>,
    /// The helpdesk's own id of the person.
    staff_id: Option<Id>,
    role: Option<String>,
    /// Of a number without a country code; `sms.default_region` if it is not given.
    #[schema(examples("DE"))]
    region: Option<String>,
}

/// A message that is owed from now on.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Of its delivery: `GET /v1/deliveries/{id}` says what becomes of it.
    #[schema(format = "uuid")]
    id: String,
    /// `null`: no alert is the cause of it.
    #[schema(required, format = "uuid")]
    alert_id: Option<String>,
    #[schema(examples("sms"))]
    channel: String,
    recipient: Recipient,
    /// Masked.
    #[schema(examples("+1415****101"))]
    phone: String,
    #[schema(value_type = delivery::State)]
    state: String,
    #[schema(examples(1))]
    segments: usize,
    created_at: Timestamp,
}

/// Sends a message of its own
///
/// To one person, without a ticket. It counts against the daily limit and minds opt-outs, and is durable when it is answered.
/// With an `Idempotency-Key`, a repeated request is answered as the first one was, and nothing more is sent; keys are kept for
/// `retention.receipt_days`.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "sendMessage",
    tag = "deliveries",
    params((
        "Idempotency-Key" = Option<String>,
        Header,
        nullable = false,
        min_length = 1,
        max_length = 255,
        description = "By what the request is known when it comes again"
    )),
    request_body = MessageBody,
    responses((status = 202, body = Accepted, description = "It is owed"), ForAdmins, KeyedBody, ForMessages),
    security(("admin" = []))
)]
pub async fn send(
    State(app): SharedState,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let key = read_key(&headers)?;
    let document = body::read_json(&headers, raw).await?;
    let now = now();
    let new = read(&document, &app).map_err(Problem::fields)?;
    let id = DeliveryId::from(new_id());
    let accepted = accept(&id, &new, now);
    let request = match key {
        Some(key) => Some(MessageRequest {
            key,
            digest: digest(&document),
            answer: serde_json::to_string(&accepted).map_err(|_| unreadable())?,
        }),
        None => None,
    };
    let taken = in_time(
        app.store.send_message(id.clone(), new, request.as_ref(), now),
        NO_ANSWER,
    )
    .await?;
    let accepted = match taken {
        MessageTaken::New => {
            tracing::info!(delivery.id = %id, "an admin sends a message");
            accepted
        }
        MessageTaken::Repeated(answer) => serde_json::from_str(&answer).map_err(|_| unreadable())?,
        MessageTaken::OtherRequest => {
            return Err(Problem::new(
                Kind::KeyTaken,
                "this `Idempotency-Key` belongs to another request: send a new message with a new key",
            ));
        }
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

fn unreadable() -> Problem {
    Problem::new(
        Kind::Internal,
        "the first answer to this request cannot be read; nothing more was sent",
    )
}

/// By what the request is known when it comes again, if the caller wants that: visible ASCII, with or without the quotes of
/// a structured field (draft-ietf-httpapi-idempotency-key-header).
fn read_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(given) = headers.get(KEY) else {
        return Ok(None);
    };
    let text = given.to_str().unwrap_or_default().trim();
    let key = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY || headers.get_all(KEY).iter().count() > 1 {
        return Err(Problem::new(
            Kind::InvalidKey,
            format!("`Idempotency-Key` is not one text of 1 to {MAX_KEY} ASCII characters: send a UUID, for example"),
        ));
    }
    Ok(Some(key.to_owned()))
}

/// The same for the same members, in whatever order and spacing.
fn digest(document: &Value) -> String {
    let digest = Sha256::digest(document.to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the body of a request; names every bad field.
fn read(document: &Value, app: &AppState) -> Result<NewDelivery, Vec<Fault>> {
    let root = Reader::root(document);
    let mut faults: Vec<Fault> = Vec::new();
    root.expect_object(&mut faults);
    let phone = read_phone(&root, app.default_region, &mut faults);
    let message = read_text(&root, app, &mut faults);
    let recipient = Recipient {
        staff_id: root
            .member("staff_id")
            .id(&mut faults)
            .map(|id| clean_line(&id, MAX_LINE)),
        role: root
            .member("role")
            .text(&mut faults)
            .map(|role| clean_line(role, MAX_LINE)),
        name: root
            .member("name")
            .text(&mut faults)
            .map(|name| clean_line(name, MAX_LINE)),
    };
    match (phone, message) {
        (Some(phone), Some(message)) if faults.is_empty() => Ok(NewDelivery {
            channel: Channel::Sms,
            recipient,
            phone: Ok(phone),
            message: message.text,
            segments: message.size.segments,
            ack_code: None,
        }),
        _ => Err(faults),
    }
}

fn read_phone(root: &Reader<'_>, default_region: Region, faults: &mut Vec<Fault>) -> Option<PhoneNumber> {
    let place = root.member("region");
    let named = place.text(faults);
    let region = named.map_or(Some(default_region), Region::parse);
    if region.is_none() {
        place.fault(faults, "this is no region: write two letters like `DE`");
    }
    let place = root.member("phone");
    let count = faults.len();
    let raw = place.text(faults);
    let phone = raw.and_then(|raw| PhoneNumber::parse(raw, region.unwrap_or(default_region)));
    if phone.is_none() && faults.len() == count {
        place.fault(faults, NO_PHONE);
    }
    phone
}

fn read_text(root: &Reader<'_>, app: &AppState, faults: &mut Vec<Fault>) -> Option<Message> {
    let place = root.member("text");
    let count = faults.len();
    let text = place.text(faults).unwrap_or_default();
    match app.intake.write(text) {
        Ok(message) if !message.text.is_empty() => return Some(message),
        Ok(_) if faults.len() == count => place.fault(faults, "this is missing or blank: send the text of the message"),
        Ok(_) => {}
        Err(beyond) => place.fault(
            faults,
            format!("this is {beyond} characters too long for one message: shorten it"),
        ),
    }
    None
}

fn accept(id: &DeliveryId, new: &NewDelivery, now: Timestamp) -> Accepted {
    Accepted {
        id: id.to_string(),
        alert_id: None,
        channel: new.channel.as_str().to_owned(),
        recipient: new.recipient.clone(),
        phone: new
            .phone
            .as_ref()
            .map(|phone| phone::mask(phone.as_e164()))
            .unwrap_or_default(),
        state: "pending".to_owned(),
        segments: new.segments,
        created_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::PartialSchema;

    #[test]
    fn a_message_is_described_by_the_members_that_are_read() {
        let schema = serde_json::to_value(MessageBody::schema()).unwrap();
        let members: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();

        assert_eq!(members, ["name", "phone", "region", "role", "staff_id", "text"]);
        assert_eq!(schema["required"], serde_json::json!(["phone", "text"]));
    }
}
