//! What the pages of an alert and of a delivery have in common: how a delivery is shown, and what can be done with it. The
//! doing is the API's.

use super::words;
use crate::{
    carrier,
    domain::delivery::{Reason, State},
    http::{
        admin::{
            api::{
                deliveries::{self, Delivery},
                query::Phones,
            },
            pages::form::Fields,
        },
        error::{Kind, Problem},
        state::AppState,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

/// What became of an action.
pub enum Outcome {
    /// It is done; the word says what.
    Done(&'static str),
    /// This delivery's number is to be shown, once.
    Revealed(Revealed),
    /// It may still arrive: sending it again has to be confirmed.
    AskForce,
}

/// A number that an admin asked to see.
pub struct Revealed {
    pub delivery_id: String,
    pub phone: String,
}

/// Does what a button of a delivery says.
pub async fn on_delivery(app: &AppState, id: &str, fields: &Fields) -> Result<Outcome, Problem> {
    match fields.text("action").as_str() {
        "resend" => resend(app, id, fields.text("force") == "true").await,
        "cancel" => deliveries::cancel_one(app, id)
            .await
            .map(|()| Outcome::Done("canceled")),
        "reveal" => reveal(app, id).await,
        _ => Err(unknown()),
    }
}

/// For a form that no page of this version has.
pub fn unknown() -> Problem {
    Problem::new(
        Kind::InvalidFields,
        "This button is of another version of these pages: reload the page and try again.",
    )
}

async fn resend(app: &AppState, id: &str, force: bool) -> Result<Outcome, Problem> {
    match deliveries::send_again(app, id, force).await {
        Ok(_) => Ok(Outcome::Done("resent")),
        Err(problem) if problem.kind() == Kind::MayStillArrive => Ok(Outcome::AskForce),
        Err(problem) => Err(problem),
    }
}

async fn reveal(app: &AppState, id: &str) -> Result<Outcome, Problem> {
    let found = deliveries::find(app, id, Phones::InFull).await?;
    let phone = found
        .phone()
        .ok_or_else(|| Problem::not_found("This delivery has no number."))?;
    tracing::info!(delivery.id = id, "an admin was shown a phone number");
    Ok(Outcome::Revealed(Revealed {
        delivery_id: id.to_owned(),
        phone: phone.to_owned(),
    }))
}

/// A delivery with what a page says of it beside the API.
pub fn shown(delivery: &Delivery, revealed: Option<&Revealed>) -> Value {
    let mut shown = to_value(delivery);
    decorate(&mut shown, revealed);
    shown
}

/// Anything as a template reads it.
pub fn to_value(value: &impl Serialize) -> Value {
    // Structs of texts and numbers cannot fail.
    serde_json::to_value(value).unwrap_or_default()
}

/// Adds to a delivery what it means, what can be done with it, and its number if it is to be shown.
pub fn decorate(delivery: &mut Value, revealed: Option<&Revealed>) {
    let text = |name: &str| delivery[name].as_str();
    let (word, reason) = (text("state").unwrap_or_default(), text("reason"));
    let Some(state) = State::parse(word) else { return };
    let by_code = carrier::explain(text("provider"), state, delivery["error_code"].as_i64());
    let explanation = words::explain(word, reason, by_code);
    let explanation = explanation.map(|found| json!({"meaning": found.meaning, "advice": found.advice}));
    let has_number = !matches!(
        reason.and_then(Reason::parse),
        Some(Reason::InvalidNumber | Reason::NoNumber)
    );
    let phone = revealed
        .filter(|revealed| text("id") == Some(&revealed.delivery_id))
        .map(|revealed| &revealed.phone);
    let added = json!({
        "explanation": explanation,
        "shown_phone": phone,
        "can_cancel": state.is_owed(),
        "can_resend": has_number && !state.is_owed() && state != State::Sending,
    });
    if let (Some(delivery), Value::Object(added)) = (delivery.as_object_mut(), added) {
        delivery.extend(added);
    }
}
