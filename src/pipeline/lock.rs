//! One process at a time works on a run; shard workers share it.
//!
//! The operating system holds the lock for as long as the process lives, and
//! for as long as a worker lives that it started: a killed process leaves no
//! lock behind, but none comes before its worker has stopped.

use std::fs::TryLockError;
use std::io::{self, Read, Write};
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Lock {
    /// Lets the processes that are started from here on hold the lock, too: it
    /// is free when the last of them has ended.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn pass_on(&self) -> io::Result<()> {
        #[cfg(unix)]
        rustix::io::fcntl_setfd(self.file.file(), rustix::io::FdFlags::empty())?;
        Ok(())
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Process number.
    pub pid: u32,
    /// Machine name.
    pub host: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

impl Holder {
    /// Whether the process is known to be gone. What holds its lock then is a
    /// worker that will stop.
    pub fn is_gone(&self) -> bool {
        let here = this_process();
        let processes = Path::new("/proc");
        self.host == here.host
            && processes.join(here.pid.to_string()).exists()
            && !processes.join(self.pid.to_string()).exists()
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} on {} since {}",
            self.pid,
            self.host,
            self.since.strftime("%F %T UTC")
        )
    }
}

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else works on the run.
    #[error("the run is in use by {}", holder.as_ref().map_or_else(|| "another process".to_owned(), Holder::to_string))]
    Held {
        /// Who, when that could be read.
        holder: Option<Holder>,
    },
    /// The lock file could not be opened or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the run for this process alone.
///
/// # Errors
///
/// [`LockError::Held`] at once when another process has it.
pub fn exclusive(path: &Path) -> Result<Lock, LockError> {
    let mut file = open(path)?;
    match file.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(&mut file)),
        Err(TryLockError::Error(err)) => return Err(err.into()),
    }
    file.file().set_len(0)?;
    serde_json::to_writer(&mut file, &this_process()).map_err(io::Error::from)?;
    file.flush()?;
    Ok(Lock { file })
}

/// Joins the shard workers of a run.
///
/// # Errors
///
/// [`LockError::Held`] at once when a process has the run for itself.
pub fn shared(path: &Path) -> Result<Lock, LockError> {
    let mut file = open(path)?;
    match file.file().try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(&mut file)),
        Err(TryLockError::Error(err)) => return Err(err.into()),
    }
    // Whoever had the run for itself is gone; of several, none is named.
    file.file().set_len(0)?;
    Ok(Lock { file })
}

/// Who has the run, if anybody; writes nothing.
///
/// Nothing tells whether a file is locked but trying to, so for an instant
/// nobody else can take it.
pub fn held_by(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    if !matches!(file.file().try_lock(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let LockError::Held { holder } = held(&mut file) else { return None };
    Some(holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string()))
}

/// Waits for a lock that is never held for long.
///
/// # Errors
///
/// If the lock file cannot be opened.
pub fn briefly(path: &Path) -> io::Result<Lock> {
    let file = open(path)?;
    file.file().lock()?;
    Ok(Lock { file })
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::create_dir_all(crate::fs::parent(path))?;
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn held(file: &mut fs::File) -> LockError {
    let mut text = String::new();
    let holder = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    LockError::Held { holder }
}

fn this_process() -> Holder {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Holder { pid: std::process::id(), host: host.trim().to_owned(), since: jiff::Timestamp::now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = exclusive(&path).unwrap();
        let Err(LockError::Held { holder: Some(holder) }) = exclusive(&path) else {
            panic!("two processes hold one run")
        };
        assert_eq!(holder.pid, std::process::id());
        assert!(matches!(shared(&path), Err(LockError::Held { .. })));
        drop(first);
        exclusive(&path).unwrap();
    }

    #[test]
    fn shard_workers_share_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(exclusive(&path).unwrap());
        let _first = shared(&path).unwrap();
        let _second = shared(&path).unwrap();
        assert!(matches!(exclusive(&path), Err(LockError::Held { holder: None })));
    }
}
