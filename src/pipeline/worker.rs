//! The stages that need the model, in a process of their own.
//!
//! `less-select-torch` is given its settings in a file and a run directory, and
//! speaks JSON lines on its standard output. When the parent closes the
//! worker's standard input, or dies, the worker stops at the next safe point.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::progress::{Event, Observer};

/// One line of a worker's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Something that happened.
    Event(Event),
    /// The worker's last word when it did what it was asked.
    Answer(serde_json::Value),
    /// The worker's last word when it could not.
    Failure(Failure),
}

/// An error that crossed the process boundary, with its causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code it stands for.
    pub exit_code: u8,
    /// What went wrong.
    pub message: String,
    /// Why.
    #[source]
    pub cause: Option<Box<Failure>>,
}

impl Failure {
    /// `err` and its causes, as text.
    pub fn new(exit_code: u8, err: &dyn std::error::Error) -> Self {
        let cause = err.source().map(|cause| Box::new(Self::new(exit_code, cause)));
        Self { exit_code, message: err.to_string(), cause }
    }
}

/// Why a worker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The program is not there.
    #[error("`{}` is missing: it is installed beside `less-select` (cargo feature `torch`)", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It could not be started or listened to.
    #[error("the worker process could not be run")]
    Io(#[from] std::io::Error),
    /// It said why it failed.
    #[error(transparent)]
    Failed(Failure),
    /// It ended without a word: killed, out of memory, or a fault in libtorch.
    #[error("the worker process died ({status}){}", last_words(stderr))]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

fn last_words(stderr: &str) -> String {
    if stderr.trim().is_empty() {
        return String::new();
    }
    format!("; its last words:\n{}", stderr.trim())
}

/// How OpenMP's threads wait for each other: some microseconds awake, then
/// asleep. It is read when the library is loaded, so the parent has to set it.
/// By default they stay awake, which on a machine shared with another job made
/// gradients 4.5 times slower; asleep at once, they are a seventh slower on a
/// quiet one (docs/measurements.md).
const WAITING: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "2000")];

/// How many compiled operations libtorch's CPU kernels keep. Every batch has a
/// shape of its own, and by default thousands are kept: in bf16 0.6 MB a row of
/// the pool, without an end. With so few the time is the same.
const KERNEL_CACHES: [(&str, &str); 2] =
    [("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"), ("LRU_CACHE_CAPACITY", "32")];

/// Where the C library's allocator keeps what. What a layer needs only for a
/// moment would leave holes between what is kept of all layers: in f32 a sixth
/// more memory. From 4 MiB on, tensors get pages of their own; the top of the heap
/// is kept up to 64 MiB, for pages given back and taken again cost time.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "4194304"), ("MALLOC_TRIM_THRESHOLD_", "67108864")];

/// cuDNN's attention makes a plan for every new shape, and each batch has another:
/// a fifth of a second each, twice what the batch takes. libtorch's own needs none.
const ATTENTION: [(&str, &str); 1] = [("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")];

/// Where libtorch's CUDA library reads how much memory it may take.
const CUDA_MEMORY: &str = "PYTORCH_CUDA_ALLOC_CONF";

/// Runs a task of `less-select-torch` with the settings `config`, passing its
/// events on to `observer`, and returns its answer.
///
/// # Errors
///
/// See [`WorkerError`].
///
/// # Panics
///
/// Never: the child's streams are pipes, as they were asked to be.
pub fn run(
    config: &Config,
    task: &[&str],
    observer: &dyn Observer,
) -> Result<serde_json::Value, WorkerError> {
    let program = program()?;
    // A file of its own: the workers of a run may differ in settings such as
    // the device.
    let mut settings =
        tempfile::Builder::new().prefix("less-select-").suffix(".toml").tempfile()?;
    settings.write_all(config.to_toml().as_bytes())?;
    let mut child =
        attached(&program, config).args(task).arg("--config").arg(settings.path()).spawn()?;
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stderr = child.stderr.take().expect("it is piped");
        let stderr = scope.spawn(move || tail_of(stderr));
        let leash = child.stdin.take().expect("it is piped");
        scope.spawn(|| hold_until_interrupted(leash, observer, &finished));
        let last = listen(&mut child, observer);
        let status = child.wait();
        finished.store(true, Ordering::Relaxed);
        let stderr = stderr.join().unwrap_or_default();
        match (last?, status?) {
            (Some(Line::Answer(answer)), status) if status.success() => Ok(answer),
            _ if observer.is_interrupted() => Err(WorkerError::Interrupted),
            (Some(Line::Failure(failure)), _) => Err(WorkerError::Failed(failure)),
            (_, status) => Err(WorkerError::Died { status, stderr }),
        }
    })
}

/// The worker's command, all its streams pipes to this process. What the user
/// has in the environment wins.
fn attached(program: &Path, config: &Config) -> Command {
    let mut command = Command::new(program);
    let memory = format!("per_process_memory_fraction:{}", config.device_memory);
    let memory = [(CUDA_MEMORY, &*memory)];
    let settings = WAITING.into_iter().chain(KERNEL_CACHES).chain(ALLOCATOR).chain(ATTENTION);
    for (name, value) in settings.chain(memory) {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command.arg("--attached");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `less-select-torch`, in the folder of the running program.
fn program() -> Result<PathBuf, WorkerError> {
    let beside = std::env::current_exe()?.with_file_name("less-select-torch");
    // A test binary stands in `deps/`, one folder below the programs.
    let above = beside.parent().and_then(Path::parent).map(|dir| dir.join("less-select-torch"));
    let found = [Some(beside.clone()), above].into_iter().flatten().find(|path| path.is_file());
    found.ok_or(WorkerError::Missing { path: beside })
}

/// Passes events on; returns the last line that was none.
fn listen(child: &mut Child, observer: &dyn Observer) -> std::io::Result<Option<Line>> {
    let mut last = None;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Event(event)) => observer.notify(event),
            Ok(word) => last = Some(word),
            // Anything else on its standard output is a library's chatter.
            Err(_) => {}
        }
    }
    Ok(last)
}

/// Keeps the worker's standard input open until it should stop.
fn hold_until_interrupted(
    leash: std::process::ChildStdin,
    observer: &dyn Observer,
    finished: &AtomicBool,
) {
    while !finished.load(Ordering::Relaxed) && !observer.is_interrupted() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(leash);
}

/// The last two kilobytes of a stream.
fn tail_of(mut stream: impl Read) -> String {
    const KEPT: usize = 2048;
    let (mut tail, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        tail.extend_from_slice(&chunk[..n]);
        let surplus = tail.len().saturating_sub(KEPT);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).into_owned()
}
