//! libFuzzer's way into [`cloakroom_fuzz::tokens`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::tokens::check(data));
