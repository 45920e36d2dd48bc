//! What Twilio calls: `signed` proves that it was Twilio, whatever it calls for; `receipts` takes status callbacks.

mod signed;

pub mod receipts;
