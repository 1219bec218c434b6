//! libFuzzer's way into [`cloakroom_fuzz::config_yaml`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloakroom_fuzz::config_yaml::check(data));
