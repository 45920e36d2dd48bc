//! Moves a whole process in time with Debian's libfaketime: its wall clock reads what the story says, its timers run on.

use super::{database::Folder, left_out};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering},
};

/// A clock that a story turns.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
    ahead_s: AtomicI64,
}

impl Clock {
    /// A clock that reads `start` now and goes on from there, or `None` if libfaketime is not on this machine.
    pub fn starting(start: &str, folder: &Folder, story: &str) -> Option<Self> {
        let Some(library) = find_library() else {
            left_out("faketime", story);
            return None;
        };
        let clock = Self {
            library,
            file: folder.path().join("clock"),
            ahead_s: AtomicI64::new(0),
        };
        clock.turn_to(start);
        Some(clock)
    }

    /// Turns the clock to a UTC time like `2026-11-20 23:50:00`.
    pub fn turn_to(&self, time: &str) {
        let wanted: jiff::Timestamp = format!("{}Z", time.replace(' ', "T")).parse().unwrap();
        self.turn_by(wanted.duration_since(jiff::Timestamp::now()).as_secs());
    }

    /// Turns the clock so many seconds away from the real one.
    pub fn turn_by(&self, offset: i64) {
        // Replaced in one step, so that the process never reads half a line.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset:+}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
        self.ahead_s.store(offset, Ordering::Relaxed);
    }

    /// How many seconds it is ahead of the real time.
    pub fn ahead_s(&self) -> i64 {
        self.ahead_s.load(Ordering::Relaxed)
    }

    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".into(), self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.display().to_string()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ]
    }
}

fn find_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}
