#![no_main]
#![allow(missing_docs, unsafe_code, reason = "the fuzzer's entry point")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardproof_fuzz::INPUT.run(data));
