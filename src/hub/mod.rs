//! Models by name from the Hugging Face hub, fetched into the cache that its own tools
//! use (`location::hub_dir`), in that cache's layout.
//!
//! ```text
//! models--ORG--NAME/blobs/ETAG                  a file's content, by its hash
//! models--ORG--NAME/snapshots/COMMIT/FILE       links to blobs
//! models--ORG--NAME/refs/REVISION               the commit of a branch
//! ```
//!
//! A file that is not whole is `ETAG.incomplete`, where the next try goes on. The ref,
//! by which the cache is read, is written last, so that a model is there with all of its
//! files or not at all. [`listing`] says which files those are, `download` brings one.
//!
//! Not by the crate hf-hub: its version 1 brings 300 crates and a runtime, and the one
//! before writes the ref with the first file and takes a file of any length.

mod download;
pub mod listing;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use listing::{Listing, RemoteFile};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::location::{self, set};
use crate::fs::write_atomic;
use crate::model::shards;
use crate::progress::Observer;

/// A model's name on the hub, `ORG/NAME` or `ORG/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoName {
    id: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl FromStr for RepoName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, revision) = location::name_and_revision(text);
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !word.contains("..")
        };
        let is_name = id.split('/').count() == 2 && id.split('/').all(is_word);
        if !is_name || !revision.split('/').all(is_word) {
            return Err(());
        }
        Ok(Self { id: id.to_owned(), revision: revision.to_owned() })
    }
}

impl RepoName {
    /// Whether the machine has all of the model that a reader asks for. The hub's own
    /// tools leave a snapshot of what was used, which may be the tokenizer alone.
    pub fn is_here(&self) -> bool {
        let dir = location::model_dir(&format!("{}@{}", self.id, self.revision));
        dir.is_some_and(|dir| {
            let weights = shards::paths(&dir).unwrap_or_default();
            let is_whole = !weights.is_empty() && weights.iter().all(|path| path.exists());
            is_whole && dir.join(listing::CONFIG).exists()
        })
    }
}

/// A hub, and the cache for what is fetched from it.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    agent: Agent,
}

/// Why a model was not fetched. What came of it so far is kept for the next try.
#[derive(Debug, thiserror::Error)]
#[error("the model `{name}` could not be fetched from {endpoint}")]
pub struct HubError {
    /// Its name.
    pub name: String,
    /// Where it was asked for.
    pub endpoint: String,
    /// What was in the way.
    #[source]
    pub kind: HubErrorKind,
}

