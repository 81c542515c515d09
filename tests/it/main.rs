//! The one integration-test binary.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod export;
mod report;
mod scored_pool;
mod selection;
