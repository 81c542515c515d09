//! The zip archive around a pickle and its storages.

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive};

use super::TorchFileError;

/// A pickle of the format before 1.6: protocol 2, and a magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// The tar archives of the earliest versions name their parts.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Longer than the pickle of any model: a tensor takes about 150 bytes of it.
const MAX_PICKLE: usize = 8 << 20;

/// Where things are in the bytes of an archive.
#[derive(Debug)]
pub(super) struct Records {
    /// `data.pkl`.
    pub(super) pickle: Range<usize>,
    /// The storages by name, `0` for `data/0`.
    pub(super) storages: BTreeMap<String, Range<usize>>,
}

/// Finds the records of an archive.
pub(super) fn records(bytes: &[u8]) -> Result<Records, TorchFileError> {
    let (tar_at, tar) = TAR_MAGIC;
    if bytes.starts_with(LEGACY) || bytes.get(tar_at..).is_some_and(|rest| rest.starts_with(tar)) {
        return Err(TorchFileError::Legacy);
    }
    let mut all = stored_entries(bytes)?;
    // Every record is in one folder, which has the file's name or that of one
    // it was renamed from.
    let is_pickle =
        |name: &&String| name.split_once('/').is_some_and(|(_, rest)| rest == "data.pkl");
    let pickle_name = all.keys().find(is_pickle).cloned();
    let pickle_name = pickle_name.ok_or_else(|| damaged("it has no `data.pkl`"))?;
    let folder = &pickle_name[..pickle_name.len() - "data.pkl".len()];
    if let Some(order) = all.remove(&format!("{folder}byteorder"))
        && bytes[order.clone()] != *b"little"
    {
        let order = String::from_utf8_lossy(&bytes[order]).chars().take(16).collect();
        return Err(TorchFileError::ByteOrder(order));
    }
    let pickle = all[&pickle_name].clone();
    if pickle.len() > MAX_PICKLE {
        return Err(damaged("its `data.pkl` is longer than 8 MiB"));
    }
    let prefix = format!("{folder}data/");
    let storage =
        |(name, range): (String, _)| Some((name.strip_prefix(&prefix)?.to_owned(), range));
    Ok(Records { pickle, storages: all.into_iter().filter_map(storage).collect() })
}

/// The bytes of every entry, none of which is compressed.
fn stored_entries(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, TorchFileError> {
    let fail = |err: rawzip::Error| damaged(&err.to_string());
    let archive = ZipArchive::from_slice(bytes).map_err(fail)?;
    let mut found = BTreeMap::new();
    for entry in archive.entries() {
        let entry = entry.map_err(fail)?;
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        if entry.compression_method() != CompressionMethod::STORE {
            return Err(damaged(&format!("its entry `{name}` is compressed")));
        }
        let content = archive.get_entry(entry.wayfinder()).map_err(fail)?;
        let (start, end) = content.compressed_data_range();
        // Which one PyTorch would read is nobody's guess to make.
        if found.insert(name.clone(), start as usize..end as usize).is_some() {
            return Err(damaged(&format!("it has two entries `{name}`")));
        }
    }
    Ok(found)
}

fn damaged(why: &str) -> TorchFileError {
    TorchFileError::Archive(why.to_owned())
}
