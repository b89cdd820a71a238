#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wingbeat_fuzz::longpoll_body(data));
