//! Models by name, fetched from a hub that each test is itself.

mod server;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fs_err as fs;
use less_select::hub::{Hub, RepoName};
use less_select::progress::{Event, Observer, Silent};
use serde_json::Value;
use server::{Answer, COMMIT, Repo, Request, Server, answer};

use crate::support::TestRun;

/// A cache, and what a hub puts into it.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("models--tiny--llama")
    }

    fn fetch_as(
        &self,
        server: &Server,
        name: &str,
        observer: &dyn Observer,
    ) -> Result<PathBuf, String> {
        let name: RepoName = name.parse().unwrap();
        let hub = Hub::new(&server.url, self.dir.path().to_owned(), Some("secret\n".to_owned()));
        hub.fetch(&name, observer).map_err(|err| err.kind.to_string())
    }

    fn fetch(&self, server: &Server) -> Result<PathBuf, String> {
        self.fetch_as(server, "tiny/llama", &Silent)
    }

    /// Where the weights are while they are not whole.
    fn partial(&self, repo: &Repo) -> PathBuf {
        let hash = blake3::hash(&repo.bytes("model.safetensors")).to_hex();
        self.folder().join(format!("blobs/{hash}.incomplete"))
    }

    #[track_caller]
    fn assert_has(&self, snapshot: &Path, repo: &Repo) {
        for name in repo.names() {
            assert_eq!(fs::read(snapshot.join(&name)).unwrap(), repo.bytes(&name), "{name}");
        }
        let blobs = less_select::fs::entries(&self.folder().join("blobs")).unwrap();
        assert_eq!(blobs.len(), repo.names().len(), "{blobs:?}");
    }

    #[track_caller]
    fn assert_nothing_is_taken(&self) {
        assert!(!self.folder().join("refs").exists());
    }
}

#[test]
fn a_fetched_model_is_the_folder_it_was_made_of() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    let server = repo.clone().serve();
    let snapshot = desk.fetch(&server).unwrap();
    assert_eq!(snapshot, desk.folder().join("snapshots").join(COMMIT));
    desk.assert_has(&snapshot, &repo);
    assert_eq!(fs::read_to_string(desk.folder().join("refs/main")).unwrap(), COMMIT);
    let asked = server.take_asked();
    assert_eq!(asked.len(), 6, "{asked:?}");
    for Request { path, token, .. } in asked {
        let expected = if path.starts_with("/elsewhere") { None } else { Some("Bearer secret") };
        assert_eq!(token.as_deref(), expected, "{path}");
    }
    desk.fetch(&server).unwrap();
    assert_eq!(server.take_asked().len(), 1, "what is here is not fetched again");
}

#[test]
fn shards_are_those_that_the_index_names() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama-biased"));
    let snapshot = desk.fetch(&repo.clone().serve()).unwrap();
    desk.assert_has(&snapshot, &repo);
}

#[test]
fn a_revision_is_kept_under_its_own_name() {
    let (desk, server) = (Desk::new(), Repo::of_fixture("tiny-llama").serve());
    desk.fetch_as(&server, "tiny/llama@refs/pr/1", &Silent).unwrap();
    assert_eq!(
        server.take_asked()[0].path,
        "/api/models/tiny/llama/revision/refs%2Fpr%2F1?blobs=true"
    );
    assert_eq!(fs::read_to_string(desk.folder().join("refs/refs/pr/1")).unwrap(), COMMIT);
    assert!(!desk.folder().join("refs/main").exists());
    let (desk, commit) = (Desk::new(), format!("tiny/llama@{COMMIT}"));
    assert!(desk.fetch_as(&server, &commit, &Silent).unwrap().ends_with(COMMIT));
    desk.assert_nothing_is_taken();
}

/// A server of the tiny Llama whose connection ends after `cut` bytes of weights.
fn breaking_off(repo: &Repo, cut: usize) -> Server {
    let repo = repo.clone();
    Server::new(move |request, elsewhere| {
        let whole = repo.answer(request, elsewhere);
        let is_weights = request.path.starts_with("/elsewhere/");
        Answer { cut: if is_weights { cut } else { usize::MAX }, ..whole }
    })
}

fn starts(server: &Server) -> Vec<Option<usize>> {
    let asked = server.take_asked().into_iter();
    asked.filter(|asked| asked.path.starts_with("/elsewhere")).map(|asked| asked.from).collect()
}

