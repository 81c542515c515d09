//! Too little memory, told from every other failure of libtorch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::ModelError;

/// Runs `work` on libtorch; what it says of too little memory, as an error or,
/// by the calls that return none, in a panic, becomes
/// [`ModelError::OutOfMemory`].
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
    // Nothing that was under way is looked at again: tensors are dropped whole.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(ModelError::Torch(err))) => match complaint(&err.to_string()) {
            Some(words) => Err(ModelError::OutOfMemory(words)),
            None => Err(ModelError::Torch(err)),
        },
        Ok(result) => result,
        Err(panic) => match message(panic.as_ref()).and_then(complaint) {
            Some(words) => Err(ModelError::OutOfMemory(words)),
            None => resume_unwind(panic),
        },
    }
}

fn message(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied())
}

/// The line that speaks of memory, if `text` does.
fn complaint(text: &str) -> Option<String> {
    // CUDA's allocator says the first, the CPU's the second.
    let speaks =
        |line: &&str| line.contains("out of memory") || line.contains("can't allocate memory");
    // A panic quotes libtorch's words with their line breaks escaped.
    let text = text.replace("\\n", "\n");
    text.lines().find(speaks).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    const TOO_MUCH: [i64; 1] = [1 << 55];

    #[test]
    fn too_little_memory_is_an_error_however_libtorch_says_it() {
        let options = (Kind::Float, Device::Cpu);
        let by_error = guarded(|| Ok(Tensor::f_zeros(TOO_MUCH, options)?));
        let by_panic = guarded(|| Ok(Tensor::zeros(TOO_MUCH, options)));
        for result in [by_error, by_panic] {
            let Err(ModelError::OutOfMemory(words)) = result else { panic!("{result:?}") };
            assert!(words.contains("can't allocate memory"), "{words}");
        }
    }

    #[test]
    fn other_failures_stay_what_they_are() {
        let a = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        assert!(matches!(guarded(|| Ok(a.f_matmul(&a)?)), Err(ModelError::Torch(_))));
        let panicked = catch_unwind(AssertUnwindSafe(|| guarded(|| Ok(a.matmul(&a)))));
        assert!(panicked.is_err());
    }
}
