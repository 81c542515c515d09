//! Worker processes: one alone for a stage, or one a device for gradients.
//!
//! With several devices every worker computes its part of the shards, with its part of the threads.
//! One that dies (killed, out of memory, a fault in libtorch) is told of with
//! its reason and started again: it goes on where it ended. When it dies a
//! second time at the same shard, the stage fails and the others stop.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::stores::RunStore;
use super::worker::{self, WorkerError};
use super::{PipelineError, Run};
use crate::compute::Device;
use crate::config::Config;
use crate::fs::remove_unfinished;
use crate::gradient::shard_plan::Part;
use crate::progress::{Event, Observer};

impl Run<'_> {
    /// Has the only worker of the run do a task. One that dies is started once more: it
    /// takes up what it left.
    pub(super) fn worker_alone(&self, task: &[&str]) -> Result<Value, PipelineError> {
        let work = || worker::run(self.config, task, self.observer);
        match work() {
            Err(err @ WorkerError::Died { .. }) => {
                // Nobody else writes to the run.
                remove_unfinished(self.dir.root())?;
                let message = format!("{err}; it is started again and goes on where it ended");
                self.observer.notify(Event::Warning { message });
                Ok(work()?)
            }
            result => Ok(result?),
        }
    }
}

/// Computes what `stores` lack of the shards of `part`. Tells whether a worker died and
/// left what it was writing.
pub(super) fn gradient_shards(
    run: &Run<'_>,
    stores: &[RunStore],
    part: Part,
) -> Result<bool, PipelineError> {
    if stores.iter().all(|store| store.n_missing() == 0) {
        return Ok(false);
    }
    let devices = &run.config.devices;
    let n_workers = NonZeroUsize::new(devices.len()).expect("settings name a device");
    let lanes = Lanes::new(run.observer, n_workers.get());
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |(index, device): (usize, &Device)| {
            let config = run.config.for_worker(*device, threads_of(run.config, index, n_workers));
            let (lanes, part) = (&lanes, part.nested(index, n_workers));
            scope.spawn(move || {
                let lane = Lane { lanes, index };
                let result = Worker { run, stores, config, part, lane }.work();
                if result.is_err() {
                    lanes.is_over.store(true, Ordering::Relaxed);
                }
                result
            })
        };
        let workers: Vec<_> = devices.iter().enumerate().map(start).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker's thread reports"))
            .collect()
    });
    // One failure stops the others, which is none of theirs.
    let is_cause = |err: &PipelineError| {
        !matches!(err, PipelineError::Interrupted) || run.observer.is_interrupted()
    };
    let has_died = lanes.has_died.into_inner();
    results.into_iter().filter_map(Result::err).find(is_cause).map_or(Ok(has_died), Err)
}

/// A worker's share of the threads, at least one.
fn threads_of(config: &Config, index: usize, n_workers: NonZeroUsize) -> NonZeroUsize {
    let all = config.compute.threads.or_else(|| std::thread::available_parallelism().ok());
    let all = all.map_or(1, NonZeroUsize::get);
    let share = all / n_workers + usize::from(index < all % n_workers);
    NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN)
}

/// One device's worker, over as many processes as it takes.
struct Worker<'a> {
    run: &'a Run<'a>,
    stores: &'a [RunStore],
    config: Config,
    part: Part,
    lane: Lane<'a>,
}

impl Worker<'_> {
    fn work(&self) -> Result<(), PipelineError> {
        let dir = self.run.dir.root().display().to_string();
        let task = ["gradients", "--run", &dir, "--shard", &self.part.to_string()];
        let mut ended_at = None;
        loop {
            match worker::run(&self.config, &task, &self.lane) {
                Ok(_) => return Ok(()),
                Err(err @ WorkerError::Died { .. }) => {
                    let n_committed =
                        self.stores.iter().map(|store| store.n_committed(self.part)).sum::<usize>();
                    if ended_at == Some(n_committed) {
                        return Err(err.into());
                    }
                    ended_at = Some(n_committed);
                    self.lane.lanes.has_died.store(true, Ordering::Relaxed);
                    let message = format!("{err}; it is started again and goes on where it ended");
                    self.lane.notify(Event::Warning { message: self.about(&message) });
                }
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// Names the worker where there are several.
    fn about(&self, message: &str) -> String {
        match self.run.config.devices.len() {
            1 => message.to_owned(),
            _ => format!("on `{}`: {message}", self.config.compute.device),
        }
    }
}

/// What all workers tell, as the progress of one stage.
struct Lanes<'a> {
    observer: &'a dyn Observer,
    /// Units done and in all, one a worker.
    progress: Mutex<Vec<(u64, u64)>>,
    /// Whether a worker failed for good.
    is_over: AtomicBool,
    /// Whether one died and was started again.
    has_died: AtomicBool,
}

impl<'a> Lanes<'a> {
    fn new(observer: &'a dyn Observer, n_workers: usize) -> Self {
        Self {
            observer,
            progress: Mutex::new(vec![(0, 0); n_workers]),
            is_over: AtomicBool::new(false),
            has_died: AtomicBool::new(false),
        }
    }
}

/// One worker's place among them.
struct Lane<'a> {
    lanes: &'a Lanes<'a>,
    index: usize,
}

impl Observer for Lane<'_> {
    fn notify(&self, event: Event) {
        let event = match event {
            Event::Progress { stage, what, done, total, unit } => {
                let mut progress =
                    self.lanes.progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress[self.index] = (done, total);
                let done = progress.iter().map(|(done, _)| done).sum();
                let total = progress.iter().map(|(_, total)| total).sum();
                Event::Progress { stage, what, done, total, unit }
            }
            event => event,
        };
        self.lanes.observer.notify(event);
    }

    fn is_interrupted(&self) -> bool {
        self.lanes.is_over.load(Ordering::Relaxed) || self.lanes.observer.is_interrupted()
    }
}
