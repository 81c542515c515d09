//! `less-select`: the command line. It never loads libtorch; the stages that
//! need it run in `less-select-torch`.

fn main() -> std::process::ExitCode {
    less_select::cli::run(std::env::args_os())
}
