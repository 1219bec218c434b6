//! What is asked of cloakroom with any bytes whatever: one module for each fuzz target.
//!
//! Each has `check`, which takes the fuzzer's bytes, hands them to the very code that a request, the config or a provider
//! meets, and holds the outcome to a second opinion written from the rules and not from that code. Panicking is how it
//! says that they differ. `tests/fuzz/run` builds and runs them.

#![forbid(unsafe_code)]

pub mod config_yaml;
pub mod cookie_header;
pub mod forwarded;
pub mod request_path;
pub mod return_to;
pub mod stored_record;
pub mod tokens;

mod common;
