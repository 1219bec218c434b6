//! The door: argv in, exit code out.

use std::process::ExitCode;

// What a crowd of connections took goes back to the system when they are idle or gone; glibc's allocator keeps most of it.
// Version 2 in pages of 4 KiB: with version 3, or with huge pages, the process begins with 10 MB more. It gives most back only
// with `MIMALLOC_PURGE_EXTEND_DELAY=0` in its environment, as the image and the unit in deploy/ have it: by default each page
// that is freed puts those before it off by a millisecond, and the thousands of a crowd by so much that they stay until others
// come.
//
// Its feature `override` puts it in the C library's place, which Rust's own allocations go through: what stands behind
// `#[global_allocator]` would look at each alignment first, which takes as long again as to allocate.
use mimalloc as _;

fn main() -> ExitCode {
    cloakroom::cli::main()
}
