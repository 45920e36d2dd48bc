//! How SMS are made of events. How they are sent is said for every channel alike (see `channel`).

use super::reader::Reader;
use crate::domain::{
    message::{Alphabet, Rules},
    phone::Region,
};

/// How SMS are made.
pub struct Sms {
    pub rules: Rules,
    pub default_region: Region,
}

impl Sms {
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            rules: Rules {
                max_segments: reader.number("sms.max_segments", 4, 1, 24),
                alphabet: reader.choice(
                    "sms.encoding",
                    "auto",
                    &[("auto", Alphabet::Auto), ("gsm", Alphabet::Gsm)],
                ),
            },
            default_region: reader.parsed_with("sms.default_region", "US", "a country code like `DE`", Region::parse),
        }
    }
}
