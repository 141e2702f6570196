#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // each target uses one of them
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::decode_json(data));
