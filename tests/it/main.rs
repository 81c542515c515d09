//! The one integration-test binary.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod collect;
mod direction;
mod export;
mod influence;
mod projection;
mod scored_pool;
mod selection;
mod slow_less;
mod store;
mod toy;
