//! The one integration-test binary.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

// The invariants of ARCHITECTURE.md.
mod architecture;
// What people, files and machines do to a run.
#[cfg(feature = "torch")]
mod bad_input;
// What LESS is compared with.
mod baseline;
mod cascade;
mod cli;
mod collect;
// What selections have in common.
mod compare;
mod diagnostics;
mod direction;
mod example_scores;
// Why a row was selected or was not.
mod explain;
mod export;
#[cfg(feature = "torch")]
mod families;
// Killed processes, full disks and failing files.
#[cfg(all(feature = "torch", target_os = "linux"))]
mod faults;
mod faulty;
// What is damaged, and what it costs.
#[cfg(feature = "torch")]
mod fsck;
// What nobody needs any more.
#[cfg(feature = "torch")]
mod gc;
#[cfg(feature = "torch")]
mod gguf;
#[cfg(feature = "torch")]
mod goldens;
mod influence;
// Files made to do harm.
mod hostile;
// Models by name, from a hub of our own.
#[cfg(feature = "hub")]
mod hub;
mod ingest;
// The same selection whatever the order, threads and shards.
mod invariance;
// What a source may have, and what it is to have.
mod limits;
// The same command by another method.
mod methods;
// The same command, night after night.
#[cfg(feature = "torch")]
mod nightly;
#[cfg(feature = "torch")]
mod parity;
#[cfg(feature = "torch")]
mod parity_scores;
// The whole program on a model of a few hundred kilobytes.
#[cfg(feature = "torch")]
mod pipeline;
mod precondition;
mod projection;
mod published;
mod quantized;
mod report;
mod scored_pool;
mod scores_file;
mod selection;
// Other orders than by score, and limits.
#[cfg(feature = "torch")]
mod selectors;
// The real model finds real skills.
#[cfg(feature = "torch")]
mod skill;
mod slow_less;
mod store;
mod stored_rows;
mod support;
mod toy;
// What other programs train.
mod trainers;
#[cfg(feature = "torch")]
mod verify;
mod whole_run;
