//! How a run looks while it runs: bars on a terminal, plain lines elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::say;
use super::{duration, interrupt};
use crate::progress::{Event, Observer};
use crate::stage::Stage;

/// How often a plain log tells progress.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

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
        interrupt::is_asked()
    }
}

impl State {
    fn tell(&mut self, event: Event) {
        match event {
            Event::StageStarted { stage, reason } => {
                self.line(&format!("{stage:<10} started ({reason})"));
                self.open_bar(stage.name());
            }
            Event::StageUnchanged { stage } => self.line(&format!("{stage:<10} unchanged")),
            Event::WarmupKept { growth } => self.line(&format!(
                "{:<10} kept ({:.1} % of the pool is newer)",
                Stage::Warmup,
                100.0 * growth
            )),
            Event::Progress { stage, what, done, total, unit } => {
                self.progress(stage.name(), &what, done, total, &unit);
            }
            Event::Fetch { model, file, done, total } => self.fetch(&model, &file, done, total),
            Event::WarmupStep { epoch, step, loss, learning_rate, gradient_norm } => {
                self.line(&format!(
                    "{:<10} epoch {epoch}, step {step}: loss {loss:.4}, learning rate \
                     {learning_rate:.2e}, gradient norm {gradient_norm:.3}",
                    Stage::Warmup
                ));
            }
            Event::TrialsPlanned { n_trials, n_done, .. } if n_done == n_trials => {
                self.line(&format!("verify     {n_trials} trials, all of them done"));
            }
            Event::TrialsPlanned { n_trials, n_done, n_tokens, seconds } => {
                let time = seconds.map_or_else(String::new, |s| format!(", about {}", duration(s)));
                self.line(&format!(
                    "verify     {n_trials} trials, {n_done} of them done; {n_tokens} tokens to train on{time}"
                ));
                self.open_bar("verify");
            }
            Event::Trial { contender, number, n_trials, step, n_steps } => {
                let what = format!("{contender}, trial {number}/{n_trials}");
                self.progress("verify", &what, step, n_steps, "steps");
            }
            Event::StageFinished { stage, seconds, summary } => {
                self.bar.finish_and_clear();
                self.line(&format!("{stage:<10} {summary} ({seconds:.1} s)"));
            }
            Event::Warning { message } => self.line(&format!("warning: {message}")),
        }
    }

    fn open_bar(&mut self, name: &str) {
        // indicatif hides it by itself where there is no terminal.
        let style = ProgressStyle::with_template(
            "{prefix:<10} {bar:30} {pos}/{len} {msg} · {per_sec} · {eta} left",
        );
        self.bar = ProgressBar::new(0).with_prefix(name.to_owned());
        if let Ok(style) = style {
            self.bar.set_style(style);
        }
        self.told = Instant::now();
    }

    fn fetch(&mut self, model: &str, file: &str, done: u64, total: u64) {
        const MEGABYTE: u64 = 1_000_000;
        if self.bar.length() != Some(total / MEGABYTE) {
            self.open_bar("model");
        }
        self.progress(
            "model",
            &format!("{model}, {file}"),
            done / MEGABYTE,
            total / MEGABYTE,
            "MB",
        );
        if done == total {
            self.bar.finish_and_clear();
        }
    }

    fn progress(&mut self, name: &str, what: &str, done: u64, total: u64, unit: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(format!("{unit} ({what})"));
        if self.bar.is_hidden() && self.told.elapsed() >= PLAIN_INTERVAL {
            self.told = Instant::now();
            self.line(&format!("{name:<10} {done}/{total} {unit} ({what})"));
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }
}
