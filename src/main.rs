//! The door: argv in, exit code out.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What a crowd of connections took goes back to the system when they are idle or gone; glibc's allocator keeps most of it.
/// Version 2 in pages of 4 KiB: with version 3, or with huge pages, the process begins with 10 MB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// By how many milliseconds a freed page puts off that the pages freed before it go back.
const PUT_OFF: &str = "MIMALLOC_PURGE_EXTEND_DELAY";

fn main() -> ExitCode {
    if env::var_os(PUT_OFF).is_none() {
        begin_again_without_putting_off();
    }
    cloakroom::cli::main()
}

/// Pages go back 10 ms after they were freed, at the next call of the allocator; but by default each page that is freed
/// meanwhile puts this off by a millisecond, and the thousands of a crowd that leaves by so much that they stay until others
/// come. The allocator takes the option from its environment alone, which it reads before `main`: so the program is begun
/// again with it, in the same process. Where that fails it goes on as it is, and all that is lost is memory.
fn begin_again_without_putting_off() {
    let Ok(program) = env::current_exe() else { return };
    let mut again = Command::new(program);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let _not_begun = again.args(arguments).env(PUT_OFF, "0").exec();
}
