//! One file from the hub into its place in the cache.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::listing::RemoteFile;
use super::{Fetch, Hub, HubErrorKind};
use crate::config::location;
use crate::fs::{parent, remove_if_there, sync_dir};
use crate::progress::Event;

/// How far a model is.
#[derive(Clone, Copy)]
pub(super) struct Progress<'a> {
    pub(super) model: &'a str,
    /// Bytes of the files before this one.
    pub(super) before: u64,
    /// Bytes of all files.
    pub(super) total: u64,
}

impl Hub {
    /// Asks for the bytes behind `url` from the one numbered `from` on.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Response<Body>, HubErrorKind> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|err| match err {
            ureq::Error::StatusCode(status @ (401 | 403)) => HubErrorKind::Refused(status),
            ureq::Error::StatusCode(status) => HubErrorKind::Status(status),
            other => HubErrorKind::Connection(Box::new(other)),
        })
    }
}

impl Fetch<'_> {
    /// Links a file into the snapshot, fetched first where no blob has its content.
    pub(super) fn bring(
        &self,
        file: &RemoteFile,
        url: &str,
        snapshot: &Path,
        progress: Progress<'_>,
    ) -> Result<(), HubErrorKind> {
        let link = snapshot.join(&file.name);
        let blob = self.folder().join("blobs").join(file.etag());
        if !link.exists() {
            if !blob.exists() {
                let _one_process_at_a_time = self.lock(file)?;
                if !blob.exists() {
                    self.download(file, url, &blob, progress)?;
                }
            }
            fs::create_dir_all(parent(&link))?;
            // A link to a blob that somebody removed.
            remove_if_there(&link)?;
            let up = "../".repeat(2 + file.name.matches('/').count());
            fs::os::unix::fs::symlink(format!("{up}blobs/{}", file.etag()), &link)?;
            sync_dir(parent(&link))?;
        }
        self.tell(file, progress, file.size);
        Ok(())
    }

    /// Where the hub's own tools hold theirs, so that they wait for us and we for them.
    fn lock(&self, file: &RemoteFile) -> Result<fs::File, HubErrorKind> {
        let locks = self.hub.cache.join(".locks").join(location::hub_folder(&self.name.id));
        fs::create_dir_all(&locks)?;
        let lock = fs::File::create(locks.join(format!("{}.lock", file.etag())))?;
        lock.file().lock()?;
        Ok(lock)
    }

    fn download(
        &self,
        file: &RemoteFile,
        url: &str,
        blob: &Path,
        progress: Progress<'_>,
    ) -> Result<(), HubErrorKind> {
        let partial = PathBuf::from(format!("{}.incomplete", blob.display()));
        fs::create_dir_all(parent(blob))?;
        let mut out = fs::OpenOptions::new().create(true).append(true).read(true).open(&partial)?;
        if out.seek(SeekFrom::End(0))? > file.size {
            out.set_len(0)?;
        }
        let mut most = out.metadata()?.len();
        while out.metadata()?.len() != file.size {
            let outcome = self.append(file, url, &mut out, progress);
            let found = out.metadata()?.len();
            match outcome {
                // As long as something comes of it, it is tried again.
                Ok(()) | Err(HubErrorKind::Connection(_) | HubErrorKind::BrokenOff(_))
                    if (most + 1..=file.size).contains(&found) =>
                {
                    most = found;
                }
                Ok(()) => {
                    fs::remove_file(&partial)?;
                    let (file, expected) = (file.name.clone(), file.size);
                    return Err(HubErrorKind::Length { file, found, expected });
                }
                Err(kind) => return Err(kind),
            }
        }
        out.sync_all()?;
        fs::rename(&partial, blob)?;
        Ok(sync_dir(parent(blob))?)
    }

    /// Adds to `out` what it lacks, as far as it comes.
    fn append(
        &self,
        file: &RemoteFile,
        url: &str,
        out: &mut fs::File,
        progress: Progress<'_>,
    ) -> Result<(), HubErrorKind> {
        let mut done = out.metadata()?.len();
        let answer = self.hub.get(url, done).map_err(|kind| match kind {
            HubErrorKind::Status(404) => HubErrorKind::NoFile(file.name.clone()),
            other => other,
        })?;
        // A server may give all of it where it was asked for the rest.
        if answer.status() != StatusCode::PARTIAL_CONTENT && done > 0 {
            out.set_len(0)?;
            done = 0;
        }
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 1 << 20];
        loop {
            self.tell(file, progress, done);
            if self.observer.is_interrupted() {
                return Err(HubErrorKind::Interrupted);
            }
            match body.read(&mut buffer).map_err(HubErrorKind::BrokenOff)? {
                0 => return Ok(()),
                n => out.write_all(&buffer[..n])?,
            }
            done = out.metadata()?.len();
            // No more than was announced is ever kept.
            if done > file.size {
                return Ok(());
            }
        }
    }

    fn tell(&self, file: &RemoteFile, progress: Progress<'_>, done: u64) {
        self.observer.notify(Event::Fetch {
            model: progress.model.to_owned(),
            file: file.name.clone(),
            done: progress.before + done,
            total: progress.total,
        });
    }
}
