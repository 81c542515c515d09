//! Warm-up: a short LoRA training on a random share of the pool.
