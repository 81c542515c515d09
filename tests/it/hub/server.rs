//! A hub of one model, as far as its clients can tell.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fs_err as fs;
use serde_json::{Value, json};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// The first byte that is wanted.
    pub(crate) from: Option<usize>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    /// Bytes after which the connection ends, whatever was announced.
    pub(crate) cut: usize,
}

pub(crate) fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: String::new(), body: body.into(), cut: usize::MAX }
}

/// A hub that answers as `answer` has it, and what it was asked.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Request, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&stream);
                notes.lock().unwrap().push(request.clone());
                // Another host, as far as a client can tell.
                let elsewhere = format!("http://localhost:{port}/elsewhere");
                write(&mut stream, &answer(&request, &elsewhere));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), asked }
    }

    pub(crate) fn take_asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn read(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut request = Request { path, token: None, from: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_lowercase().as_str() {
            "authorization" => request.token = Some(value.to_owned()),
            "range" => {
                let from = value.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
                request.from = Some(from.parse().unwrap());
            }
            _ => {}
        }
    }
    request
}

fn write(stream: &mut TcpStream, answer: &Answer) {
    let Answer { status, headers, body, cut } = answer;
    let n = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {n}\r\nConnection: close\r\n{headers}\r\n");
    // The client may have heard enough.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..n.min(*cut)]);
}

/// A model in a folder, as a hub has it: small files as they are, weights elsewhere.
#[derive(Clone)]
pub(crate) struct Repo {
    dir: PathBuf,
}

impl Repo {
    pub(crate) fn of_fixture(name: &str) -> Self {
        Self { dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name) }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let paths = less_select::fs::entries(&self.dir).unwrap();
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap()
    }

    pub(crate) fn listing(&self) -> Value {
        let file = |name: &String| {
            let bytes = self.bytes(name);
            let hash = blake3::hash(&bytes).to_hex().to_string();
            let mut file = json!({ "rfilename": name, "size": bytes.len(), "blobId": &hash[..40] });
            if is_large(name) {
                file["lfs"] = json!({ "sha256": hash, "size": bytes.len(), "pointerSize": 134 });
            }
            file
        };
        let files: Vec<Value> = self.names().iter().map(file).collect();
        json!({ "id": "tiny/llama", "sha": COMMIT, "siblings": files, "tags": [] })
    }

    pub(crate) fn answer(&self, request: &Request, elsewhere: &str) -> Answer {
        if request.path.starts_with("/api/models/tiny/llama/revision/") {
            return answer(200, self.listing().to_string());
        }
        if let Some(name) = request.path.strip_prefix("/elsewhere/") {
            let from = request.from.unwrap_or(0);
            return answer(if from > 0 { 206 } else { 200 }, &self.bytes(name)[from..]);
        }
        let prefix = format!("/tiny/llama/resolve/{COMMIT}/");
        match request.path.strip_prefix(&prefix) {
            Some(name) if is_large(name) => {
                let headers = format!("Location: {elsewhere}/{name}\r\n");
                Answer { headers, ..answer(302, "") }
            }
            Some(name) => answer(200, self.bytes(name)),
            None => answer(404, "no such thing"),
        }
    }

    pub(crate) fn serve(self) -> Server {
        Server::new(move |request, elsewhere| self.answer(request, elsewhere))
    }
}

pub(crate) fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}
