//! libFuzzer's way into [`cloakroom_fuzz::cookie_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::cookie_header::check(data));
