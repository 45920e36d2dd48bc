//! Acknowledging an alert by a reply. A stand-in with the types of the real one, which knows nothing that is open.

use super::{error::StoreError, tx::Tx};
use crate::domain::{
    id::{AlertId, DeliveryId},
    phone::PhoneNumber,
};
use jiff::Timestamp;

/// What an acknowledgement does beside.
#[derive(Clone, Copy, Debug)]
pub struct AcknowledgeRules {
    pub cancels_others: bool,
}

/// What a reply by which a person wants to acknowledge led to.
pub enum ByReply {
    /// This alert is acknowledged by it.
    Acknowledged { alert: ToldAlert },
    /// Somebody was first (perhaps this very person).
    Already {
        alert: ToldAlert,
        by: Option<String>,
        by_self: bool,
        at: Timestamp,
    },
    /// The ticket is no longer critical.
    Closed { alert: ToldAlert },
    /// Several are open: each with its code (made now, if it has none).
    Several(Vec<(ToldAlert, String)>),
    /// No alert that this phone was told of has this code; these are open.
    WrongCode(Vec<(ToldAlert, String)>),
    /// This phone was told of nothing that is open (7 days).
    Nothing,
}

/// An alert as the person was told of it.
pub struct ToldAlert {
    pub alert_id: AlertId,
    pub delivery_id: DeliveryId,
    pub ticket_number: Option<String>,
    pub ticket_id: String,
    pub subject: Option<String>,
}

/// Whether a bare word of three characters is a code of this phone (open or late): only then it is an acknowledgement.
pub async fn is_code(_tx: &mut Tx, _phone: &PhoneNumber, _code: &str) -> Result<bool, StoreError> {
    Ok(false)
}

/// Acknowledges by a reply from this phone; `code` already in upper case.
pub async fn by_reply(
    _tx: &mut Tx,
    _phone: &PhoneNumber,
    _code: Option<&str>,
    _rules: AcknowledgeRules,
    _now: Timestamp,
) -> Result<ByReply, StoreError> {
    Ok(ByReply::Nothing)
}
