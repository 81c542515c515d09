//! Where models and downloads are kept.

use std::path::{Path, PathBuf};

/// The cache shared by every checkout: `$LESS_SELECT_CACHE`, else
/// `$XDG_CACHE_HOME/less-select`, else `~/.cache/less-select`.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LESS_SELECT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("less-select")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/less-select")))
}

/// The folder of a model given as a path, or as a name in the cache.
pub fn model_dir(name_or_path: &str) -> Option<PathBuf> {
    let path = Path::new(name_or_path);
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let is_name = path.components().count() == 1;
    let cached = cache_dir()?.join("models").join(name_or_path);
    (is_name && cached.is_dir()).then_some(cached)
}
