//! The model: a decoder with LoRA adapters, in libtorch.
