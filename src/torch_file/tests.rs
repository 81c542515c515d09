use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch-files").join(name)
}

fn open(bytes: &[u8]) -> Result<TorchFile, TorchFileError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), bytes).unwrap();
    TorchFile::open(file.path())
}

/// `plain.pt` with `from` replaced by the equally long `to`: nothing in the
/// archive moves.
fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs_err::read(fixture("plain.pt")).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..][..to.len()].copy_from_slice(to);
    bytes
}

fn said(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

#[test]
fn tensors_of_every_dtype_are_read() {
    let file = TorchFile::open(&fixture("plain.pt")).unwrap();
    let tensors = file.root().get("tensors").unwrap();
    let found: Vec<_> = tensors
        .entries()
        .unwrap()
        .map(|(name, tensor)| (name.text().unwrap(), tensor.tensor().unwrap()))
        .map(|(name, tensor)| (name, tensor.dtype(), tensor.shape().to_vec()))
        .collect();
    let dtypes: Vec<_> = found.iter().map(|(name, dtype, _)| format!("{name} {dtype}")).collect();
    insta::assert_snapshot!(dtypes.join(", "), @"float32 F32, float16 F16, bfloat16 BF16, float64 F64, int64 I64, int32 I32, int16 I16, int8 I8, uint8 U8, bool BOOL");
    assert!(found.iter().all(|(_, _, shape)| *shape == [2, 3]));
    let values = Some(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for name in ["float32", "float16", "bfloat16"] {
        assert_eq!(tensors.get(name).unwrap().tensor().unwrap().to_f32(), values, "{name}");
    }
    let bytes = tensors.get("uint8").unwrap().tensor().unwrap();
    assert_eq!(bytes.bytes(), Cow::Borrowed(&[0, 1, 2, 3, 4, 5]));
    assert_eq!(bytes.to_f32(), None, "whole numbers are no gradient");
}

#[test]
fn a_tensor_is_read_in_its_own_order_wherever_it_lies() {
    let file = TorchFile::open(&fixture("plain.pt")).unwrap();
    let tensor = |name| file.root().get(name).unwrap().tensor().unwrap();
    assert_eq!(tensor("transposed").shape(), [3, 2]);
    assert_eq!(tensor("transposed").to_f32(), Some(vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    assert_eq!(tensor("row").to_f32(), Some(vec![3.0, 4.0, 5.0]));
    assert_eq!(tensor("empty").to_f32(), Some(vec![]));
    assert_eq!(tensor("parameter").to_f32(), Some(vec![1.0, 1.0]));
    let weight = file.root().get("module").unwrap().get("weight").unwrap();
    assert_eq!(weight.tensor().unwrap().to_f32(), Some(vec![1.0, 1.0]));
    assert!(matches!(tensor("row").bytes(), Cow::Borrowed(_)), "no copy of what lies in order");
}

#[test]
fn numbers_texts_and_containers_are_read() {
    let file = TorchFile::open(&fixture("plain.pt")).unwrap();
    let root = file.root();
    let numbers: Vec<_> = root.get("numbers").unwrap().items().unwrap().collect();
    let integers: Vec<_> = numbers.iter().map(|node| node.integer()).collect();
    let expected = [0, 255, 256, -1, 70000, 1 << 40, -(1 << 40)].map(Some);
    assert_eq!(integers, [&expected[..], &[None]].concat());
    assert_eq!(numbers[7].number(), Some(1.5));
    assert_eq!(root.get("scalar").unwrap().number(), Some(2.5));
    let others: Vec<_> = root.get("others").unwrap().items().unwrap().collect();
    assert_eq!((others[1].truth(), others[2].truth()), (Some(true), Some(false)));
    assert_eq!(others[3].text(), Some("text"));
    assert_eq!(others[4].items().unwrap().next().unwrap().integer(), Some(3));
    let (key, value) = root.entries().unwrap().last().unwrap();
    assert_eq!((key.integer(), value.text()), (Some(7), Some("keyed by a number")));
    assert!(root.get("absent").is_none() && others[0].get("absent").is_none());
}

#[test]
fn a_pickle_that_would_run_a_command_is_refused_by_its_name() {
    let error = TorchFile::open(&fixture("command.pt")).unwrap_err();
    insta::assert_snapshot!(error, @"it holds `posix.system`, and only tensors, numbers, texts and plain containers of them are read: nothing in such a file is run");
    let other = replaced(b"collections\nOrderedDict", b"collections\nOtherThings");
    insta::assert_snapshot!(said(&other), @"it holds `collections.OtherThings`, and only tensors, numbers, texts and plain containers of them are read: nothing in such a file is run");
}

#[test]
fn what_is_no_such_file_is_told_apart() {
    let error = TorchFile::open(&fixture("legacy.pt")).unwrap_err();
    insta::assert_snapshot!(error, @"in the format of PyTorch before 1.6, which is not read: write it anew with `torch.save(torch.load(PATH), PATH)`");
    insta::assert_snapshot!(said(b""), @"damaged or no file of `torch.save`: Missing end of central directory");
    insta::assert_snapshot!(said(&replaced(b"little", b"bigger")), @"written on a machine of byte order `bigger`, expected `little`");
}

#[test]
fn a_tensor_must_lie_in_its_storage() {
    let error = TorchFile::open(&fixture("expanded.pt")).unwrap_err();
    insta::assert_snapshot!(error, @"a tensor of shape [2, 3] and strides [0, 0] in storage `0`: it has more elements");
    // The first tensor's offset, shape and strides: 0, (2, 3), (3, 1).
    let wider = replaced(b"QK\x00K\x02K\x03\x86", b"QK\x00K\x02K\x04\x86");
    insta::assert_snapshot!(said(&wider), @"a tensor of shape [2, 4] and strides [3, 1] in storage `0`: it passes the end");
    let longer = replaced(b"K\x06tq", b"K\x07tq");
    insta::assert_snapshot!(said(&longer), @"damaged or no file of `torch.save`: its storage `0` has 24 bytes, not 7 values of F32");
}

#[test]
fn a_file_cut_anywhere_is_damaged() {
    let whole = fs_err::read(fixture("plain.pt")).unwrap();
    for len in (0..whole.len()).step_by(7) {
        assert!(open(&whole[..len]).is_err(), "{len} bytes");
    }
}

proptest! {
    /// Whatever a changed byte makes of it, looking at all of it ends well.
    #[test]
    fn changed_bytes_make_no_panic(changes in prop::collection::vec((0..5393_usize, any::<u8>()), 1..4)) {
        let mut bytes = fs_err::read(fixture("plain.pt")).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(file) = open(&bytes) {
            for (_, value) in file.root().entries().into_iter().flatten() {
                let _ = value.number();
                if let Some(values) = value.tensor().and_then(|tensor| tensor.to_f32()) {
                    prop_assert_eq!(values.len(), value.tensor().unwrap().n_elements());
                }
            }
        }
    }
}
