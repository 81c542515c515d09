//! A run that somebody else works on can be waited for.

use std::path::Path;
use std::time::{Duration, Instant};

use super::PipelineError;
use super::lock::{Lock, LockError};
use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;

/// What a worker whose program was killed takes to stop, at most.
const FOR_A_WORKER: Duration = Duration::from_mins(1);

/// Takes `run`, waiting at most `wait` for whoever has it. Workers that are
/// started from here on hold the lock, too.
pub(super) fn take_run(
    run: &RunDir,
    take: fn(&Path) -> Result<Lock, LockError>,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Lock, PipelineError> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        match take(&run.lock()) {
            Ok(lock) => {
                lock.pass_on()?;
                return Ok(lock);
            }
            Err(LockError::Held { .. }) if observer.is_interrupted() => {
                return Err(PipelineError::Interrupted);
            }
            Err(held) if begin.elapsed() < longest_wait(&held, wait) => {
                if !told {
                    let message = format!("{held}; waiting for it");
                    observer.notify(Event::Warning { message });
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(source) => {
                return Err(PipelineError::Locked { run: run.root().to_owned(), source });
            }
        }
    }
}

fn longest_wait(held: &LockError, wait: Duration) -> Duration {
    match held {
        LockError::Held { holder: Some(holder) } if holder.is_gone() => wait.max(FOR_A_WORKER),
        LockError::Held { .. } => wait,
        LockError::Io(_) => Duration::ZERO,
    }
}
