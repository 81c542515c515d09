//! The one integration-test binary.

mod projection;
