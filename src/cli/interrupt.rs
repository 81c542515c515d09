//! The wish to stop, and who had it.

use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit_code::ExitCode;

/// The signal that asked this process to stop; 0 until one does.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// Makes SIGINT and SIGTERM a polite request; a second one ends the process.
///
/// SIGHUP keeps its meaning, for `nohup` relies on it. A run survives the end
/// of its terminal as it survives any other death.
pub(super) fn listen() {
    // Fails only where the system has no room for it, and then the default is fine.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if ASKED.swap(signal, Ordering::Relaxed) != 0 {
                #[expect(clippy::exit, reason = "asked twice; a run survives being killed")]
                std::process::exit(128 + signal);
            }
        }
    });
}

/// Whether somebody asked this process to stop.
pub(super) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed) != 0
}

/// Asks this process to stop, as SIGTERM does.
#[cfg(feature = "torch")]
pub(super) fn ask() {
    ASKED.store(SIGTERM, Ordering::Relaxed);
}

/// How a process ends that stopped because it was asked to.
pub(super) fn exit_code() -> ExitCode {
    match ASKED.load(Ordering::Relaxed) {
        SIGTERM => ExitCode::Terminated,
        _ => ExitCode::Interrupted,
    }
}
