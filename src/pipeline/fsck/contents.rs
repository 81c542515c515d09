//! Whether the files of a run say the same.

use std::collections::BTreeSet;

use super::{Check, reason};
use crate::config::Config;
use crate::config::layers::Layer;
use crate::influence::example_scores_file::{CosinesFile, is_cosines};
use crate::influence::scores::ScoreTable;
use crate::pipeline::checksums::Checksums;
use crate::sealed;
use crate::stage::Stage;
use crate::store::Split;

impl Check<'_> {
    /// Whether the scores are those of the pool's rows, in their order.
    pub(super) fn scores(&mut self) {
        if !self.must_agree(Stage::Score, &[Stage::Ingest]) {
            return;
        }
        let path = self.run.scores();
        let scores = match ScoreTable::read(&path) {
            Ok(scores) => scores,
            Err(err) => return self.damaged(Some(Stage::Score), &path, reason(&err)),
        };
        let Some(pool) = self.table(Split::Pool) else { return };
        if !scores.rows.iter().map(|row| row.id).eq(pool.rows().iter().map(|row| row.id)) {
            let what = "does not have the rows of the pool, in their order".to_owned();
            self.damaged(Some(Stage::Score), &path, what);
        }
    }

    /// Whether the cosines open, and are those of the pool's rows, in their order.
    pub(super) fn cosines(&mut self) {
        let Some(record) = self.manifest.stages.get(&Stage::Score) else { return };
        let names = record.outputs.keys().map(|name| self.run.root().join(name));
        let paths: Vec<_> = names.filter(|path| is_cosines(path)).collect();
        for path in paths {
            let file = match CosinesFile::open(&path) {
                Ok(file) => file,
                Err(err) => {
                    self.damaged(Some(Stage::Score), &path, reason(&err));
                    continue;
                }
            };
            if !self.must_agree(Stage::Score, &[Stage::Ingest]) {
                continue;
            }
            let Some(pool) = self.table(Split::Pool) else { return };
            if !file.ids().eq(pool.rows().iter().map(|row| row.id)) {
                let what = "does not have the rows of the pool, in their order".to_owned();
                self.damaged(Some(Stage::Score), &path, what);
            }
        }
    }

    /// Whether `latest` names the subset that was selected.
    pub(super) fn latest(&mut self) {
        let Some(record) = self.manifest.stages.get(&Stage::Select) else { return };
        let names = record.outputs.keys().filter_map(|name| Some(name.split_once('/')?.0));
        let expected: BTreeSet<String> = names.map(|name| format!("{name}\n")).collect();
        let path = self.run.latest();
        let what = match fs_err::read_to_string(&path) {
            Ok(found) if expected.contains(&found) => return,
            Ok(_) => {
                let names: Vec<&str> = expected.iter().map(|name| name.trim()).collect();
                format!("does not name the subset that was selected, {}", names.join(" or "))
            }
            Err(err) => err.to_string(),
        };
        self.damaged(Some(Stage::Select), &path, what);
    }

    /// Whether the settings are those of the last run; the stages they name.
    pub(super) fn settings(&mut self) -> Vec<Stage> {
        let path = self.run.config();
        if self.manifest.stages.is_empty() && !path.exists() {
            return Stage::ALL.into_iter().filter(|stage| *stage != Stage::FirstPass).collect();
        }
        let what = match fs_err::read_to_string(&path) {
            Err(err) => err.to_string(),
            Ok(text) if !sealed::has_its_checksum(&text) => {
                "is not as `less-select` wrote it; it was altered, or edited by hand".to_owned()
            }
            Ok(_) => match Layer::run(&path) {
                Err(err) => reason(&err),
                Ok(layer) => return self.resolved(layer),
            },
        };
        self.damaged(None, &path, what);
        Vec::new()
    }

    fn resolved(&mut self, layer: Option<Layer>) -> Vec<Stage> {
        let layers: Vec<_> = [Layer::default_pipeline()].into_iter().chain(layer).collect();
        match Config::resolve(&layers) {
            Ok(config) => config.stages().collect(),
            Err(err) => {
                let path = self.run.config();
                let why = reason(&err);
                self.found.notes.push(format!("`{}` cannot be run on: {why}", path.display()));
                Vec::new()
            }
        }
    }

    /// What carries no result: its damage costs nothing.
    pub(super) fn logs(&mut self) {
        let cache = self.run.checksums();
        if cache.exists() && !Checksums::is_whole(&cache) {
            let note =
                format!("`{}` is damaged and not used; a run makes it anew", cache.display());
            self.found.notes.push(note);
        }
        let events = self.run.events();
        let log = fs_err::read(&events).unwrap_or_default();
        let mut lines: Vec<_> = log.split(|byte| *byte == b'\n').collect();
        let is_event = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).is_ok();
        if lines.pop().is_some_and(|rest| !rest.is_empty()) {
            let note = "ends in the middle of a line, as after a kill";
            self.found.notes.push(format!("`{}` {note}", events.display()));
        }
        let n_bad = lines.into_iter().filter(|line| !is_event(line)).count();
        if n_bad > 0 {
            let note = format!("`{}` has {n_bad} lines that are no events", events.display());
            self.found.notes.push(note);
        }
    }
}
