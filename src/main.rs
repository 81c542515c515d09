//! `less-select`: the command line. It never loads libtorch; the stages that
//! need it run in `less-select-torch`.

fn main() {}
