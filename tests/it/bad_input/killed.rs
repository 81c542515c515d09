//! Runs that are stopped from outside, in the middle of their gradients.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

use super::{Desk, Made, error};
use crate::support::{Said, committed_shards};

/// Enough that shards are still missing when the first is there.
const N_ROWS: usize = 160;

static UNDISTURBED: LazyLock<Made> = LazyLock::new(|| {
    let desk = Desk::with_rows(N_ROWS);
    let said = desk.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    desk.made()
});

/// Who gets a signal.
enum Receiver {
    Program,
    Worker,
}

impl Desk {
    /// Runs everything, and sends a signal once the first shard is committed.
    fn run_until_signal(&self, signal: &str, receiver: &Receiver) -> Said {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| self.run(&[]));
            let store = self.path("run/gradients/epoch-1/pool");
            wait_until(|| !committed_shards(&store).is_empty() || run.is_finished());
            let program = self.program();
            let pid = match receiver {
                Receiver::Program => program,
                Receiver::Worker => child_of(program).unwrap(),
            };
            Command::new("sh").args(["-c", &format!("kill -s {signal} {pid}")]).unwrap();
            run.join().unwrap()
        })
    }

    /// Runs everything, and after the first shard kills every worker that comes.
    fn run_killing_every_worker_at_its_start(&self) -> Said {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| self.run(&[]));
            let store = self.path("run/gradients/epoch-1/pool");
            wait_until(|| !committed_shards(&store).is_empty() || run.is_finished());
            let program = self.program();
            while !run.is_finished() {
                if let Some(worker) = child_of(program) {
                    // It may have ended by itself.
                    let _ =
                        Command::new("sh").args(["-c", &format!("kill -s KILL {worker}")]).output();
                }
            }
            run.join().unwrap()
        })
    }

    /// The process that holds the run.
    fn program(&self) -> u32 {
        let holder = fs_err::read(self.path("run/lock")).unwrap();
        let holder: Value = serde_json::from_slice(&holder).unwrap();
        holder["pid"].as_u64().unwrap() as u32
    }

    /// Whether the same command takes up what was stopped, and gives the same
    /// bytes.
    #[track_caller]
    fn continues(&self) {
        let last = committed_shards(&self.path("run/gradients/epoch-2/pool"));
        assert!(last.len() < 20, "nothing was left to do");
        let said = self.run(&[]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stderr.contains("warmup     unchanged"), "{}", said.stderr);
        assert_eq!(self.made(), *UNDISTURBED);
    }
}

/// The process whose parent is `program`, from the kernel's list.
fn child_of(program: u32) -> Option<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, facts) = stat.rsplit_once(')')?;
        facts.split_whitespace().nth(1)?.parse().ok()
    };
    let names = fs_err::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let mut pids = names.filter_map(|name| name.to_str()?.parse().ok());
    pids.find(|&pid| parent_of(pid) == Some(program))
}

fn wait_until(is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_mins(2), "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_worker_is_told_of_and_started_again() {
    for (signal, end) in [("KILL", "signal: 9 (SIGKILL)"), ("TERM", "exit status: 143")] {
        let desk = Desk::with_rows(N_ROWS);
        let said = desk.run_until_signal(signal, &Receiver::Worker);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let warning = format!(
            "warning: the worker process died ({end}); it is started again and goes on where it \
             ended\n"
        );
        assert!(said.stderr.contains(&warning), "{}", said.stderr);
        assert_eq!(desk.made(), *UNDISTURBED);
    }
}

#[test]
fn a_worker_that_dies_twice_at_a_shard_is_told_of_and_the_same_command_continues() {
    let desk = Desk::with_rows(N_ROWS);
    let said = desk.run_killing_every_worker_at_its_start();
    insta::assert_snapshot!(error(&said, 75), @r"
    error: the worker process died (signal: 9 (SIGKILL))
    hint: if the system ran out of memory, lower --batch-tokens; the same command continues where this one ended
    ");
    desk.continues();
}

#[test]
fn a_scheduler_stops_a_run_and_the_same_command_continues() {
    let desk = Desk::with_rows(N_ROWS);
    let said = desk.run_until_signal("TERM", &Receiver::Program);
    insta::assert_snapshot!(error(&said, 143), @r"
    error: interrupted; what is complete is kept
    hint: the same command continues where this one ended
    ");
    desk.continues();
}

#[test]
fn a_user_stops_a_run_and_the_same_command_continues() {
    let desk = Desk::with_rows(N_ROWS);
    let said = desk.run_until_signal("INT", &Receiver::Program);
    insta::assert_snapshot!(error(&said, 130), @r"
    error: interrupted; what is complete is kept
    hint: the same command continues where this one ended
    ");
    desk.continues();
}

#[test]
fn a_killed_program_leaves_a_run_that_the_same_command_continues() {
    let desk = Desk::with_rows(N_ROWS);
    let said = desk.run_until_signal("KILL", &Receiver::Program);
    assert!(!said.stderr.contains("error"), "{}", said.stderr);
    desk.continues();
}
