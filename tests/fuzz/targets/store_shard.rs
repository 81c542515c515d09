//! A shard of stored gradients, an index, cosines. An even first byte: the rest is the data file,
//! under a marker that vouches for it. An odd one: the rest is the marker.
#![no_main]

use less_select::gradient::direction::GradientKind;
use less_select::influence::example_scores_file::CosinesFile;
use less_select::influence::index::TargetIndex;
use less_select::store::gradient_store::GradientStore;
use less_select_fuzz as fuzz;
use serde_json::json;

/// A list of the one shard.
const LIST: &[u8] =
    br#"{"folder": "", "made_for": "", "shards": [{"fingerprint": "a", "rows": []}]}"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let dir = fuzz::path("store");
    fuzz::file("store/shards.json", LIST);
    for name in ["shard-a", "epoch-1", "epoch-1-rows"] {
        let data: &[u8] = if kind & 1 == 0 { bytes } else { &[] };
        fuzz::file(&format!("store/{name}.arrow"), data);
        let marker = json!({
            "blake3": blake3::hash(data).to_hex().to_string(),
            "bytes": data.len(),
            "file": format!("{name}.arrow"),
            "fingerprint": "a",
            "rows": kind >> 1,
        });
        let marker = if kind & 1 == 0 { marker.to_string().into_bytes() } else { bytes.to_vec() };
        fuzz::file(&format!("store/{name}.json"), &marker);
    }
    let _ = TargetIndex::open(&dir, "epoch-1");
    let _ = CosinesFile::open(&dir.join("epoch-1.arrow"));
    let Ok(store) = GradientStore::open(&dir) else { return };
    for shard in store.shards() {
        let n_rows = shard.n_rows();
        assert_eq!((shard.loss().len(), shard.n_supervised().len()), (n_rows, n_rows));
        let _ = (0..n_rows).filter_map(|row| shard.flag(row)).count();
        for kind in [GradientKind::AdamV, GradientKind::Sgd] {
            if let Some(rows) = shard.kind(kind) {
                assert_eq!(rows.norms.len(), n_rows);
                let _ = rows.unit.decode(0..n_rows.min(4));
            }
        }
    }
});
