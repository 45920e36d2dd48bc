//! How our own types stand in columns: ids and words as text, attempt numbers as a whole number.

use crate::domain::{
    delivery::State,
    id::{AlertId, AttemptNo, DeliveryId},
    mail::MailState,
    phone::PhoneNumber,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Database, Decode, Encode, Type, encode::IsNull, error::BoxDynError};

macro_rules! column {
    ($($name:ty as $column:ty, |$value:ident| $write:expr, |$read:ident| $parse:expr;)+) => {$(
        impl<DB: Database> Type<DB> for $name where $column: Type<DB> {
            fn type_info() -> DB::TypeInfo {
                <$column as Type<DB>>::type_info()
            }

            fn compatible(info: &DB::TypeInfo) -> bool {
                <$column as Type<DB>>::compatible(info)
            }
        }

        impl<'q, DB: Database> Encode<'q, DB> for $name where $column: Encode<'q, DB> {
            fn encode_by_ref(&self, out: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                let $value = self;
                let column: $column = $write;
                column.encode(out)
            }
        }

        impl<'r, DB: Database> Decode<'r, DB> for $name where $column: Decode<'r, DB> {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                let $read = <$column as Decode<'r, DB>>::decode(value)?;
                $parse
            }
        }
    )+};
}

column! {
    AlertId as String, |id| id.as_str().to_owned(), |text| Ok(text.into());
    DeliveryId as String, |id| id.as_str().to_owned(), |text| Ok(text.into());
    AttemptNo as i64, |number| number.0, |number| Ok(Self(number));
    PhoneNumber as String, |phone| phone.as_e164().to_owned(), |text| Ok(Self::from_stored(text));
    MailState as String, |state| state.as_str().to_owned(), |word| MailState::parse(&word).ok_or_else(|| Unknown(word).into());
    Ms as i64, |ms| ms.0, |number| Ok(Self(number));
    MaybeMs as Option<i64>, |ms| ms.0, |number| Ok(Self(number));
    State as String, |state| state.as_str().to_owned(), |word| State::parse(&word).ok_or_else(|| Unknown(word).into());
}

/// How a time stands in a column; for `sqlx(try_from = "Ms")`.
pub struct Ms(i64);

/// The same of a column that may be null.
pub struct MaybeMs(Option<i64>);

impl From<Ms> for Timestamp {
    fn from(Ms(time): Ms) -> Self {
        at(time)
    }
}

impl From<MaybeMs> for Option<Timestamp> {
    fn from(MaybeMs(time): MaybeMs) -> Self {
        time.map(at)
    }
}

/// A word that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// A person who is told of an alert, as callers see them.
#[derive(Clone, Default, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Recipient {
    /// The helpdesk's own id of the person.
    #[schema(required, examples("2"))]
    pub staff_id: Option<String>,
    #[schema(required, examples("assignee"))]
    pub role: Option<String>,
    #[schema(required, examples("Grace Hopper"))]
    pub name: Option<String>,
}

/// A time as the database keeps it.
pub fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A time from the database; one beyond the calendar becomes its end.
pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A new id: sorts by the time it was made.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A new id that sorts as if it had been made then.
pub fn id_made_at(at: Timestamp) -> String {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds);
    uuid::Uuid::new_v7(time).to_string()
}
