//! Gradients on several devices: a worker process each.
//!
//! Every worker computes its part of the shards, with its part of the threads.
//! One that dies (killed, out of memory, a fault in libtorch) is told of with
//! its reason and started again: it goes on where it ended. When it dies a
//! second time at the same shard, the stage fails and the others stop.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::stores::RunStore;
use super::worker::{self, WorkerError};
use super::{PipelineError, Run};
use crate::compute::Device;
use crate::config::Config;
use crate::gradient::shard_plan::Part;
use crate::progress::{Event, Observer};

/// Computes what `stores` lack of the shards of `part`.
pub(super) fn gradient_shards(
    run: &Run<'_>,
    stores: &[RunStore],
    part: Part,
) -> Result<(), PipelineError> {
    if stores.iter().all(|store| store.n_missing() == 0) {
        return Ok(());
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
    results.into_iter().filter_map(Result::err).find(is_cause).map_or(Ok(()), Err)
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
}

impl<'a> Lanes<'a> {
    fn new(observer: &'a dyn Observer, n_workers: usize) -> Self {
        Self {
            observer,
            progress: Mutex::new(vec![(0, 0); n_workers]),
            is_over: AtomicBool::new(false),
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
