#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| snigate::fuzzing::run("client_hello", octets));
