//! How a run looks while it runs: bars on a terminal, plain lines elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::{Event, Observer};
use crate::stage::Stage;

/// Set by SIGINT, SIGTERM, or a parent that went away.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a plain log tells progress.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Makes SIGINT and SIGTERM a polite request; a second one ends the process.
pub(super) fn listen_for_interrupts() {
    let ask = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice; a run survives being killed")]
            std::process::exit(130);
        }
    };
    // Fails only if a handler is set already, and then the default is fine.
    let _ = ctrlc::set_handler(ask);
}

/// Whether somebody asked this process to stop.
pub(super) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Asks this process to stop.
#[cfg(feature = "torch")]
pub(super) fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Tells events to a person on standard error.
pub(super) struct Teller {
    quiet: bool,
    state: Mutex<State>,
}

struct State {
    bar: ProgressBar,
    told: Instant,
}

impl Teller {
    /// Bars if standard error is a terminal; silent but for warnings if `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            state: Mutex::new(State { bar: ProgressBar::hidden(), told: Instant::now() }),
        }
    }
}

impl Observer for Teller {
    fn notify(&self, event: Event) {
        if self.quiet && !matches!(event, Event::Warning { .. }) {
            return;
        }
        if let Ok(mut state) = self.state.lock() {
            state.tell(event);
        }
    }

    fn is_interrupted(&self) -> bool {
        is_interrupted()
    }
}

impl State {
    fn tell(&mut self, event: Event) {
        match event {
            Event::StageStarted { stage, reason } => {
                self.line(&format!("{stage:<10} started ({reason})"));
                self.open_bar(stage);
            }
            Event::StageUnchanged { stage } => self.line(&format!("{stage:<10} unchanged")),
            Event::Progress { stage, what, done, total, unit } => {
                self.progress(stage, &what, done, total, &unit);
            }
            Event::WarmupStep { epoch, step, loss, learning_rate, gradient_norm } => {
                self.line(&format!(
                    "{:<10} epoch {epoch}, step {step}: loss {loss:.4}, learning rate \
                     {learning_rate:.2e}, gradient norm {gradient_norm:.3}",
                    Stage::Warmup
                ));
            }
            Event::StageFinished { stage, seconds, summary } => {
                self.bar.finish_and_clear();
                self.line(&format!("{stage:<10} {summary} ({seconds:.1} s)"));
            }
            Event::Warning { message } => self.line(&format!("warning: {message}")),
        }
    }

    fn open_bar(&mut self, stage: Stage) {
        // indicatif hides it by itself where there is no terminal.
        let style = ProgressStyle::with_template(
            "{prefix:<10} {bar:30} {pos}/{len} {msg} · {per_sec} · {eta} left",
        );
        self.bar = ProgressBar::new(0).with_prefix(stage.name());
        if let Ok(style) = style {
            self.bar.set_style(style);
        }
        self.told = Instant::now();
    }

    fn progress(&mut self, stage: Stage, what: &str, done: u64, total: u64, unit: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(format!("{unit} ({what})"));
        if self.bar.is_hidden() && self.told.elapsed() >= PLAIN_INTERVAL {
            self.told = Instant::now();
            self.line(&format!("{stage:<10} {done}/{total} {unit} ({what})"));
        }
    }

    #[expect(clippy::print_stderr, reason = "this is where the program speaks")]
    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}