/// What was in the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubErrorKind {
    /// The hub does not know it.
    #[error("it is not there, or revision `{0}` is not")]
    NotFound(String),
    /// The hub does not let this user have it; it also says so of what is not there.
    #[error("it is not there, or access to it needs a token (status {0})")]
    Refused(u16),
    /// A file is listed and not there.
    #[error("its file `{0}` is not there")]
    NoFile(String),
    /// It is nothing that this program reads.
    #[error("it has no {0}")]
    NotAModel(&'static str),
    /// Another answer than the file.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// What is said of its files is not what a hub says.
    #[error("the list of its files is damaged")]
    Listing(#[source] serde_json::Error),
    /// What is said of its files names something that is no file of a cache.
    #[error("the list of its files has `{0}`, which is no name")]
    Name(String),
    /// The index of shards is not what it should be.
    #[error("its index of shards is damaged")]
    Index(#[source] serde_json::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[source] Box<ureq::Error>),
    /// The connection ended too early, again and again.
    #[error("the connection broke off")]
    BrokenOff(#[source] io::Error),
    /// A file of another length than was announced.
    #[error("its file `{file}` comes with {found} bytes, the list says {expected}")]
    Length {
        /// The file.
        file: String,
        /// Bytes that came.
        found: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The cache could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The user asked to stop.
    #[error("stopped on request")]
    Interrupted,
}

impl Hub {
    /// The hub that the environment names, as the hub's own tools do: `HF_ENDPOINT`, the
    /// cache, and the token in `HF_TOKEN` or the one they were given. `None` if
    /// `HF_HUB_OFFLINE` is set, or there is no place for a cache.
    pub fn from_env() -> Option<Self> {
        let text = |name| set(name).and_then(|value| value.into_os_string().into_string().ok());
        let offline = text("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        if ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()) {
            return None;
        }
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let token = || fs_err::read_to_string(location::hub_home()?.join("token")).ok();
        Some(Self::new(&endpoint, location::hub_dir()?, text("HF_TOKEN").or_else(token)))
    }

    /// A hub at an address, whose files are kept in the folder `cache`.
    pub fn new(endpoint: &str, cache: PathBuf, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("less-select/", env!("CARGO_PKG_VERSION")))
            // A file's content may be at another host, which the token is not for.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .tls_config(TlsConfig::builder().root_certs(roots()).build())
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .build();
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Self { endpoint, cache, token, agent: config.into() }
    }

    /// Fetches what a model needs (configuration, tokenizer, chat templates, weights) and
    /// gives its folder. Files that are there already are not fetched again.
    ///
    /// # Errors
    ///
    /// If the hub does not have it or does not let us have it, it is no model that this
    /// program reads, the connection fails, or the cache cannot be written.
    pub fn fetch(&self, name: &RepoName, observer: &dyn Observer) -> Result<PathBuf, HubError> {
        Fetch { hub: self, name, observer }.all().map_err(|kind| HubError {
            name: name.id.clone(),
            endpoint: self.endpoint.clone(),
            kind,
        })
    }
}

/// Whom a server's certificate may come from: the authorities in `SSL_CERT_FILE`, as where
/// a company looks into its connections, else Mozilla's.
fn roots() -> RootCerts {
    let pem = set("SSL_CERT_FILE").and_then(|path| fs_err::read(path).ok());
    let certificates = pem.iter().flat_map(|pem| parse_pem(pem)).filter_map(Result::ok);
    let certificates: Vec<Certificate<'static>> = certificates
        .filter_map(|item| if let PemItem::Certificate(one) = item { Some(one) } else { None })
        .collect();
    if certificates.is_empty() { RootCerts::WebPki } else { certificates.into() }
}

/// A model on its way.
struct Fetch<'a> {
    hub: &'a Hub,
    name: &'a RepoName,
    observer: &'a dyn Observer,
}

impl Fetch<'_> {
    fn all(&self) -> Result<PathBuf, HubErrorKind> {
        let listing = self.listing()?;
        let snapshot = self.folder().join("snapshots").join(listing.commit());
        let texts = listing.texts()?;
        self.files(&listing, &snapshot, &texts)?;
        let weights = match listing.index()? {
            None => listing.single()?,
            Some(index) => {
                self.files(&listing, &snapshot, &[index])?;
                let text = fs_err::read_to_string(snapshot.join(&index.name))?;
                let names = shards::names_in(&text).map_err(HubErrorKind::Index)?;
                listing.named(&names)?
            }
        };
        self.files(&listing, &snapshot, &weights)?;
        // A commit is its own ref.
        if self.name.revision != listing.commit() {
            let path = self.folder().join("refs").join(&self.name.revision);
            write_atomic(&path, |out| out.write_all(listing.commit().as_bytes()))?;
        }
        Ok(snapshot)
    }

    fn folder(&self) -> PathBuf {
        self.hub.cache.join(location::hub_folder(&self.name.id))
    }

    fn listing(&self) -> Result<Listing, HubErrorKind> {
        let RepoName { id, revision } = self.name;
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{id}/revision/{revision}?blobs=true", self.hub.endpoint);
        let mut answer = self.hub.get(&url, 0).map_err(|kind| match kind {
            HubErrorKind::Status(404) => HubErrorKind::NotFound(self.name.revision.clone()),
            other => other,
        })?;
        let text = answer.body_mut().read_to_string();
        Listing::parse(&text.map_err(|err| HubErrorKind::Connection(Box::new(err)))?)
    }

    /// Brings the files that are not in the snapshot yet.
    fn files(
        &self,
        listing: &Listing,
        snapshot: &Path,
        files: &[&RemoteFile],
    ) -> Result<(), HubErrorKind> {
        let total = files.iter().map(|file| file.size).sum();
        let mut done = 0;
        for file in files {
            let url = format!(
                "{}/{}/resolve/{}/{}",
                self.hub.endpoint,
                self.name.id,
                listing.commit(),
                file.name
            );
            let progress = download::Progress { model: &self.name.id, before: done, total };
            self.bring(file, &url, snapshot, progress)?;
            done += file.size;
        }
        Ok(())
    }
}
