//! The composition root: `settings` reads the whole configuration, `parts` makes the modules' parts of it, `serve` runs them
//! together and stops them in order. What commands do with the same parts stands in `commands` and `transfer`; `admin` is how
//! they ask the admin API.

mod admin;
mod commands;
mod parts;
mod serve;
mod settings;
mod transfer;

pub use admin::{Access, Admin, AdminError, Answer, Content};
pub use commands::{nightly, send_test_mail};
pub use parts::load_templates;
pub use serve::{Role, serve};
pub use settings::{Loaded, load};
pub use transfer::{backup, export, import, migrate};
