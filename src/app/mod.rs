//! The composition root: `settings` reads the whole configuration, `parts` makes the modules' parts of it and `notifiers` what
//! posts events, `serve` runs them together and stops them in order. What commands do with the same parts stands in
//! `commands` and `transfer`; `admin` is how they ask the admin API, and `take_over` what they ask of it for what was there before; `demo` is a service with a carrier that is played.

mod admin;
mod commands;
mod demo;
mod notifiers;
mod parts;
mod serve;
mod settings;
mod take_over;
mod transfer;

pub use admin::{Access, Admin, AdminError, Answer, Content};
pub use commands::{nightly, send_test_mail};
pub use demo::demo;
pub use parts::load_templates;
pub use serve::{Role, serve};
pub use settings::{Loaded, load, load_file};
pub use take_over::{Part, TakeOver, TakenOver};
pub use transfer::{backup, export, import, migrate};
