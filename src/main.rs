//! The door: argv in, exit code out.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What a crowd of connections took goes back to the system when they are idle or gone; glibc's allocator keeps most of it.
/// Version 2 in pages of 4 KiB: with version 3, or with huge pages, the process begins with 10 MB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the allocator keeps pages that nothing is on any more, milliseconds.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

fn main() -> ExitCode {
    if env::var_os(PURGE_DELAY).is_none() {
        begin_again_purging();
    }
    cloakroom::cli::main()
}

/// Lets pages go back to the system at once. By default they wait for 10 ms, and as the allocator looks at the time only when
/// it is called, a process that has fallen idle would keep a crowd's memory for good. It takes the delay from its environment
/// alone, which it reads before `main`; so the program is begun again with that set, in the same process. Where this fails,
/// it goes on as it is: all that is lost is memory.
fn begin_again_purging() {
    let Ok(program) = env::current_exe() else { return };
    let mut again = Command::new(program);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let _not_begun = again.args(arguments).env(PURGE_DELAY, "0").exec();
}
