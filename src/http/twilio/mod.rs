//! What Twilio calls: `signed` proves that it was Twilio, whatever it calls for; `receipts` takes status callbacks,
//! `inbound` what people text us.

mod signed;

pub mod inbound;
pub mod receipts;
