//! `less-select-torch`: the stages that need the model, in a process of their own.

fn main() -> std::process::ExitCode {
    less_select::cli::worker::run(std::env::args_os())
}
