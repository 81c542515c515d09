use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::training_step::Trainer;
use super::*;
use crate::checkpoint::{Checkpoint, LoraSettings, checkpoints_in};
use crate::compute::{ComputeSettings, Dtype};
use crate::gradient::collect::ExampleSource;
use crate::gradient::direction::Moments;
use crate::model::{LoraDecoder, flat};
use crate::pool::table::TableRow;
use crate::pool::{Example, ExampleId, PoolError};
use crate::progress::{Event, Observer, Silent};
use crate::seed::Seed;

fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// The pool of the goldens, in their order.
fn golden_pool() -> Vec<Example> {
    let examples = json(&tests_dir().join("goldens/examples.json"));
    let example = |example: &Value| {
        let token_ids: Vec<u32> = serde_json::from_value(example["token_ids"].clone()).unwrap();
        let supervised: Vec<bool> = serde_json::from_value(example["supervised"].clone()).unwrap();
        Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
    };
    examples["pool"].as_array().unwrap().iter().map(example).collect()
}

/// A table in memory.
struct Pool {
    rows: Vec<TableRow>,
    examples: Vec<Example>,
}

impl Pool {
    fn new(mut examples: Vec<Example>) -> Self {
        examples.sort_by_key(|example| example.id);
        let row = |example: &Example| TableRow {
            id: example.id,
            source: "pool".to_owned(),
            subtask: None,
            n_tokens: example.token_ids.len() as u32,
            n_supervised: example.n_supervised() as u32,
            truncated: false,
        };
        Self { rows: examples.iter().map(row).collect(), examples }
    }
}

impl ExampleSource for Pool {
    fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        Ok(positions.iter().map(|at| self.examples[*at].clone()).collect())
    }
}

fn tiny_llama(lora: &LoraSettings) -> LoraDecoder {
    // One thread: the model is small, and tests run side by side.
    let threads = Some(NonZeroUsize::MIN);
    let compute = ComputeSettings { threads, ..ComputeSettings::cpu(Dtype::F32) };
    LoraDecoder::load(&tests_dir().join("fixtures/tiny-llama"), lora, &compute).unwrap()
}

fn lora(dropout: f64) -> LoraSettings {
    let targets = ["q_proj", "v_proj", "down_proj"].map(str::to_owned).to_vec();
    LoraSettings { rank: 4, alpha: 8.0, dropout, targets }
}

fn settings() -> WarmupSettings {
    WarmupSettings {
        share: 1.0,
        min_rows: 1,
        epochs: 2,
        batch_size: 4,
        learning_rate: 0.02,
        schedule: Schedule::Linear,
        warmup_ratio: 0.1,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
    }
}

/// A warm-up on the goldens' pool, into `dir`.
fn warm_up(
    dir: &Path,
    dropout: f64,
    settings: &WarmupSettings,
    observer: &dyn Observer,
) -> Result<Summary, WarmupError> {
    warm_up_from(Seed(0), dir, dropout, settings, observer)
}

fn warm_up_from(
    seed: Seed,
    dir: &Path,
    dropout: f64,
    settings: &WarmupSettings,
    observer: &dyn Observer,
) -> Result<Summary, WarmupError> {
    let mut model = tiny_llama(&lora(dropout));
    train(&mut model, &Pool::new(golden_pool()), settings, seed, output(dir), observer)
}

/// The output of a training that is too short for snapshots, unless it is
/// stopped.
fn output(dir: &Path) -> Output<'_> {
    Output { dir, made_from: "this", interval: Duration::from_hours(1) }
}

/// Adapter, moments and log, as bytes.
fn files(dir: &Path) -> Vec<Vec<u8>> {
    ["adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json"]
        .map(|file| fs_err::read(dir.join(file)).unwrap())
        .to_vec()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    let largest = |values: &[f32]| values.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let error = largest(&difference) / largest(expected);
    assert!(error <= tolerance, "relative error {error}");
}

