//! Whatever happens to a run's files or processes, the same command comes to the
//! same bytes.
//!
//! `tests/faults/shim.c` is preloaded into the program and its workers and makes
//! one file operation of the run go wrong. By name, with all its points:
//!
//! ```text
//! cargo nextest run --release --run-ignored only faults::
//! ```

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use crate::support::TestRun;

/// Rows of the pool: three shards at each of two checkpoints.
const N_ROWS: usize = 20;

/// What goes wrong; see `tests/faults/shim.c`.
const KINDS: [&str; 5] = ["kill", "power", "eio", "enospc", "short"];

static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let own = folder.join(format!("shim-{}.so", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&own)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c"))
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    // Every test is a process of its own and makes the same.
    let shim = folder.join("shim.so");
    fs_err::rename(own, &shim).unwrap();
    shim
});

/// What an undisturbed run leaves, and how many operations it takes.
static UNDISTURBED: LazyLock<(BTreeMap<String, Vec<u8>>, u64)> = LazyLock::new(|| {
    let run = TestRun::new(N_ROWS);
    let (output, n_operations) = run.disturbed("count", 0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (run.results(), n_operations)
});

impl TestRun {
    /// Runs everything while operation number `at` goes wrong; tells how many
    /// there were.
    fn disturbed(&self, kind: &str, at: u64) -> (Output, u64) {
        let output = self.with_fault(&self.whole(&["--quiet"]), kind, at).output().unwrap();
        let counter = fs_err::read(self.path(&format!("counter-{kind}-{at}"))).unwrap();
        (output, u64::from_ne_bytes(counter.try_into().unwrap()))
    }

    /// `command` with the shim, in a process group of its own.
    pub(crate) fn with_fault(&self, command: &assert_cmd::Command, kind: &str, at: u64) -> Command {
        let counter = self.path(&format!("counter-{kind}-{at}"));
        fs_err::write(&counter, [0; 8]).unwrap();
        let mut faulty = Command::new(command.get_program());
        faulty
            .args(command.get_args())
            .current_dir(self.path(""))
            .env("LD_PRELOAD", &*SHIM)
            .env("FAULT_ROOT", self.run_dir())
            .env("FAULT_COUNTER", &counter)
            .env("FAULT_KIND", kind)
            .env("FAULT_AT", at.to_string())
            .process_group(0);
        faulty
    }

    /// Everything that a run is for, by path: tables, checkpoints, gradients,
    /// index, scores and subset. Not what tells of time: log, manifest, report.
    pub(crate) fn results(&self) -> BTreeMap<String, Vec<u8>> {
        let tells_of_time = |name: &str| {
            let names = ["manifest", "report", "summary", "events", "checksums", "lock", "config"];
            names.iter().any(|start| name.starts_with(start))
        };
        let mut found = BTreeMap::new();
        let mut folders = vec![self.run_dir()];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.run_dir()).unwrap().display().to_string();
                if path.is_dir() {
                    folders.push(path);
                } else if !tells_of_time(&name) {
                    found.insert(name, fs_err::read(&path).unwrap());
                }
            }
        }
        found
    }
}

/// Runs with one operation gone wrong and then again without. Tells whether the
/// first of them noticed.
fn survives(kind: &str, at: u64) -> bool {
    let run = TestRun::new(N_ROWS);
    let (output, _) = run.disturbed(kind, at);
    let what = format!("{kind} at {at}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        // The worker's death or the system's error, or nothing that mattered.
        Some(0 | 74 | 75) => {}
        Some(code) => panic!("{what}: exit code {code}: {told}"),
        None => assert_eq!(output.status.signal(), Some(9), "{what}: {told}"),
    }
    let is_undisturbed = |after: &str| {
        let (found, expected) = (run.results(), &UNDISTURBED.0);
        assert!(found.keys().eq(expected.keys()), "{what}, {after}: {:?}", found.keys());
        for (name, bytes) in expected {
            assert!(found[name] == *bytes, "{what}, {after}: other bytes in `{name}`");
        }
    };
    if output.status.success() {
        is_undisturbed("at once");
    }
    let said = run.run(&[]);
    assert_eq!(said.code, 0, "{what}: {told}\n{}", said.stderr);
    is_undisturbed("after the same command");
    !output.status.success() || told.contains("the worker process died")
}

/// Operations spread over the whole run.
fn spread(n: u64) -> impl Iterator<Item = u64> {
    let n_operations = UNDISTURBED.1;
    (0..n).map(move |i| 1 + (2 * i + 1) * n_operations / (2 * n))
}

#[test]
fn a_run_killed_at_any_point_continues_to_the_same_bytes() {
    assert!(spread(5).all(|at| survives("kill", at)), "a process was not killed");
}

/// A shard takes five operations, and half of a run's are before and behind the
/// worker's.
#[test]
fn a_worker_killed_at_any_point_of_a_shard_leaves_nothing_behind() {
    let middle = UNDISTURBED.1 / 2;
    assert!((middle..middle + 5).all(|at| survives("kill", at)), "the worker was not killed");
}

#[test]
fn a_run_whose_power_fails_continues_to_the_same_bytes() {
    assert!(spread(4).all(|at| survives("power", at)), "the power did not fail");
}

#[test]
fn a_run_whose_files_fail_continues_to_the_same_bytes() {
    for (at, kind) in spread(6).zip(["eio", "enospc", "short"].into_iter().cycle()) {
        // What is written in halves is whole in the end; some errors do not matter.
        assert!(survives(kind, at) || kind != "enospc", "the disk was not full");
    }
}

#[test]
fn eight_workers_three_of_them_killed_write_the_bytes_of_one() {
    const N_ROWS: usize = 160;
    let (alone, together) = (TestRun::new(N_ROWS), TestRun::new(N_ROWS));
    let said = alone.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for stage in ["ingest", "warmup"] {
        let said = together.run(&[stage]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let shard = |worker: usize| together.whole(&["gradients", "--shard", &format!("{worker}/8")]);
    let mut workers: Vec<_> = (1..=8)
        .map(|worker| match worker {
            // After some shards, in the middle of one.
            2 | 5 | 7 => together.with_fault(&shard(worker), "power", 8 + worker as u64),
            _ => {
                let command = shard(worker);
                let mut plain = Command::new(command.get_program());
                plain.args(command.get_args()).current_dir(together.path(""));
                plain
            }
        })
        .map(|mut command| command.stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let killed = workers.iter_mut().filter_map(|worker| worker.wait().unwrap().signal()).count();
    assert_eq!(killed, 3);
    for worker in [2, 5, 7] {
        shard(worker).assert().success();
    }
    let said = together.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("gradients  unchanged"), "{}", said.stderr);
    assert!(together.results() == alone.results());
}

#[test]
#[ignore = "takes an hour"]
fn every_point_of_a_run_may_fail_in_every_way() {
    for kind in KINDS {
        let noticed = (1..=UNDISTURBED.1).filter(|at| survives(kind, *at)).count();
        // What docs/robustness.md tells.
        eprintln!("{kind}: {} points, {noticed} noticed, 0 differences", UNDISTURBED.1);
    }
}
