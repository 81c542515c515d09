//! `less-select-torch`: the stages that need the model, in a process of their own.

fn main() {}
