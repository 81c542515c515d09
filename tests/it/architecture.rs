//! The invariants of ARCHITECTURE.md that can be read off the source.

use std::path::{Path, PathBuf};

/// The code map, top to bottom: a module may use those below it.
const CODE_MAP: &[&str] = &[
    "cli",
    "comparison",
    "pipeline",
    "hub",
    "config",
    "explain",
    "report",
    "diagnostics",
    "selection",
    "baseline",
    "influence",
    "merge",
    "verify",
    "warmup",
    "cascade",
    "first_pass",
    "gradient",
    "model",
    "pool",
    "checkpoint",
    "projection",
    "run_dir",
    "store",
    "torch_file",
    "tensor_file",
    "gguf",
    "progress",
    "method",
    "stage",
    "compute",
    "seed",
    "sealed",
    "fs",
];

/// The words in which gradients and examples are spoken of; every module may
/// use them.
const VOCABULARY: [&str; 3] = ["gradient::direction", "gradient::layout", "pool::ExampleId"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        let mut entries: Vec<_> =
            fs_err::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs_err::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found
        .into_iter()
        .map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text))
        .collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

fn module_of(path: &Path) -> String {
    path.components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Whether `line` has `word` and not as the end of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[track_caller]
fn appears_only_under(words: &[&str], allowed: &[&str]) {
    for (path, text) in sources() {
        if allowed.contains(&module_of(&path).as_str()) {
            continue;
        }
        for line in code_lines(&text) {
            let word = words.iter().find(|word| has_word(line, word));
            assert!(word.is_none(), "{} has `{}`: {line}", path.display(), word.unwrap());
        }
    }
}

#[test]
fn libtorch_is_known_only_to_the_model_the_warmup_and_the_gradients() {
    appears_only_under(&["tch::", "tch;"], &["model", "warmup", "gradient"]);
}

#[test]
fn only_the_command_line_prints_or_exits() {
    appears_only_under(&["println!", "print!(", "process::exit", "stdout()"], &["cli"]);
}

#[test]
fn a_network_is_known_only_to_a_feature_that_is_off() {
    appears_only_under(&["ureq", "std::net"], &["hub"]);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table = fs_err::read_to_string(manifest).unwrap().parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    for (name, parts) in features {
        let parts = parts.as_array().unwrap();
        let has = |part: &str| parts.iter().any(|own| own.as_str() == Some(part));
        assert!(!has("hub"), "`{name}` brings the hub");
        assert_eq!(has("dep:ureq"), name == "hub", "`{name}`");
    }
    assert_eq!(manifest["dependencies"]["ureq"]["optional"].as_bool(), Some(true));
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let place = |module: &str| CODE_MAP.iter().position(|name| *name == module);
    for (path, text) in sources() {
        let own = module_of(&path);
        if ["lib", "main", "bin"].contains(&own.as_str()) {
            continue;
        }
        let own_place = place(&own).unwrap_or_else(|| panic!("`{own}` is not in the code map"));
        let uses = text.split("mod tests").next().unwrap();
        for line in code_lines(uses).filter(|line| line.contains("crate::")) {
            if VOCABULARY.iter().any(|word| line.contains(word)) {
                continue;
            }
            let used = line.split("crate::").nth(1).unwrap();
            let used: String =
                used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(used_place) = place(&used) else { continue };
            assert!(used_place >= own_place, "{}: `{own}` reaches up: {line}", path.display());
        }
    }
}
