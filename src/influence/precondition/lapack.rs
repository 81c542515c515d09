//! `OpenBLAS`, as a library among others.

use std::ffi::c_int;

use openblas_src as _;

#[expect(unsafe_code, reason = "OpenBLAS has no safe way to be told its threads")]
mod openblas {
    unsafe extern "C" {
        pub(super) safe fn openblas_set_num_threads(n_threads: super::c_int);
    }
}

/// Lets `OpenBLAS` compute where it is called. Rayon owns the cores, and what comes out
/// does not depend on how many there are.
pub(super) fn stay_in_thread() {
    openblas::openblas_set_num_threads(1);
}
