//! The one integration-test binary.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod collect;
mod export;
#[cfg(feature = "torch")]
mod parity;
mod projection;
mod scored_pool;
mod selection;
mod store;
mod toy;
