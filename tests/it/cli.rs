//! The command line: help, settings and what it says when they are wrong.

use std::time::{Duration, Instant};

use crate::support::{TestRun, less_select};

/// What the program says to these arguments in an empty folder.
#[track_caller]
fn refuses(args: &[&str], code: i32) -> String {
    let run = TestRun::new(3);
    let said = run.say(args);
    assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
    assert!(!run.run_dir().exists(), "a refused command left a run directory");
    said.stderr
}

#[test]
fn help_names_every_stage_and_the_exit_codes() {
    let output = less_select().arg("--help").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = ["ingest", "warmup", "gradients", "index", "score", "select", "report", "plan"];
    for word in words.into_iter().chain([
        "status",
        "inspect",
        "fsck",
        "gc",
        "config",
        "doctor",
        "Exit codes",
    ]) {
        assert!(text.contains(word), "no `{word}` in:\n{text}");
    }
}

#[test]
fn a_budget_that_keeps_too_much_is_a_usage_error() {
    insta::assert_snapshot!(refuses(&["--budget", "1.5"], 2), @r#"
    error: invalid settings
      caused by: invalid `budget` (flag): budget `1.5` is a share outside (0, 1]; 1.0 or 100% keeps everything
    "#);
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    assert!(refuses(&["--budgt", "5%"], 2).contains("--budget"));
}

#[test]
fn a_pool_that_is_not_there_is_named() {
    insta::assert_snapshot!(refuses(&["--pool", "nowhere.jsonl", "--model", "."], 2), @r#"
    error: invalid settings
      caused by: invalid `pool` (flag): input `nowhere.jsonl`: no such file or folder, and no file matches it as a pattern
    "#);
}

#[test]
fn a_chat_template_that_is_not_there_is_named_with_those_that_are() {
    insta::assert_snapshot!(refuses(&["--chat-template", "chatlm", "--model", "."], 2), @r#"
    error: invalid settings
      caused by: invalid `chat-template` (flag): `chatlm` is not one of model, none, chatml, llama-2, tulu, alpaca or a file
    "#);
    insta::assert_snapshot!(refuses(&["--loss-turns", "user", "--model", "."], 2), @r#"
    error: invalid settings
      caused by: invalid `loss-turns` (flag): `user` is not one of assistant, last-assistant or all
    "#);
}

#[test]
fn a_model_that_is_not_there_is_named_with_the_way_out() {
    let said = refuses(&["--model", "no/such/model"], 2);
    assert!(said.contains("no model `no/such/model`") && said.contains("--model DIR"), "{said}");
}

#[test]
fn an_unknown_key_in_a_pipeline_is_shown_with_file_and_line() {
    let run = TestRun::new(3);
    run.write("mine.toml", "seed = 3\nproj-dims = 64\n");
    let said = run.say(&["--pipeline", "mine.toml"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @r#"
    error: invalid settings
      caused by: mine.toml:2: unknown field `proj-dims`; did you mean `proj-dim`?
    "#);
}

#[test]
fn a_mistyped_variable_is_not_ignored() {
    let run = TestRun::new(3);
    let mut command = run.command(&["config"]);
    let output = command.env("LESS_SELECT_BUDGT", "5%").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r#"
    error: unknown environment variable `LESS_SELECT_BUDGT`; did you mean `LESS_SELECT_BUDGET`?
    "#);
}

#[test]
fn config_tells_who_set_what() {
    let run = TestRun::new(3);
    run.write("mine.toml", "seed = 3\nbudget = 0.1\n");
    let mut command = run.command(&["config", "--pipeline", "mine.toml", "--budget", "7"]);
    command.args(["--pool", "pool.jsonl", "--target", "target.jsonl", "--model", "."]);
    let output = command.env("LESS_SELECT_EPOCHS", "9").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("budget").ends_with("# flag"), "{text}");
    assert!(line("seed").ends_with("# pipeline mine.toml"), "{text}");
    assert!(line("epochs").ends_with("# environment"), "{text}");
    assert!(line("proj-dim").ends_with("# default"), "{text}");
}

#[test]
fn the_printed_config_is_a_pipeline_file() {
    let run = TestRun::new(3);
    let said = run.say(&["config", "--model", ".", "--epochs", "9"]);
    run.write("printed.toml", &said.stdout);
    let again = run.say(&["config", "--pipeline", "printed.toml"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let plain = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(plain(&said.stdout), plain(&again.stdout));
}

#[test]
fn json_errors_are_for_programs() {
    let run = TestRun::new(3);
    let said = run.say(&["--json", "--budget", "0"]);
    let error: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(error["error"]["exit_code"], 2);
}

/// `2>&1 | head` closes what the program speaks to.
#[test]
fn a_program_that_nobody_listens_to_ends_as_it_would() {
    for stage in ["report", "config"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(less_select().get_program());
        command.args([stage, "--budget", "1.5"]).stdout(writer.try_clone().unwrap());
        let mut child = command.stderr(writer).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                child.kill().unwrap();
                panic!("`{stage}` does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(2), "`{stage}`");
    }
}

#[test]
fn merge_writes_a_model_folder_once() {
    let run = TestRun::new(3);
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let model = format!("{fixtures}/tiny-llama");
    let checkpoint = format!("{fixtures}/tiny-checkpoints/epoch-1");
    let merge = || run.say(&["merge", &checkpoint, "merged", "--model", &model]);
    let said = merge();
    assert_eq!(said.code, 0, "{}", said.stderr);
    insta::assert_snapshot!(said.stdout, @"merged: 14 of 20 tensors merged");
    let names = less_select::fs::entries(&run.path("merged")).unwrap();
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    let again = merge();
    assert_eq!(again.code, 2);
    insta::assert_snapshot!(again.stderr, @r"
    error: the model and the adapter cannot be merged
      caused by: `merged` is there already; name a folder that is not
    ");
}

#[test]
fn a_model_that_was_fetched_from_the_hub_is_known_by_its_name() {
    let run = TestRun::new(3);
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let folder = run.path("hub/models--tiny--llama");
    fs_err::create_dir_all(folder.join("snapshots")).unwrap();
    fs_err::create_dir(folder.join("refs")).unwrap();
    fs_err::write(folder.join("refs/main"), "0123abcd").unwrap();
    let snapshot = folder.join("snapshots/0123abcd");
    std::os::unix::fs::symlink(format!("{fixtures}/tiny-llama"), snapshot).unwrap();
    let checkpoint = format!("{fixtures}/tiny-checkpoints/epoch-1");
    let mut merge = run.command(&["merge", &checkpoint, "merged", "--model", "tiny/llama"]);
    let said = run.said(merge.env("HF_HUB_CACHE", run.path("hub")));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(run.path("merged/model.safetensors").is_file());
}
