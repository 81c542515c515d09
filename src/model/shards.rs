//! Which files a model's weights are in.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::weights::{WeightsError, WeightsErrorKind, fail};
use crate::gguf::Gguf;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, ShardName>,
}

/// The name of a file beside the index. A path would let an index from
/// elsewhere read any file of this machine.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct ShardName(String);

impl TryFrom<String> for ShardName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let mut parts = Path::new(&name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(only)), None) if only == name.as_str() => Ok(Self(name)),
            _ => Err(format!("`{name}` is not the name of a file in the model's folder")),
        }
    }
}

/// The files that a model's weights are read from, an index of shards first.
///
/// # Errors
///
/// If there is none, or the index is damaged.
pub fn paths(model_dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    if Gguf::is_path(model_dir) {
        return Ok(vec![model_dir.to_owned()]);
    }
    // Of the two, no reader prefers the one that can hold a program.
    let named = |name: &str| Some(model_dir.join(name)).filter(|path| path.exists());
    let names = ["model.safetensors", "pytorch_model.bin"];
    let Some((name, is_single)) = names.into_iter().find_map(|name| {
        let index = || named(&format!("{name}.index.json")).map(|_| (name, false));
        named(name).map(|_| (name, true)).or_else(index)
    }) else {
        return Err(fail(model_dir, WeightsErrorKind::NoFile));
    };
    if is_single {
        return Ok(vec![model_dir.join(name)]);
    }
    let index_path = model_dir.join(format!("{name}.index.json"));
    let text = fs_err::read_to_string(&index_path).map_err(|err| fail(&index_path, err.into()))?;
    let names = names_in(&text).map_err(|err| fail(&index_path, WeightsErrorKind::Index(err)))?;
    let shards = names.into_iter().map(|name| model_dir.join(name));
    Ok([index_path].into_iter().chain(shards).collect())
}

/// The names of the shards that an index lists, each once, in order.
///
/// # Errors
///
/// If it is none, or a name is a path.
pub fn names_in(index: &str) -> Result<Vec<String>, serde_json::Error> {
    let index: Index = serde_json::from_str(index)?;
    let mut names: Vec<ShardName> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|ShardName(name)| name).collect())
}

pub(super) fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "json")
}
