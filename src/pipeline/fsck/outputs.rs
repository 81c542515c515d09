//! Whether what a stage recorded is there, byte for byte.

use std::io;
use std::path::Path;

use super::Check;
use crate::checkpoint::number_of;
use crate::fs::entries;
use crate::pipeline::PipelineError;
use crate::pipeline::manifest::StageRecord;
use crate::stage::Stage;
use crate::store::shard::named_fingerprint;

impl Check<'_> {
    /// Hashes every file of a stage. A store's shards are hashed when they are
    /// opened.
    pub(super) fn outputs(
        &mut self,
        stage: Stage,
        record: &StageRecord,
    ) -> Result<(), PipelineError> {
        let is_shard =
            |name: &str| stage == Stage::Gradients && named_fingerprint(Path::new(name)).is_some();
        for (n_done, (name, checksum)) in record.outputs.iter().enumerate() {
            if is_shard(name) {
                continue;
            }
            self.tell(stage, n_done, record.outputs.len())?;
            let path = self.run.root().join(name);
            match crate::fs::checksum(&path) {
                Ok(found) if found == *checksum => {}
                Ok(_) => {
                    self.damaged(Some(stage), &path, "its bytes were altered".to_owned());
                }
                Err(err) => self.unreadable(stage, &path, err)?,
            }
            self.count(&path);
        }
        Ok(())
    }

    /// Notes a file that cannot be read. One that merely may not be is not
    /// damaged.
    pub(super) fn unreadable(
        &mut self,
        stage: Stage,
        path: &Path,
        err: io::Error,
    ) -> io::Result<()> {
        let what = match err.kind() {
            io::ErrorKind::PermissionDenied => return Err(err),
            io::ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("cannot be read: {err}"),
        };
        self.damaged(Some(stage), path, what);
        Ok(())
    }

    pub(super) fn count(&mut self, path: &Path) {
        if let Ok(facts) = fs_err::metadata(path) {
            self.found.files += 1;
            self.found.bytes += facts.len();
        }
    }

    /// Looks for what would be taken for the warm-up's and is not: a checkpoint
    /// that it does not have, a file in one of its checkpoints.
    pub(super) fn checkpoints(&mut self) -> io::Result<()> {
        let Some(record) = self.manifest.stages.get(&Stage::Warmup) else { return Ok(()) };
        let recorded: Vec<_> =
            record.outputs.keys().map(|name| self.run.root().join(name)).collect();
        if recorded.is_empty() {
            return Ok(());
        }
        let is_known = |path: &Path| recorded.iter().any(|file| file.starts_with(path));
        let mut strangers = Vec::new();
        for folder in entries(&self.run.checkpoints())?.into_iter().filter(|path| path.is_dir()) {
            if is_known(&folder) {
                strangers.extend(entries(&folder)?.into_iter().filter(|file| !is_known(file)));
            } else if number_of(&folder).is_some() {
                strangers.push(folder);
            }
        }
        for path in strangers {
            let what = "is not of the warm-up, but would be taken for its own".to_owned();
            self.damaged(None, &path, what);
        }
        Ok(())
    }
}
