//! The program: everything is in [`marketplace_connector::cli`].

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Measured: a proxied call costs less with it than with the system's (DESIGN.md section 15).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    marketplace_connector::cli::run(std::env::args_os())
}
