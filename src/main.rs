//! The program: everything is in [`marketplace_connector::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    marketplace_connector::cli::run(std::env::args_os())
}
