//! `events.jsonl`: everything a run told, with the time it was told.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

use fs_err as fs;
use serde::Serialize;

use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;

/// Writes events to the run directory and passes them on.
pub struct EventLog<'a> {
    file: Mutex<fs::File>,
    next: &'a dyn Observer,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: jiff::Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl<'a> EventLog<'a> {
    /// Opens the log of `run` for appending.
    ///
    /// # Errors
    ///
    /// If the run directory cannot be written.
    pub fn open(run: &RunDir, next: &'a dyn Observer) -> std::io::Result<Self> {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).read(true).open(run.events())?;
        // A process that was killed may have left half a line.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self { file: Mutex::new(file), next })
    }
}

impl Observer for EventLog<'_> {
    fn notify(&self, event: Event) {
        let entry = Entry { time: jiff::Timestamp::now(), event: &event };
        if let (Ok(mut line), Ok(mut file)) = (serde_json::to_vec(&entry), self.file.lock()) {
            line.push(b'\n');
            // A log that cannot be written is no reason to lose the run.
            let _ = file.write_all(&line);
        }
        self.next.notify(event);
    }

    fn is_interrupted(&self) -> bool {
        self.next.is_interrupted()
    }
}