#[test]
fn a_connection_that_breaks_off_is_continued_where_it_did() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    let n = repo.bytes("model.safetensors").len();
    let cut = n / 3 + 1;
    let server = breaking_off(&repo, cut);
    let snapshot = desk.fetch(&server).unwrap();
    desk.assert_has(&snapshot, &repo);
    assert_eq!(starts(&server), [None, Some(cut), Some(2 * cut)]);
}

#[test]
fn what_a_killed_process_left_is_continued() {
    let repo = Repo::of_fixture("tiny-llama");
    let whole = repo.bytes("model.safetensors");
    let n = whole.len();
    let too_long = [&whole[..], b"more"].concat();
    let cases = [(&whole[..100], vec![Some(100)]), (&whole, vec![]), (&too_long, vec![None])];
    for (left, expected) in cases {
        let (desk, server) = (Desk::new(), repo.clone().serve());
        fs::create_dir_all(desk.folder().join("blobs")).unwrap();
        fs::write(desk.partial(&repo), left).unwrap();
        let snapshot = desk.fetch(&server).unwrap();
        desk.assert_has(&snapshot, &repo);
        assert_eq!(starts(&server), expected, "{} of {n} bytes", left.len());
    }
}

#[test]
fn a_server_that_gives_all_where_the_rest_was_asked_for_is_understood() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    fs::create_dir_all(desk.folder().join("blobs")).unwrap();
    fs::write(desk.partial(&repo), [7; 100]).unwrap();
    let served = repo.clone();
    let server = Server::new(move |request, elsewhere| {
        served.answer(&Request { from: None, ..request.clone() }, elsewhere)
    });
    let snapshot = desk.fetch(&server).unwrap();
    desk.assert_has(&snapshot, &repo);
}

#[test]
fn nothing_half_written_is_taken() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    // Nothing comes of any try but the first.
    let server = {
        let repo = repo.clone();
        Server::new(move |request, elsewhere| {
            let cut = if request.from.is_some() { 0 } else { 1000 };
            let is_weights = request.path.starts_with("/elsewhere/");
            let cut = if is_weights { cut } else { usize::MAX };
            Answer { cut, ..repo.answer(request, elsewhere) }
        })
    };
    insta::assert_snapshot!(desk.fetch(&server).unwrap_err(), @"the connection broke off");
    desk.assert_nothing_is_taken();
    assert_eq!(fs::metadata(desk.partial(&repo)).unwrap().len(), 1000);
    assert!(!desk.folder().join("snapshots").join(COMMIT).join("model.safetensors").exists());

    let desk = Desk::new();
    let longer = Server::new(move |request, elsewhere| {
        let mut whole = repo.answer(request, elsewhere);
        if request.path.ends_with("/tokenizer.json") {
            whole.body.push(b' ');
        }
        whole
    });
    let said = desk.fetch(&longer).unwrap_err();
    assert!(said.starts_with("its file `tokenizer.json` comes with "), "{said}");
    desk.assert_nothing_is_taken();
}

/// What is said where the tiny Llama's listing is changed, or some path answered with an error.
fn said_of(change: impl Fn(&mut Value), path: &'static str, status: u16) -> String {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    let mut listing = repo.listing();
    change(&mut listing);
    let server = Server::new(move |request, elsewhere| match &request.path {
        asked if !path.is_empty() && asked.contains(path) => answer(status, "no"),
        asked if asked.starts_with("/api/") => answer(200, listing.to_string()),
        _ => repo.answer(request, elsewhere),
    });
    let said = desk.fetch(&server).unwrap_err();
    desk.assert_nothing_is_taken();
    said
}

