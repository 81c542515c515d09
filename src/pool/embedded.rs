//! Rows that ship in the program: the `example:NAME` sources.
//!
//! Origin and license of every file stand in `data/README.md`.

/// A file in the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmbeddedFile {
    /// The name behind `example:`.
    pub(super) set: &'static str,
    /// Its file name, which tells its format.
    pub(super) file: &'static str,
    /// What is in it.
    pub(super) bytes: &'static [u8],
}

macro_rules! file {
    ($set:literal, $file:literal, $path:literal) => {
        EmbeddedFile {
            set: $set,
            file: $file,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/example/", $path)),
        }
    };
}

const FILES: [EmbeddedFile; 7] = [
    file!("pool", "gpteacher_roleplay.json", "pool/gpteacher_roleplay.json"),
    file!("pool", "gpteacher_toolformer.json", "pool/gpteacher_toolformer.json"),
    file!("pool", "gsm8k.jsonl", "pool/gsm8k.jsonl"),
    file!("pool", "t0_p3.jsonl", "pool/t0_p3.jsonl"),
    file!("pool", "tydiqa.jsonl", "pool/tydiqa.jsonl"),
    file!("gsm8k", "gsm8k.jsonl", "gsm8k.jsonl"),
    file!("tydiqa", "tydiqa.jsonl", "tydiqa.jsonl"),
];

/// The files of `example:set`, sorted by name; none if there is no such set.
pub(super) fn files(set: &str) -> impl Iterator<Item = EmbeddedFile> {
    FILES.into_iter().filter(move |file| file.set == set)
}

/// Every `example:NAME`, for messages.
pub(super) fn names() -> String {
    let mut sets: Vec<&str> = FILES.iter().map(|file| file.set).collect();
    sets.dedup();
    sets.iter().map(|set| format!("`example:{set}`")).collect::<Vec<_>>().join(", ")
}
