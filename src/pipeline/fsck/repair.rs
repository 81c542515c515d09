//! Removing what is damaged, and nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::Damage;
use crate::pipeline::manifest::Manifest;
use crate::run_dir::RunDir;
use crate::store::shard::remove_shard;

/// Takes the stages of what is damaged off the manifest, and then removes it:
/// whatever kills this leaves nothing that counts as complete and is not.
pub(super) fn drop_damaged(run: &RunDir, damaged: &[Damage]) -> io::Result<()> {
    if damaged.iter().any(|damage| damage.path == run.manifest()) {
        fs_err::remove_file(run.manifest())?;
    }
    let stages: BTreeSet<_> = damaged.iter().filter_map(|damage| damage.stage).collect();
    let manifest = Manifest::read(run)?;
    for (stage, record) in manifest.stages.iter().filter(|(stage, _)| stages.contains(stage)) {
        Manifest::forget(run, *stage, record)?;
    }
    for damage in damaged {
        drop_one(run, &damage.path)?;
    }
    Ok(())
}

fn drop_one(run: &RunDir, path: &Path) -> io::Result<()> {
    if path == run.config() && path.exists() {
        // Perhaps nobody else knows them: a whole run is given its settings
        // anew, but by somebody.
        return fs_err::rename(path, run.damaged_config());
    }
    if path.is_dir() {
        return fs_err::remove_dir_all(path);
    }
    if path.extension() == Some("arrow".as_ref()) {
        return remove_shard(path);
    }
    crate::fs::remove_if_there(path)
}
