//! Files of `torch.save` whose pickles are made to grow, to recurse, to run
//! something, or to read past their ends.

use std::time::{Duration, Instant};

use less_select::torch_file::{TorchFile, TorchFileError};

use super::fs;

/// A zip archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
        // Flags, method, time, date and checksum are zero.
        let facts = [&[0; 12][..], &size, &size, &name_length, &[0; 2]].concat();
        let offset = u32::try_from(file.len()).unwrap().to_le_bytes();
        file.extend([b"PK\x03\x04\x14\0", &facts[..], name.as_bytes(), content].concat());
        let central = [b"PK\x01\x02\x14\0\x14\0", &facts[..], &[0; 10], &offset, name.as_bytes()];
        directory.extend(central.concat());
    }
    let n_entries = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let start = u32::try_from(file.len()).unwrap().to_le_bytes();
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &n_entries, &n_entries, &size, &start, &[0; 2]]
        .concat()
}

/// Opens a file of this pickle and one storage of four bytes, `data/0`.
fn open(pickle: &[u8]) -> Result<TorchFile, TorchFileError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive(&[("x/data.pkl", pickle), ("x/data/0", &[0; 4])])).unwrap();
    let began = Instant::now();
    let opened = TorchFile::open(file.path());
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    opened
}

fn said(pickle: &[u8]) -> String {
    open(pickle).unwrap_err().to_string()
}

/// A storage of one f32, and the function that makes tensors of it, below it.
const STORAGE: &[u8] =
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";

#[test]
fn containers_in_containers_take_what_their_bytes_take() {
    // A tuple of twice the one before, a million times over.
    let doubled = [&b"\x80\x02]"[..], &b"2\x86".repeat(1 << 20), b"."].concat();
    assert_eq!(open(&doubled).unwrap().root().items().unwrap().count(), 2);
    let itself = open(b"\x80\x02]q\0h\0a.").unwrap();
    assert_eq!(itself.root().items().unwrap().next().unwrap().items().unwrap().count(), 1);
    // A list of a hundred thousand made a set as often.
    let list = [&b"(N"[..], &b"N".repeat(100_000), b"lq\0"].concat();
    let sets = b"cbuiltins\nset\nh\0\x85R0".repeat(100_000);
    assert!(open(&[&list[..], &sets, b"h\0."].concat()).is_ok());
}

#[test]
fn a_pickle_out_of_all_proportion_is_refused() {
    let long = [&b"\x80\x02"[..], &b"N0".repeat(5 << 20), b"N."].concat();
    insta::assert_snapshot!(said(&long), @"damaged or no file of `torch.save`: its `data.pkl` is longer than 8 MiB");
    insta::assert_snapshot!(said(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc."), @"damaged pickle at byte 9: it ends too early");
    insta::assert_snapshot!(said(&[b"\x8a\xff", &[1; 255][..], b"."].concat()), @"damaged pickle at byte 257: an integer of more than 64 bits");
}

#[test]
fn a_tensor_is_no_larger_than_its_storage() {
    let tensor = |parts: &[u8]| [STORAGE, parts, b"tR."].concat();
    assert!(open(&tensor(b"K\0))")).unwrap().root().tensor().is_some());
    let passes = said(&tensor(b"K\x01))"));
    insta::assert_snapshot!(passes, @"a tensor of shape [] and strides [] in storage `0`: it passes the end");
    // 2^60 elements, each of them the first.
    let wide = b"K\0\x8a\x08\0\0\0\0\0\0\0\x10\x85K\0\x85";
    insta::assert_snapshot!(said(&tensor(wide)), @"a tensor of shape [1152921504606846976] and strides [0] in storage `0`: it has more elements");
    let deep = [&b"K\0("[..], &b"K\x01".repeat(65), b"t(", &b"K\x01".repeat(65), b"t"].concat();
    insta::assert_snapshot!(said(&tensor(&deep)), @"damaged pickle at byte 353: a call with other arguments");
}

#[test]
fn nothing_but_a_few_names_is_known() {
    for (module, name) in
        [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch.serialization", "load")]
    {
        let pickle = format!("\u{2}c{module}\n{name}\nX\u{1}\0\0\0x\u{85}R.");
        let pickle = [b"\x80", pickle.as_bytes()].concat();
        let error = said(&pickle);
        assert!(error.starts_with(&format!("it holds `{module}.{name}`")), "{error}");
    }
    // By name on the stack, as newer protocols have it.
    let error = said(b"\x80\x04\x8c\x02os\x8c\x06system\x93.");
    assert!(error.starts_with("it holds `os.system`"), "{error}");
    // Objects of classes, extension codes, and numbers as text.
    for op in [b"o", b"i", b"\x81", b"\x92", b"\x82", b"I", b"P", b"\x98"] {
        let error = said(&[b"\x80\x02", &op[..], b"."].concat());
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"damaged pickle at byte 3: an instruction that plain data does not need");
        }
    }
}
