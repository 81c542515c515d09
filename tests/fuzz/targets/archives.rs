//! A pool that is packed. The first byte says how; an odd one packs the rest
//! itself, so that what is inside gets its turn, too.
#![no_main]

use std::io::Write;

use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let packed = if kind & 1 == 0 { bytes.to_vec() } else { pack(bytes, kind & 2 == 0) };
    let name = if kind & 2 == 0 { "pool.jsonl.gz" } else { "pool.jsonl.zst" };
    let _ = fuzz::read_pool(&fuzz::file(name, &packed), &[]);
});

fn pack(bytes: &[u8], gzip: bool) -> Vec<u8> {
    if gzip {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).expect("memory");
        packer.finish().expect("memory")
    } else {
        zstd::encode_all(bytes, 1).expect("memory")
    }
}
