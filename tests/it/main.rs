//! The one integration-test binary.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod ingest;
