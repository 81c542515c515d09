//! The one integration-test binary.

mod collect;
mod projection;
mod store;
mod toy;