#[test]
fn an_epoch_taken_up_from_a_checkpoint_of_peft_ends_at_its_next() {
    let checkpoints = checkpoints_in(&tests_dir().join("fixtures/tiny-checkpoints")).unwrap();
    let [first, second] = &checkpoints[..] else { panic!("two checkpoints") };
    let mut model = tiny_llama(first.lora());
    let layout = model.layout().clone();
    model.set_adapter(&first.adapter(&layout).unwrap());
    let settings = settings();
    // Fewer tokens than a step has: gradients are accumulated.
    model.batch_tokens = 40;
    let mut trainer = Trainer::new(&model, &settings, Seed(0));
    trainer.take_up(&first.moments(&layout).unwrap());
    let pool = golden_pool();
    let log = json(&second.dir().join("trainer_state.json"));
    for (step, rows) in (3..6).zip(pool.chunks(4)) {
        let entry = &log["log_history"][step];
        let rate = entry["learning_rate"].as_f64().unwrap();
        let outcome = trainer.step(&rows.iter().collect::<Vec<_>>(), rate).unwrap();
        let logged = |key: &str| entry[key].as_f64().unwrap();
        approx::assert_relative_eq!(outcome.loss, logged("loss"), max_relative = 1e-5);
        approx::assert_relative_eq!(
            outcome.gradient_norm,
            logged("grad_norm"),
            max_relative = 1e-4
        );
    }
    assert_close(&trainer.adapter(), &second.adapter(&layout).unwrap(), 1e-4);
    let Moments { rule, exp_avg, exp_avg_sq } = second.moments(&layout).unwrap();
    assert_eq!(trainer.moments().rule, rule);
    assert_close(&trainer.moments().exp_avg, &exp_avg, 1e-4);
    assert_close(&trainer.moments().exp_avg_sq, &exp_avg_sq, 1e-4);
}

#[test]
fn the_loss_falls_and_every_epoch_leaves_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let settings = WarmupSettings { epochs: 6, ..settings() };
    let summary = warm_up(dir.path(), 0.1, &settings, &Silent).unwrap();
    assert_eq!((summary.n_rows, summary.n_steps), (12, 18));
    assert!(summary.last_loss < 0.8 * summary.first_loss, "{summary}");
    let checkpoints = checkpoints_in(dir.path()).unwrap();
    let labels: Vec<&str> = checkpoints.iter().map(Checkpoint::label).collect();
    assert_eq!(labels, ["epoch-1", "epoch-2", "epoch-3", "epoch-4", "epoch-5", "epoch-6"]);
    assert!(checkpoints[4].learning_rate() > checkpoints[5].learning_rate());
    assert_eq!(json(&checkpoints[5].dir().join("trainer_state.json"))["global_step"], 18);
}

#[test]
fn an_equal_warm_up_gives_equal_bytes_and_another_seed_others() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for (dir, seed) in dirs.iter().zip([0, 0, 1]) {
        warm_up_from(Seed(seed), dir.path(), 0.5, &settings(), &Silent).unwrap();
    }
    let [first, again, other] = dirs.each_ref().map(|dir| files(&dir.path().join("epoch-2")));
    assert!(first == again);
    assert!(first != other);
}

#[test]
fn a_shorter_warm_up_leaves_no_epoch_of_a_longer_one() {
    let dir = tempfile::tempdir().unwrap();
    warm_up(dir.path(), 0.0, &settings(), &Silent).unwrap();
    warm_up(dir.path(), 0.0, &WarmupSettings { epochs: 1, ..settings() }, &Silent).unwrap();
    assert_eq!(checkpoints_in(dir.path()).unwrap().len(), 1);
}

#[test]
fn the_share_of_the_pool_is_what_is_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let example = |n: u32| {
        let (token_ids, supervised) = (vec![n, n + 1, n + 2], vec![false, true, true]);
        Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
    };
    let pool = Pool::new((0..80).map(example).collect());
    let settings = WarmupSettings { share: 0.85, epochs: 1, ..settings() };
    let mut model = tiny_llama(&lora(0.0));
    let summary =
        train(&mut model, &pool, &settings, Seed(0), output(dir.path()), &Silent).unwrap();
    assert_eq!((summary.n_rows, summary.n_steps), (68, 17));
    insta::assert_snapshot!(
        Summary { first_loss: 2.5, last_loss: 2.25, ..summary },
        @"68 rows, 17 steps, loss 2.500 in the first epoch and 2.250 in the last"
    );
}

#[test]
fn an_empty_pool_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = tiny_llama(&lora(0.0));
    let pool = Pool::new(Vec::new());
    let error = train(&mut model, &pool, &settings(), Seed(0), output(dir.path()), &Silent);
    assert!(matches!(error, Err(WarmupError::EmptyPool)));
}

#[test]
fn a_training_that_comes_apart_names_step_and_rows() {
    let dir = tempfile::tempdir().unwrap();
    let settings = WarmupSettings { learning_rate: 1e30, warmup_ratio: 0.0, ..settings() };
    let error = warm_up(dir.path(), 0.0, &settings, &Silent).unwrap_err();
    let WarmupError::NotFinite { step, rows, .. } = &error else { panic!("{error}") };
    assert_eq!(*step, 2);
    assert!(!rows.is_empty() && error.to_string().contains(&rows[0].to_string()), "{error}");
    assert!(checkpoints_in(dir.path()).is_err(), "no checkpoint of a broken epoch");
}

