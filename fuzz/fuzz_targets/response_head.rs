#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| snigate::fuzzing::run("response_head", octets));
