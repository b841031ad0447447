//! The `walarch` command: parse, call, turn the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    walarch::cli::main()
}