/// Keeps events and asks to stop after a number of steps.
struct Impatient {
    events: Mutex<Vec<Event>>,
    n_steps: AtomicU64,
    stop_after: u64,
}

impl Impatient {
    fn new(stop_after: u64) -> Self {
        Self { events: Mutex::default(), n_steps: AtomicU64::new(0), stop_after }
    }
}

impl Observer for Impatient {
    fn notify(&self, event: Event) {
        if matches!(event, Event::WarmupStep { .. }) {
            self.n_steps.fetch_add(1, Ordering::Relaxed);
        }
        self.events.lock().unwrap().push(event);
    }

    fn is_interrupted(&self) -> bool {
        self.n_steps.load(Ordering::Relaxed) == self.stop_after
    }
}

#[test]
fn an_interrupted_warm_up_keeps_its_whole_epochs_and_has_told_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let observer = Impatient::new(4);
    let error = warm_up(dir.path(), 0.0, &settings(), &observer).unwrap_err();
    assert!(matches!(error, WarmupError::Interrupted));
    assert_eq!(checkpoints_in(dir.path()).unwrap().len(), 1);
    let events = observer.events.lock().unwrap();
    assert_eq!(events.len(), 8);
    let Event::WarmupStep { epoch, step, learning_rate, .. } = events[6] else { panic!() };
    assert_eq!((epoch, step), (2, 4));
    approx::assert_relative_eq!(learning_rate, 0.02 * 3.0 / 5.0, max_relative = 1e-12);
    let Event::Progress { done, total, .. } = events[7] else { panic!() };
    assert_eq!((done, total), (4, 6));
}

/// Every file that a warm-up leaves, by path.
fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.insert(path.clone(), fs_err::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_stopped_warm_up_goes_on_to_the_bytes_of_an_undisturbed_one() {
    let dir = tempfile::tempdir().unwrap();
    warm_up(dir.path(), 0.5, &settings(), &Silent).unwrap();
    let whole = all_files(dir.path());
    for stop_after in 1..6 {
        fs_err::remove_dir_all(dir.path()).unwrap();
        let stopped = warm_up(dir.path(), 0.5, &settings(), &Impatient::new(stop_after));
        assert!(matches!(stopped, Err(WarmupError::Interrupted)));
        // It does not stop again: it has fewer steps to do.
        let rest = Impatient::new(6 - stop_after + 1);
        warm_up(dir.path(), 0.5, &settings(), &rest).unwrap();
        let n_steps = rest.n_steps.load(Ordering::Relaxed);
        assert_eq!(n_steps, 6 - stop_after, "no step is done twice");
        assert!(all_files(dir.path()) == whole, "stopped after {stop_after}");
    }
}

#[test]
fn a_snapshot_that_is_damaged_or_of_another_training_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let stop = || warm_up(dir.path(), 0.0, &settings(), &Impatient::new(4)).unwrap_err();
    let n_steps = |made_from: &str| {
        let (mut model, observer) = (tiny_llama(&lora(0.0)), Impatient::new(99));
        let output = Output { made_from, ..output(dir.path()) };
        let pool = Pool::new(golden_pool());
        train(&mut model, &pool, &settings(), Seed(0), output, &observer).unwrap();
        observer.n_steps.into_inner()
    };
    stop();
    assert_eq!(n_steps("this"), 2);
    stop();
    assert_eq!(n_steps("another"), 6);
    stop();
    let adapter = dir.path().join("unfinished/adapter_model.safetensors");
    let mut bytes = fs_err::read(&adapter).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&adapter, bytes).unwrap();
    assert_eq!(n_steps("this"), 6);
    stop();
    fs_err::remove_dir_all(dir.path().join("epoch-1")).unwrap();
    assert_eq!(n_steps("this"), 6, "an epoch's checkpoint is gone");
}

#[test]
fn the_trained_adapter_is_left_on_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = tiny_llama(&lora(0.1));
    let pool = Pool::new(golden_pool());
    train(&mut model, &pool, &settings(), Seed(0), output(dir.path()), &Silent).unwrap();
    let last = checkpoints_in(dir.path()).unwrap().pop().unwrap();
    assert_eq!(flat(&model.adapter.leaves), last.adapter(model.layout()).unwrap());
}

#[test]
fn dropout_hides_inputs_in_training_only() {
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = [0.5, 0.0].map(|dropout| {
        warm_up(dir.path(), dropout, &settings(), &Silent).unwrap();
        files(&dir.path().join("epoch-1"))
    });
    assert!(with != without);
    let model = tiny_llama(&lora(0.5));
    assert_eq!(model.logits(&[3, 4, 5]), model.logits(&[3, 4, 5]));
    assert_eq!(flat(&model.adapter.leaves).len(), model.layout().grad_dim());
}
