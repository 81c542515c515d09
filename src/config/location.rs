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

/// Where the Hugging Face tools keep what they fetched: `$HF_HUB_CACHE`, else `hub` in
/// [`hub_home`].
pub fn hub_dir() -> Option<PathBuf> {
    set("HF_HUB_CACHE").or_else(|| hub_home().map(|home| home.join("hub")))
}

/// Where the Hugging Face tools are at home: `$HF_HOME`, else
/// `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`.
pub fn hub_home() -> Option<PathBuf> {
    set("HF_HOME")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/huggingface")))
}

/// What the hub's cache calls the folder of a model.
pub fn hub_folder(name: &str) -> String {
    format!("models--{}", name.replace('/', "--"))
}

/// A model's name and the revision behind its `@`, else `main`.
pub fn name_and_revision(text: &str) -> (&str, &str) {
    text.split_once('@').unwrap_or((text, MAIN))
}

const MAIN: &str = "main";

/// What an environment variable says, if anything.
pub(crate) fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of a model given as a path, as a name in the cache, or as one on the
/// Hugging Face hub that was fetched, `ORG/NAME` or `ORG/NAME@REVISION`.
pub fn model_dir(name_or_path: &str) -> Option<PathBuf> {
    let path = Path::new(name_or_path);
    if Gguf::is_path(path) && path.is_file() {
        return Some(path.to_owned());
    }
    if path.is_dir() {
        return Some(snapshot_of(path, MAIN).unwrap_or_else(|| path.to_owned()));
    }
    let is_name = path.components().count() == 1;
    let cached = || Some(cache_dir()?.join("models").join(name_or_path));
    if let Some(cached) = cached().filter(|cached| is_name && cached.is_dir()) {
        return Some(cached);
    }
    let (name, revision) = name_and_revision(name_or_path);
    snapshot_of(&hub_dir()?.join(hub_folder(name)), revision)
}

/// The files of a revision in a folder of the hub's cache: `snapshots/<commit>`, with
/// the commit of a branch or tag in `refs`.
fn snapshot_of(folder: &Path, revision: &str) -> Option<PathBuf> {
    let commit = fs_err::read_to_string(folder.join("refs").join(revision));
    let commit = commit.unwrap_or_else(|_| revision.to_owned());
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

    #[test]
    fn a_revision_is_a_branch_or_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("snapshots/0123abcd");
        fs_err::create_dir_all(&snapshot).unwrap();
        fs_err::create_dir_all(dir.path().join("refs/refs/pr")).unwrap();
        fs_err::write(dir.path().join("refs/refs/pr/1"), "0123abcd").unwrap();
        for revision in ["refs/pr/1", "0123abcd"] {
            assert_eq!(snapshot_of(dir.path(), revision), Some(snapshot.clone()));
        }
        assert_eq!(snapshot_of(dir.path(), MAIN), None);
        assert_eq!(name_and_revision("org/name@v1"), ("org/name", "v1"));
        assert_eq!(name_and_revision("org/name"), ("org/name", "main"));
    }
}
