//! How the log looks.

use super::reader::Reader;

pub struct Log {
    pub json: bool,
    pub filter: String,
}

impl Log {
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            json: reader.choice("log.format", "text", &[("text", false), ("json", true)]),
            filter: reader.text("log.filter").unwrap_or_else(|| "info".into()),
        }
    }
}
