//! What a model folder has besides weights.

use std::io;
use std::path::Path;

use fs_err as fs;
use serde_json::{Map, Value, json};

use crate::fs::entries;

const CONFIG: &str = "config.json";
const TEMPLATES: &str = "additional_chat_templates";

/// What a trainer saves of a tokenizer that got tokens.
const TOKENIZER: [&str; 5] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Where the tokenizer's configuration has none.
const TEMPLATE: &str = "chat_template.jinja";

/// Writes the texts of the model in `model_dir` to `out`. For a checkpoint with a
/// vocabulary of its own, of `n_tokens` tokens, the tokenizer that was saved with it goes
/// along in place of the model's.
pub(super) fn write(
    model_dir: &Path,
    checkpoint_dir: &Path,
    n_tokens: Option<usize>,
    out: &Path,
) -> io::Result<()> {
    copy(model_dir, out)?;
    let Some(n_tokens) = n_tokens else { return Ok(()) };
    edit(&out.join(CONFIG), |config| {
        config.insert("vocab_size".to_owned(), json!(n_tokens));
    })?;
    // Of two tokenizers, no file of one may stay beside the other's.
    if TOKENIZER[..2].iter().any(|name| checkpoint_dir.join(name).exists()) {
        for name in TOKENIZER {
            crate::fs::remove_if_there(&out.join(name))?;
        }
        for name in TOKENIZER.into_iter().chain([TEMPLATE]) {
            let own = checkpoint_dir.join(name);
            if own.exists() {
                fs::copy(own, out.join(name))?;
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for path in entries(from)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let copied = to.join(safetensors_name(&name));
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if path.ends_with(TEMPLATES) {
            fs::create_dir(&copied)?;
            copy(&path, &copied)?;
        } else if path.is_file() && ["json", "jinja", "model", "txt"].contains(&kind) {
            fs::copy(&path, &copied)?;
            if safetensors_name(&name) != name {
                edit(&copied, rename_shards)?;
            }
        }
    }
    Ok(())
}

/// What a file of weights, or an index of such files, is called where weights are
/// safetensors.
pub(super) fn safetensors_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("pytorch_model") else { return name.to_owned() };
    format!("model{}", rest.replace(".bin", ".safetensors"))
}

fn rename_shards(index: &mut Map<String, Value>) {
    let shards = index.get_mut("weight_map").and_then(Value::as_object_mut);
    for shard in shards.into_iter().flat_map(Map::values_mut) {
        *shard = json!(safetensors_name(shard.as_str().unwrap_or_default()));
    }
}

/// Changes a JSON object in a file that nobody else knows yet.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> io::Result<()> {
    let mut object = serde_json::from_slice(&fs::read(path)?)?;
    change(&mut object);
    let permissions = fs::metadata(path)?.permissions();
    crate::fs::write_json(path, &object)?;
    fs::set_permissions(path, permissions)
}
