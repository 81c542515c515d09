//! Where models and downloads are kept.

use std::path::{Path, PathBuf};

use crate::gguf::Gguf;

/// The cache shared by every checkout: `$LESS_SELECT_CACHE`, else
/// `$XDG_CACHE_HOME/less-select`, else `~/.cache/less-select`.
pub fn cache_dir() -> Option<PathBuf> {
    set("LESS_SELECT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("less-select")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/less-select")))
}

/// Where the Hugging Face tools keep what they fetched: `$HF_HUB_CACHE`, else
/// `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else
/// `~/.cache/huggingface/hub`.
fn hub_dir() -> Option<PathBuf> {
    set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// What an environment variable says, if anything.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of a model given as a path, as a name in the cache, or as one on the
/// Hugging Face hub that was fetched.
pub fn model_dir(name_or_path: &str) -> Option<PathBuf> {
    let path = Path::new(name_or_path);
    if Gguf::is_path(path) && path.is_file() {
        return Some(path.to_owned());
    }
    if path.is_dir() {
        return Some(snapshot_of(path).unwrap_or_else(|| path.to_owned()));
    }
    let is_name = path.components().count() == 1;
    let cached = || Some(cache_dir()?.join("models").join(name_or_path));
    if let Some(cached) = cached().filter(|cached| is_name && cached.is_dir()) {
        return Some(cached);
    }
    let folder = format!("models--{}", name_or_path.replace('/', "--"));
    snapshot_of(&hub_dir()?.join(folder))
}

/// The files of the main branch in a folder of the hub's cache:
/// `snapshots/<commit>`, with the commit in `refs/main`.
fn snapshot_of(folder: &Path) -> Option<PathBuf> {
    let commit = fs_err::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(commit.trim());
    snapshot.is_dir().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_hubs_cache_is_its_main_branch() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models--org--name");
        let snapshot = folder.join("snapshots/0123abcd");
        fs_err::create_dir_all(&snapshot).unwrap();
        let model_dir = |path: &Path| model_dir(path.to_str().unwrap());
        assert_eq!(model_dir(&folder), Some(folder.clone()));
        fs_err::create_dir(folder.join("refs")).unwrap();
        fs_err::write(folder.join("refs/main"), "0123abcd\n").unwrap();
        assert_eq!(model_dir(&folder), Some(snapshot.clone()));
        assert_eq!(model_dir(&snapshot), Some(snapshot));
    }
}