#[test]
fn what_a_hub_does_not_give_is_named() {
    let as_it_is = |_: &mut Value| {};
    let without = |name: &'static str| {
        move |listing: &mut Value| {
            let files = listing["siblings"].as_array_mut().unwrap();
            files.retain(|file| file["rfilename"] != name);
        }
    };
    let said = [
        said_of(as_it_is, "/api/", 404),
        said_of(as_it_is, "/api/", 401),
        said_of(as_it_is, "/api/", 503),
        said_of(as_it_is, "/resolve/", 403),
        said_of(as_it_is, "tokenizer.json", 404),
        said_of(without("model.safetensors"), "", 0),
        said_of(without("config.json"), "", 0),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    it is not there, or revision `main` is not
    it is not there, or access to it needs a token (status 401)
    the server answers with status 503
    it is not there, or access to it needs a token (status 403)
    its file `tokenizer.json` is not there
    it has no model.safetensors and no pytorch_model.bin
    it has no config.json
    ");
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let name = "additional_chat_templates/../../../x";
    let said = [
        said_of(|listing| listing["siblings"][2]["rfilename"] = name.into(), "", 0),
        said_of(|listing| listing["siblings"][0]["blobId"] = "../../x".into(), "", 0),
        said_of(|listing| listing["sha"] = "..".into(), "", 0),
        said_of(|listing| listing["siblings"] = 7.into(), "", 0),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    the list of its files has `additional_chat_templates/../../../x`, which is no name
    the list of its files has `../../x`, which is no name
    the list of its files has `..`, which is no name
    the list of its files is damaged
    ");
    for name in ["../x", "/x/y", "x", "x/y/z", "x/..", "x/y@../z", "-x/y", "x/", "x/y@"] {
        assert!(name.parse::<RepoName>().is_err(), "{name}");
    }
}

/// Asks to stop after the first bytes of weights.
#[derive(Default)]
struct Impatient(Mutex<Vec<(u64, u64)>>);

impl Observer for Impatient {
    fn notify(&self, event: Event) {
        let Event::Fetch { file, done, total, .. } = event else { panic!("{event:?}") };
        if file == "model.safetensors" {
            self.0.lock().unwrap().push((done, total));
        }
    }

    fn is_interrupted(&self) -> bool {
        self.0.lock().unwrap().iter().any(|(done, _)| *done > 0)
    }
}

#[test]
fn a_download_is_told_of_and_stops_on_request() {
    let (desk, repo) = (Desk::new(), Repo::of_fixture("tiny-llama"));
    let impatient = Impatient::default();
    let said = desk.fetch_as(&repo.clone().serve(), "tiny/llama", &impatient).unwrap_err();
    insta::assert_snapshot!(said, @"stopped on request");
    let n = repo.bytes("model.safetensors").len() as u64;
    let told = impatient.0.into_inner().unwrap();
    assert!(told[0] == (0, n) && told[1].0 > 0, "{told:?}");
    desk.assert_nothing_is_taken();
    assert_eq!(fs::metadata(desk.partial(&repo)).unwrap().len(), told[1].0);
}

/// `less-select merge` with a model that is named, asked of `server`.
fn merge(run: &TestRun, server: &Server, offline: &str) -> crate::support::Said {
    let checkpoint =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-checkpoints/epoch-1");
    let _ = fs::remove_dir_all(run.path("merged"));
    let mut command = run.command(&["merge", checkpoint, "merged", "--model", "tiny/llama"]);
    command.env("HF_ENDPOINT", &server.url).env("HF_HOME", run.path("home"));
    command.env_remove("HF_HUB_CACHE").env("HF_TOKEN", "secret").env("NO_PROXY", "*");
    run.said(command.env("HF_HUB_OFFLINE", offline))
}

#[test]
fn a_model_that_is_named_is_fetched_once() {
    let (run, server) = (TestRun::new(3), Repo::of_fixture("tiny-llama").serve());
    let offline = merge(&run, &server, "1");
    assert_eq!(offline.code, 2);
    assert!(offline.stderr.contains("no model `tiny/llama`"), "{}", offline.stderr);
    assert!(server.take_asked().is_empty());

    let fetched = merge(&run, &server, "0");
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    assert!(run.path("merged/model.safetensors").is_file());
    assert_eq!(server.take_asked()[0].token.as_deref(), Some("Bearer secret"));
    assert_eq!(merge(&run, &server, "0").code, 0);
    assert!(server.take_asked().is_empty());

    // As the hub's own tools leave it where only the tokenizer was used.
    let snapshot = run.path("home/hub/models--tiny--llama/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    assert_eq!(merge(&run, &server, "0").code, 0);
    assert_eq!(server.take_asked().len(), 1, "the blob is still there");
}

#[test]
fn a_model_that_is_refused_is_named_with_the_way_out() {
    let run = TestRun::new(3);
    let server = Server::new(|_, _| answer(401, "no"));
    let said = merge(&run, &server, "");
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr.replace(&server.url, "HUB"), @r"
    error: the model `tiny/llama` could not be fetched from HUB
      caused by: it is not there, or access to it needs a token (status 401)
    hint: look at the name; for a model that is private, or whose terms are to be accepted on its page, set HF_TOKEN
    ");
    let server = Server::new(|_, _| answer(502, "no"));
    let said = merge(&run, &server, "");
    assert_eq!(said.code, 75);
    insta::assert_snapshot!(said.stderr.replace(&server.url, "HUB"), @r"
    error: the model `tiny/llama` could not be fetched from HUB
      caused by: the server answers with status 502
    hint: the same command continues where this one ended; HF_ENDPOINT names another server, and --model DIR needs none
    ");
}
