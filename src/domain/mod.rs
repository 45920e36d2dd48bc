//! What Nightbell knows about alerts, people, messages and days. No I/O and no clock: everything decided by
//! time takes the time as an argument, so midnight and daylight saving are plain unit tests.

pub mod ack_link;
pub mod acknowledge;
pub mod alarm;
pub mod answer;
pub mod auto_reply;
pub mod clock;
pub mod database_url;
pub mod day;
pub mod delivery;
pub mod event;
pub mod id;
pub mod inbound;
pub mod json;
pub mod lifecycle;
pub mod mail;
pub mod mapping;
pub mod message;
pub mod nightly;
pub mod phone;
pub mod reply;
pub mod report;
pub mod route;
pub mod search;
pub mod sms;
pub mod source;
pub mod spreadsheet;
pub mod staff;
pub mod text;
pub mod timeline;
pub mod urgency;
pub mod verifier;
pub mod words;
