//! Small files that carry a checksum over the rest of themselves, so that a
//! changed bit or a missing end is an error and never another value.
//!
//! JSON has it as its first field, `checksum`; other text as its last line, a
//! comment. Nothing else tells whether such a file is what was written: no
//! other file holds its checksum.

use std::io;
use std::path::Path;

use fs_err as fs;
use serde::Serialize;
use serde::de::DeserializeOwned;

const JSON_START: &str = "{\n";
const BEFORE: &str = "  \"checksum\": \"";
const AFTER: &str = "\",\n";
const COMMENT: &str = "# checksum ";
/// Hex digits of a blake3 checksum.
const DIGITS: usize = 64;

/// Writes `value`, an object, as indented JSON with its checksum, atomically.
///
/// # Errors
///
/// The I/O error of any step.
///
/// # Panics
///
/// If `value` is not written as an object with fields.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    let fields = text.strip_prefix(JSON_START).expect("an object with fields");
    crate::fs::write_atomic(path, |out| {
        write!(out, "{JSON_START}{BEFORE}{}{AFTER}{fields}", checksum(&text))
    })
}

/// What is wrong with the contents of a sealed file.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The checksum is not where it belongs.
    #[error("has no checksum of its own: it is damaged, or of another version")]
    NoChecksum,
    /// The checksum is of something else.
    #[error("is not what was written: its bytes were altered")]
    Altered,
    /// It is what was written, and that is something else.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The value that [`write_json`] wrote as `bytes`.
///
/// # Errors
///
/// If they are not those that were written, in any bit.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Broken> {
    let text = str::from_utf8(bytes).map_err(|_| Broken::Altered)?;
    let sealed = text.strip_prefix(JSON_START).and_then(|text| text.strip_prefix(BEFORE));
    let (found, rest) =
        sealed.and_then(|text| text.split_at_checked(DIGITS)).ok_or(Broken::NoChecksum)?;
    let fields = rest.strip_prefix(AFTER).ok_or(Broken::NoChecksum)?;
    let text = format!("{JSON_START}{fields}");
    if checksum(&text) != found {
        return Err(Broken::Altered);
    }
    Ok(serde_json::from_str(&text)?)
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
///
/// If the file cannot be read, or is [`Broken`]: then of the kind
/// [`InvalidData`](io::ErrorKind::InvalidData).
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    parse_json(&fs::read(path)?).map_err(|broken| {
        let message = format!("`{}` {broken}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// `text`, whole lines in which `#` begins a comment, with its checksum as the
/// last of them.
pub fn with_checksum(text: &str) -> String {
    format!("{text}{COMMENT}{}\n", checksum(text))
}

/// Whether `text` ends with the checksum of the lines before.
pub fn has_its_checksum(text: &str) -> bool {
    text.rfind(COMMENT).is_some_and(|at| with_checksum(&text[..at]) == text)
}

fn checksum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn every_damage(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        let flips = (0..8 * bytes.len()).map(|bit| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        flips.chain((0..bytes.len()).map(|length| bytes[..length].to_vec()))
    }

    #[test]
    fn every_bit_and_every_truncation_of_sealed_json_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.json");
        let value = BTreeMap::from([("seconds".to_owned(), 0.1), ("rows".to_owned(), 7.0)]);
        write_json(&path, &value).unwrap();
        assert_eq!(read_json::<BTreeMap<String, f64>>(&path).unwrap(), value);
        for damaged in every_damage(&fs::read(&path).unwrap()) {
            assert!(parse_json::<BTreeMap<String, f64>>(&damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn every_bit_and_every_truncation_of_sealed_text_counts() {
        let text = with_checksum("seed = 1\nepochs = 2\n");
        assert!(has_its_checksum(&text));
        for damaged in every_damage(text.as_bytes()) {
            assert!(!String::from_utf8(damaged).is_ok_and(|text| has_its_checksum(&text)));
        }
    }
}
