//! A system clock that a test sets while cloakroom runs: libfaketime between the process and the system.
//!
//! Only what can be set is faked (`CLOCK_REALTIME` and its relatives); the clocks since boot, which timers use too, are the
//! machine's.

use std::path::Path;
use tempfile::TempDir;

/// The system's clock of one process, and how far it is set ahead.
pub struct SystemClock {
    folder: TempDir,
}

impl SystemClock {
    /// One that is right.
    pub fn new() -> Self {
        let clock = Self {
            folder: TempDir::new().unwrap(),
        };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the machine's; at once, and below zero: behind.
    pub fn set(&self, ahead: i64) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("ahead"));
        std::fs::write(&new, format!("{ahead:+}s\n")).unwrap();
        // The process reads the file each time that it asks for the time, and must not find half of it.
        std::fs::rename(new, file).unwrap();
    }

    /// What puts a process under it.
    pub fn environment(&self) -> [(String, String); 4] {
        let library = format!(
            "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
            std::env::consts::ARCH
        );
        assert!(
            Path::new(&library).exists(),
            "{library} is missing: run tests/run, which installs what the tests need"
        );
        let file = self.folder.path().join("ahead");
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

/// Removes what the library leaves in shared memory of a process that was killed.
pub fn clear_up(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _was_there = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}
