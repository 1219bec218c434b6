//! The door: argv in, exit code out.

use std::process::ExitCode;

/// What a crowd of connections took goes back to the system when they are idle or gone; glibc's allocator keeps most of it.
/// Version 2 in pages of 4 KiB: with version 3, or with huge pages, the process begins with 10 MB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cloakroom::cli::main()
}
