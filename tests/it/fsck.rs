//! What `fsck` finds, what it costs to repair, and that no damage passes for
//! a result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use less_select::config::Config;
use less_select::config::layers::Layer;
use less_select::pipeline::fsck::{Condition, Findings, fsck};
use less_select::pipeline::manifest::Manifest;
use less_select::pipeline::state::{StageState, stage_states};
use less_select::pipeline::{PipelineError, Run};
use less_select::progress::Silent;
use less_select::run_dir::RunDir;
use less_select::stage::Stage;

use crate::support::{TestRun, committed_shards};

/// Files that carry no result, or the same one with another duration in it.
const NO_RESULT: [&str; 9] = [
    "events.jsonl",
    "lock",
    "manifest.lock",
    "checksums.json",
    "manifest.json",
    "report.html",
    "report.json",
    "summary.txt",
    "config.toml.damaged",
];

/// A complete run, to be looked at from inside this process.
fn complete_run() -> TestRun {
    let run = TestRun::new(12);
    let path = |name: &str| run.path(name).display().to_string();
    let (pool, target) = (path("pool.jsonl"), path("target.jsonl"));
    let said = run.run(&["--pool", &pool, "--target", &target]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    run
}

fn run_again(run: &TestRun) {
    let path = |name: &str| run.path(name).display().to_string();
    let (pool, target) = (path("pool.jsonl"), path("target.jsonl"));
    let said = run.run(&["--pool", &pool, "--target", &target]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

fn results(run: &TestRun) -> Vec<(String, String)> {
    let mut all = run.checksums("");
    all.retain(|(name, _)| !NO_RESULT.contains(&name.as_str()));
    all
}

fn findings(run: &TestRun) -> Findings {
    fsck(&RunDir::new(run.run_dir()), &Silent).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs_err::write(path, bytes).unwrap();
}

fn flip_the_middle(path: &Path) {
    let middle = fs_err::metadata(path).unwrap().len() / 2;
    flip(path, middle as usize);
}

#[test]
fn a_run_that_was_left_alone_is_whole() {
    let run = complete_run();
    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(said.stdout.matches(" whole\n").count(), 7, "{}", said.stdout);
    assert!(said.stdout.ends_with("nothing is damaged\n"), "{}", said.stdout);
    let said = run.say(&["fsck", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(said["stages"]["score"]["state"], "whole");
    assert_eq!(said["damaged"], serde_json::json!([]));
}

#[test]
fn what_is_missing_or_out_of_date_is_not_damaged() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&["ingest"]).code, 0);
    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(said.stdout.matches(" -\n").count(), 6, "{}", said.stdout);
    assert_eq!(run.run(&[]).code, 0);
    let target = fs_err::read_to_string(run.path("target.jsonl")).unwrap();
    run.write("target.jsonl", target.lines().next().unwrap());
    assert_eq!(run.run(&["ingest"]).code, 0);
    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    let gradients = "gradients  out of date: pool/target.parquet changed";
    assert!(said.stdout.contains(gradients), "{}", said.stdout);
}

#[test]
fn a_repaired_run_has_the_bytes_it_had() {
    let run = complete_run();
    let before = results(&run);
    let root = run.run_dir();
    let shard = |store: &str| committed_shards(&root.join(store))[0].clone();
    let subset = root.join(fs_err::read_to_string(root.join("latest")).unwrap().trim());
    let damaged: Vec<PathBuf> = vec![
        shard("gradients/epoch-1/pool"),
        shard("gradients/epoch-2/target").with_extension("json"),
        root.join("gradients/epoch-2/pool/shards.json"),
        root.join("pool/pool.parquet"),
        root.join("index/epoch-1.arrow"),
        root.join("index/epoch-2-rows.json"),
        root.join("scores.parquet"),
        subset.join("README.md"),
        root.join("summary.txt"),
        root.join("config.toml"),
    ];
    for file in &damaged {
        flip_the_middle(file);
    }
    fs_err::write(root.join("latest"), "subset-0\n").unwrap();
    let stranger = root.join("checkpoints/epoch-3");
    fs_err::create_dir(&stranger).unwrap();
    let adapter = "adapter_config.json";
    fs_err::copy(root.join("checkpoints/epoch-1").join(adapter), stranger.join(adapter)).unwrap();
    let weights = "adapter_model.safetensors";
    fs_err::copy(root.join("checkpoints/epoch-1").join(weights), stranger.join(weights)).unwrap();

    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 76, "{}", said.stdout);
    assert!(said.stdout.contains("gradients  damaged: the next run computes 2 of "), "{said:?}");
    assert_eq!(said.stdout.matches("\ndamaged (").count(), damaged.len() + 2, "{}", said.stdout);
    assert!(said.stdout.contains("warmup     whole"), "{}", said.stdout);

    let said = run.say(&["fsck", "--repair"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert!(findings(&run).damaged.len() <= 1, "the settings: {:?}", findings(&run).damaged);
    run_again(&run);
    assert_eq!(findings(&run).damaged, []);
    assert_eq!(results(&run), before);
}

#[test]
fn a_run_without_a_manifest_that_can_be_read_keeps_its_shards() {
    let run = complete_run();
    let before = results(&run);
    flip_the_middle(&run.run_dir().join("manifest.json"));
    assert_eq!(run.say(&["fsck"]).code, 76);
    assert_eq!(run.say(&["fsck", "--repair"]).code, 0);
    run_again(&run);
    let events = fs_err::read_to_string(run.run_dir().join("events.jsonl")).unwrap();
    assert!(events.contains("30 gradients stored, 0 of them new"), "{events}");
    assert_eq!(results(&run), before);
}

#[test]
fn a_run_in_use_is_looked_at_but_not_repaired() {
    let run = complete_run();
    let _held = less_select::pipeline::lock::exclusive(&run.run_dir().join("lock")).unwrap();
    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    let holder = format!("note: process {} on ", std::process::id());
    assert!(said.stdout.contains(&holder), "{}", said.stdout);
    assert_eq!(run.say(&["fsck", "--repair"]).code, 75);
}

#[test]
fn damage_that_costs_nothing_is_a_note() {
    let run = complete_run();
    flip_the_middle(&run.run_dir().join("checksums.json"));
    let events = run.run_dir().join("events.jsonl");
    let text = fs_err::read_to_string(&events).unwrap();
    fs_err::write(&events, format!("}}\n{}", &text[..text.len() - 9])).unwrap();
    let said = run.say(&["fsck"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(said.stdout.matches("\nnote: ").count(), 3, "{}", said.stdout);
}

/// A small run whose files are damaged one after the other.
struct Damaged {
    run: TestRun,
    dir: RunDir,
    config: Config,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    scores: Vec<u8>,
}

impl Damaged {
    fn new() -> Self {
        let run = complete_run();
        let dir = RunDir::new(run.run_dir());
        let layer = Layer::run(&dir.config()).unwrap().unwrap();
        Self {
            config: Config::resolve(&[Layer::default_pipeline(), layer]).unwrap(),
            manifest: Manifest::read(&dir).unwrap(),
            manifest_bytes: fs_err::read(dir.manifest()).unwrap(),
            scores: fs_err::read(dir.scores()).unwrap(),
            dir,
            run,
        }
    }

    /// Every file that carries a result, or says what does.
    fn files(&self) -> Vec<PathBuf> {
        let names = self.run.checksums("").into_iter().map(|(name, _)| name);
        let without = ["events.jsonl", "lock", "manifest.lock", "checksums.json"];
        let kept = names.filter(|name| !without.contains(&name.as_str()));
        kept.map(|name| self.dir.root().join(name)).collect()
    }

    /// The first stage that reads `path`; a marker is read with its file.
    fn reader_of(&self, path: &Path) -> Option<Stage> {
        let data = path.with_extension("arrow");
        let path = if data.exists() { &data } else { path };
        let name = self.dir.relative(path);
        let mut stages = self.manifest.stages.iter();
        stages
            .find(|(_, record)| record.made_from.files.contains_key(&name))
            .map(|(stage, _)| *stage)
    }

    /// Asserts that `fsck` names `path`, which holds `bytes` now, and that
    /// whoever reads it refuses it.
    fn assert_reported(&self, path: &Path, bytes: &[u8], how: &str) {
        let whole = fs_err::read(path).unwrap();
        fs_err::write(path, bytes).unwrap();
        let found = fsck(&self.dir, &Silent).unwrap();
        let data = path.with_extension("arrow");
        let is_named = |named: &Path| named == path || named == data;
        assert!(
            found.damaged.iter().any(|damage| is_named(&damage.path)),
            "fsck passes {} with {how}: {found:?}",
            path.display()
        );
        self.assert_refused(path, how);
        fs_err::write(path, whole).unwrap();
        fs_err::write(self.dir.manifest(), &self.manifest_bytes).unwrap();
    }

    fn assert_refused(&self, path: &Path, how: &str) {
        let place = format!("{} with {how}", path.display());
        if path == self.dir.manifest() {
            assert!(Manifest::read(&self.dir).is_err(), "{place}");
        } else if let Some(stage) = self.reader_of(path) {
            let force = [stage];
            let run = Run {
                config: &self.config,
                dir: &self.dir,
                observer: &Silent,
                force: &force,
                wait: Duration::ZERO,
            };
            let refused = run.one(stage);
            let is_refused = matches!(
                refused,
                Err(PipelineError::Damaged { .. }
                    | PipelineError::Store(_)
                    | PipelineError::Influence(_)
                    // The file is cut to nothing, or a stage before needs it.
                    | PipelineError::Incomplete { .. })
            );
            assert!(is_refused, "{stage} takes {place}: {refused:?}");
        } else if ![self.dir.config(), self.dir.latest()].contains(&path.to_owned()) {
            // Nobody reads it but people: the stage that wrote it does it again.
            let states = stage_states(&self.config, &self.dir).unwrap();
            let is_missing = |state: &StageState| matches!(state, StageState::Missing);
            assert!(states.iter().any(|(_, state)| is_missing(state)), "{place}");
        }
        if path != self.dir.scores() {
            assert_eq!(fs_err::read(self.dir.scores()).unwrap(), self.scores, "{place}");
        }
    }

    /// Flips a bit at each of the offsets, and cuts the file there.
    fn damage(&self, path: &Path, offsets: impl IntoIterator<Item = usize>) {
        let whole = fs_err::read(path).unwrap();
        for at in offsets {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            self.assert_reported(path, &flipped, &format!("bit {} of byte {at} flipped", at % 8));
            self.assert_reported(path, &whole[..at], &format!("{at} bytes left"));
        }
    }
}

/// `n` offsets from the first byte of `length` to the last.
fn spread(length: usize, n: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(1);
    (0..n.min(length)).map(move |i| last * i / (n.min(length) - 1).max(1))
}

fn length(path: &Path) -> usize {
    fs_err::metadata(path).unwrap().len() as usize
}

#[test]
fn a_flipped_bit_or_a_missing_end_is_reported_and_never_scored() {
    let damaged = Damaged::new();
    for file in damaged.files() {
        damaged.damage(&file, spread(length(&file), 3));
    }
    // Still JSON, but made from something else.
    let marker = damaged.dir.index().join("epoch-1.json");
    let text = fs_err::read_to_string(&marker).unwrap();
    let other = text.replace("\"fingerprint\": \"", "\"fingerprint\": \"0");
    assert_ne!(other, text);
    damaged.assert_reported(&marker, other.as_bytes(), "another fingerprint");
    assert_eq!(findings(&damaged.run).damaged, []);
    assert_eq!(findings(&damaged.run).stages[&Stage::Score], Condition::Whole);
}

#[test]
#[ignore = "reads a run a hundred thousand times, an hour"]
fn every_bit_and_every_end_of_small_files_is_reported_and_never_scored() {
    let damaged = Damaged::new();
    for file in damaged.files() {
        let length = length(&file);
        let n = if length < 4096 { length } else { 200 };
        damaged.damage(&file, spread(length, n));
    }
}
