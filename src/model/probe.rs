//! What the machine and its libtorch can do.
