//! libFuzzer's way into [`cloakroom_fuzz::request_path`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::request_path::check(data));
