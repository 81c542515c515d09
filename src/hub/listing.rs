//! Which files a model on the hub has, and which of them are fetched.

use serde::Deserialize;

use super::HubErrorKind;

/// What makes a folder a model.
pub(super) const CONFIG: &str = "config.json";

/// What is read besides weights, or goes along with a merged model.
const TEXTS: [&str; 10] = [
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Chat templates by name.
const TEMPLATES: &str = "additional_chat_templates/";

/// Files of weights, in the order in which readers ask for them (`model::shards`).
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The files of a model at a commit.
#[derive(Debug, Deserialize)]
pub struct Listing {
    #[serde(rename = "sha")]
    commit: String,
    siblings: Vec<RemoteFile>,
}

/// A file of a model.
#[derive(Debug, Deserialize)]
pub struct RemoteFile {
    /// Its path in the model's folder.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes.
    pub size: u64,
    #[serde(rename = "blobId")]
    blob_id: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

impl RemoteFile {
    /// What the cache knows its content by: git's hash, or that of a large file.
    pub(super) fn etag(&self) -> &str {
        self.lfs.as_ref().map_or(&self.blob_id, |lfs| &lfs.sha256)
    }

    /// What the cache has no place for. A path would let a server write anywhere.
    fn unsound(&self) -> Option<&str> {
        let name = self.name.strip_prefix(TEMPLATES).unwrap_or(&self.name);
        if name.is_empty() || name == ".." || name.contains(['/', '\\']) {
            return Some(&self.name);
        }
        Some(self.etag()).filter(|etag| !is_hash(etag))
    }
}

fn is_hash(text: &str) -> bool {
    (40..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Listing {
    /// The answer of `GET /api/models/ORG/NAME/revision/REVISION?blobs=true`.
    pub(super) fn parse(text: &str) -> Result<Self, HubErrorKind> {
        let listing: Self = serde_json::from_str(text).map_err(HubErrorKind::Listing)?;
        if !is_hash(&listing.commit) {
            return Err(HubErrorKind::Name(listing.commit));
        }
        Ok(listing)
    }

    /// Git's hash of the whole.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    fn file(&self, name: &str) -> Result<Option<&RemoteFile>, HubErrorKind> {
        let file = self.siblings.iter().find(|file| file.name == name);
        match file.and_then(RemoteFile::unsound) {
            Some(name) => Err(HubErrorKind::Name(name.to_owned())),
            None => Ok(file),
        }
    }

    /// Configuration, tokenizer and chat templates.
    pub(super) fn texts(&self) -> Result<Vec<&RemoteFile>, HubErrorKind> {
        if self.file(CONFIG)?.is_none() {
            return Err(HubErrorKind::NotAModel("config.json"));
        }
        let names = self.siblings.iter().map(|file| file.name.as_str());
        let is_text = |name: &&str| TEXTS.contains(name) || name.starts_with(TEMPLATES);
        let files = names.filter(is_text).map(|name| self.file(name).map(Option::into_iter));
        Ok(files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The index of the shards of weights, if they are in shards.
    pub(super) fn index(&self) -> Result<Option<&RemoteFile>, HubErrorKind> {
        for name in WEIGHTS {
            if self.file(name)?.is_some() {
                return Ok(None);
            }
            if let Some(index) = self.file(&format!("{name}.index.json"))? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// The one file that all weights are in.
    pub(super) fn single(&self) -> Result<Vec<&RemoteFile>, HubErrorKind> {
        for name in WEIGHTS {
            if let Some(file) = self.file(name)? {
                return Ok(vec![file]);
            }
        }
        Err(HubErrorKind::NotAModel("model.safetensors and no pytorch_model.bin"))
    }

    /// The files with these names.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<&RemoteFile>, HubErrorKind> {
        let file =
            |name: &String| self.file(name)?.ok_or_else(|| HubErrorKind::NoFile(name.clone()));
        names.iter().map(file).collect()
    }
}
