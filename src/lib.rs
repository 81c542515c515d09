//! LESS gradient-based data selection (Xia et al., ICML 2024).
//!
//! From a pool of instruction data and a few examples of a target skill,
//! find the share of the pool worth training on. The modules stand in the
//! order of the method:
//!
//! 1. [`pool`] reads instruction rows and turns them into token ids and a mask
//!    of the tokens that carry loss.
//! 2. `warmup` trains a short LoRA on a random share of the pool and keeps a
//!    [`checkpoint`] an epoch.
//! 3. [`gradient`] computes one LoRA gradient an example, turns it into the
//!    direction in which the optimizer would move, and [`projection`] makes it
//!    a short row in the gradient [`store`].
//! 4. [`influence`] scores every pool row against the target's rows:
//!
//!    ```text
//!    Inf(z, subtask) = Σ_c η̄_c · mean_{z' ∈ subtask} cos( P_c Γ_c(z), P_c ∇ℓ(z'; θ_c) )
//!    score(z)        = max over subtasks
//!    ```
//! 5. [`selection`] takes the best rows within a budget and writes them as a
//!    dataset folder, and [`report`] says what came out, [`diagnostics`] how far to
//!    believe it; [`verify`] trains on it.
//!
//! [`pipeline`] runs the stages in a run directory, [`config`] holds their
//! settings, and [`cli`] is the command line over both.

pub mod baseline;
pub mod cascade;
pub mod checkpoint;
pub mod cli;
pub mod comparison;
pub mod compute;
pub mod config;
pub mod diagnostics;
pub mod explain;
pub mod first_pass;
pub mod fs;
pub mod gguf;
pub mod gradient;
#[cfg(feature = "hub")]
pub mod hub;
pub mod influence;
pub mod merge;
pub mod method;
pub mod model;
pub mod pipeline;
pub mod pool;
pub mod progress;
pub mod projection;
pub mod report;
pub mod run_dir;
pub mod sealed;
pub mod seed;
pub mod selection;
pub mod stage;
pub mod store;
pub mod tensor_file;
pub mod torch_file;
pub mod verify;
pub mod warmup;
