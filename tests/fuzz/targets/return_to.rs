//! libFuzzer's way into [`cloakroom_fuzz::return_to`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::return_to::check(data));
