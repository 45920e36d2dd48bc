//! The staff directory: people whom a helpdesk names without telling their phones. Absent: where it is kept (see `store`).

mod entry;
mod resolve;

pub use entry::{Draft, Groups, Person};
pub use resolve::{Addressee, Found, keys_wanted, named, resolve};
