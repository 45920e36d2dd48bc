//! How answers name a person who is told of an alert.

use serde::Serialize;

#[derive(Serialize)]
pub struct Recipient {
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
}
