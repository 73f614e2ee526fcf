#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hatchet::fuzzing::token(bytes));
