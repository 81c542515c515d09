//! GGUF files against the gguf package and transformers, by what
//! `scripts/goldens/gguf_files.py` made.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use less_select::checkpoint::{Checkpoint, LoraSettings};
use less_select::compute::Dtype;
use less_select::config::Config;
use less_select::config::layers::{self, Layer, Origin};
use less_select::gguf::{self, Gguf};
use less_select::model::DecoderConfig;
use less_select::pipeline::checksums::Checksums;
use less_select::pipeline::fingerprint::{gradient_fingerprint, inputs_of};
use less_select::pipeline::manifest::Manifest;
use less_select::run_dir::RunDir;
use less_select::stage::Stage;
use less_select::tensor_file::{TensorFile, to_f32};

use crate::families;
use crate::goldens::{fixture, golden, load};
use crate::parity::assert_close;

const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

fn file(name: &str) -> PathBuf {
    fixture("gguf").join(format!("{name}.gguf"))
}

fn expected(name: &str) -> Vec<f32> {
    let goldens = TensorFile::open(&golden("gguf.safetensors")).unwrap();
    to_f32(&goldens.tensor(name).unwrap()).unwrap()
}

#[test]
fn blocks_unpack_to_what_the_gguf_package_finds_in_them() {
    let file = Gguf::open(&file("packings")).unwrap();
    assert_eq!(file.tensors().len(), 11);
    for (name, tensor) in file.tensors() {
        let (found, expected) = (file.unpack(tensor), expected(name));
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            // A rounding of a product, or of two and a sum.
            let bound = 2.0 * f32::EPSILON * expected.abs().max(1.0);
            assert!((found - expected).abs() <= bound, "{name}: {found} for {expected}");
        }
    }
}

#[test]
fn models_in_gguf_files_compute_what_transformers_does() {
    let row = families::rows().pop().unwrap();
    for name in ARCHITECTURES {
        let targets = vec!["attention".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.0, targets };
        let model = load(&file(name), &lora, Dtype::F32, Some(NonZeroUsize::MIN));
        let logits = model.logits(&row.token_ids).concat();
        assert_close(name, &logits, &expected(&format!("{name}.logits")));
    }
}

#[test]
fn damaged_gguf_files_are_errors_and_never_panics() {
    let whole = fs_err::read(file("qwen3")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        assert!(gguf::read(&whole[..length]).is_err(), "{length}");
    }
    // The head is where the numbers are that everything hangs on.
    for at in 0..1200 {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            let _ = gguf::read(&damaged);
        }
    }
}

/// A tensor that starts where no file ends.
#[test]
fn a_tensor_beyond_any_file_is_an_error() {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let [one, none, empty] = [1_u64, 0, 0].map(u64::to_le_bytes);
    for part in [&one[..], &none, &one, b"x", &1_u32.to_le_bytes(), &empty, &0_u32.to_le_bytes()] {
        file.extend(part);
    }
    file.extend((u64::MAX - 7).to_le_bytes());
    let error = gguf::read(&file).unwrap_err();
    insta::assert_snapshot!(error, @"damaged at byte 57: a tensor that ends behind the file");
}

#[test]
fn a_gguf_file_of_another_architecture_is_named() {
    let error = DecoderConfig::read(&file("packings")).unwrap_err();
    insta::assert_snapshot!(error.kind, @"`hidden_size` is missing");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let bytes = fs_err::read(file("packings")).unwrap();
    let at = bytes.windows(5).position(|text| text == b"llama").unwrap();
    let other = [&bytes[..at], b"mamba", &bytes[at + 5..]].concat();
    fs_err::write(&path, other).unwrap();
    let error = DecoderConfig::read(&path).unwrap_err();
    insta::assert_snapshot!(error.kind, @r#"`general.architecture` = "mamba" is not supported (only llama, qwen2, qwen3, gemma2, gemma3, phi3)"#);
}

/// What the gradients of a run with this model at a checkpoint are known by.
fn known_by(model: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    let row = r#"{"prompt": "1 + 1?", "completion": "2"}"#;
    fs_err::write(dir.path().join("rows.jsonl"), row).unwrap();
    let rows = dir.path().join("rows.jsonl");
    let checkpoint = fixture("tiny-checkpoints").join("epoch-1");
    let mut settings = toml::Table::new();
    for (name, path) in [("pool", &rows), ("target", &rows)] {
        settings.insert(name.to_owned(), vec![path.display().to_string()].into());
    }
    for (name, path) in [("model", model), ("checkpoints", checkpoint.as_path())] {
        settings.insert(name.to_owned(), path.display().to_string().into());
    }
    let raw = layers::parse("settings", &settings.to_string()).unwrap();
    let own = Layer { origin: Origin::Flag, raw };
    let config = Config::resolve(&[Layer::default_pipeline(), own]).unwrap();
    let manifest = Manifest::read(&RunDir::new(dir.path().join("run"))).unwrap();
    let mut checksums = Checksums::open(dir.path().join("checksums.json"));
    let inputs = inputs_of(Stage::Gradients, &config, &manifest, &mut checksums).unwrap();
    let checkpoint = Checkpoint::open(&checkpoint).unwrap();
    gradient_fingerprint(&inputs, &checkpoint, &mut checksums).unwrap()
}

#[test]
fn gradients_of_another_gguf_file_are_other_gradients() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let path = dir.path().join("model.gguf");
        fs_err::copy(file(name), &path).unwrap();
        known_by(&path)
    };
    let (first, second) = (copy("llama"), copy("qwen2"));
    assert_ne!(first, second);
    assert_eq!(copy("llama"), first);
}
