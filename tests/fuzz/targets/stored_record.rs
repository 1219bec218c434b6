//! libFuzzer's way into [`cloakroom_fuzz::stored_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::stored_record::check(data));
