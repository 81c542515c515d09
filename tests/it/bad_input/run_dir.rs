//! The run directory, and the disk under it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use super::{Desk, error, halve};
use crate::support::committed_shards;

#[test]
fn a_file_in_the_place_of_the_run_directory_is_named() {
    let desk = Desk::new();
    desk.run.write("run", "somebody's notes");
    insta::assert_snapshot!(desk.refuses(&[], 74), @r"
    error: cannot work in `run`
      caused by: failed to create directory `run`: File exists (os error 17)
    hint: name another place with --run
    ");
    assert_eq!(fs_err::read_to_string(desk.path("run")).unwrap(), "somebody's notes");
    fs_err::remove_file(desk.path("run")).unwrap();
    desk.completes();
}

#[test]
fn a_file_in_the_place_of_a_folder_of_the_run_is_named() {
    let desk = Desk::new();
    fs_err::create_dir(desk.path("run")).unwrap();
    desk.run.write("run/checkpoints", "somebody's notes");
    insta::assert_snapshot!(desk.refuses(&[], 74), @r"
    error: the warm-up failed
      caused by: failed to create directory `run/checkpoints`: File exists (os error 17)
    ");
    fs_err::remove_file(desk.path("run/checkpoints")).unwrap();
    desk.completes();
}

#[test]
fn a_damaged_file_of_the_run_stops_a_stage_and_is_made_anew_by_a_whole_run() {
    let desk = Desk::new();
    desk.completes();
    let says = |file: &str, stage: &[&str]| {
        flip_a_byte(&desk.path(file));
        let error = error(&desk.run.say(stage), 76);
        desk.completes();
        error
    };
    let adapter = "run/checkpoints/epoch-1/adapter_model.safetensors";
    insta::assert_snapshot!(says(adapter, &["gradients", "--store-dtype", "f32"]), @r"
    error: `run/checkpoints/epoch-1/adapter_model.safetensors` is not as stage `warmup` wrote it
    hint: `less-select fsck` names all that is damaged; with `--repair` it removes that, and `less-select` makes it anew
    ");
    insta::assert_snapshot!(says("run/pool/pool.parquet", &["warmup", "--lora-alpha", "64"]), @r"
    error: `run/pool/pool.parquet` is not as stage `ingest` wrote it
    hint: `less-select fsck` names all that is damaged; with `--repair` it removes that, and `less-select` makes it anew
    ");
    insta::assert_snapshot!(says("run/scores.parquet", &["select", "--budget", "2"]), @r"
    error: `run/scores.parquet` is not as stage `score` wrote it
    hint: `less-select fsck` names all that is damaged; with `--repair` it removes that, and `less-select` makes it anew
    ");
}

#[test]
fn a_damaged_manifest_is_named_and_made_anew_once_it_is_removed() {
    let desk = Desk::new();
    desk.completes();
    desk.run.write("run/manifest.json", "{");
    insta::assert_snapshot!(desk.refuses(&[], 76), @r"
    error: `run/manifest.json` is not a manifest this version can read: has no checksum of its own: it is damaged, or of another version
    hint: `less-select fsck` names all that is damaged; with `--repair` it removes that, and `less-select` makes it anew
    ");
    fs_err::remove_file(desk.path("run/manifest.json")).unwrap();
    desk.completes();
}

#[test]
fn leftovers_of_a_dead_run_are_not_trusted() {
    let desk = Desk::new();
    // What a power cut leaves: files half written under their last name or a
    // temporary one, and no manifest that vouches for them.
    desk.completes();
    fs_err::remove_file(desk.path("run/manifest.json")).unwrap();
    let shard = |store: &str| committed_shards(&desk.path(store))[0].clone();
    for file in [
        desk.path("run/pool/pool.parquet"),
        desk.path("run/checkpoints/epoch-1/adapter_model.safetensors"),
        shard("run/gradients/epoch-1/pool"),
        shard("run/gradients/epoch-2/target").with_extension("json"),
        desk.path("run/gradients/epoch-2/pool/shards.json"),
        desk.path("run/index/epoch-1.arrow"),
        desk.path("run/scores.parquet"),
    ] {
        halve(&file);
    }
    let partial = desk.path("run/checkpoints/.writing-epoch-1");
    fs_err::create_dir(&partial).unwrap();
    fs_err::write(partial.join("trainer_state.json"), "{").unwrap();
    desk.completes();
    assert!(!partial.exists());
}

/// Files that cannot grow past 24 KiB stand for a disk that is full.
#[test]
fn a_file_that_cannot_be_written_to_its_end_is_named() {
    let desk = Desk::new();
    let whole = desk.run.whole(&["--model", "model"]);
    let mut limited = Command::new("bash");
    limited
        .args(["-c", r#"trap '' XFSZ; ulimit -f 24; exec "$0" "$@""#])
        .arg(whole.get_program())
        .args(whole.get_args())
        .current_dir(whole.get_current_dir().unwrap());
    insta::assert_snapshot!(error(&desk.run.said(&mut limited), 74), @r"
    error: the warm-up failed
      caused by: checkpoint `run/checkpoints/epoch-1`
      caused by: failed to write to file `run/checkpoints/.writing-epoch-1/optimizer.safetensors`: File too large (os error 27)
    ");
    assert!(!desk.path("run/checkpoints/epoch-1").exists());
    desk.completes();
}

#[test]
#[ignore = "mounts a small file system, needs root"]
fn a_full_disk_stops_any_stage_and_none_of_it_is_trusted() {
    for kib in [16, 40, 80, 160, 180, 250, 300] {
        let desk = Desk::new();
        let disk = SmallDisk::mount(&desk.path("run"), kib);
        let error = desk.refuses(&[], 74);
        let names_a_file = error.contains("failed to write to file `run/");
        assert!(names_a_file && error.contains("No space left on device"), "{kib} KiB: {error}");
        disk.grow();
        desk.completes();
    }
}

/// A file system in memory, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, kib: u32) -> Self {
        fs_err::create_dir(dir).unwrap();
        let size = format!("size={kib}k");
        Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).unwrap();
        Self(dir.to_owned())
    }

    fn grow(&self) {
        Command::new("mount").args(["-o", "remount,size=16m"]).arg(&self.0).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).unwrap();
    }
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(path, bytes).unwrap();
}
