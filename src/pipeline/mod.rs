//! The stages of a run in a run directory.
