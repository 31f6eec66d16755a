#![no_main]

libfuzzer_sys::fuzz_target!(
    init: towline_fuzz_bodies::prepare(),
    |data: &[u8]| towline_fuzz_bodies::targets::pair_ops::run(data)
);
