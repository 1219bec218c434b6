//! libFuzzer's way into [`cloakroom_fuzz::forwarded`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::forwarded::check(data));
