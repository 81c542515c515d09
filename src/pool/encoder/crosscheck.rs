//! Token ids of many tokenizers against `transformers`.

use std::collections::BTreeMap;

use fs_err as fs;
use serde::Deserialize;

use super::*;

/// What `scripts/crosscheck/token_ids.py` writes into a tokenizer's folder.
#[derive(Deserialize)]
struct Expected {
    /// Of every string, without special tokens around.
    ids: Vec<Vec<u32>>,
    /// Special tokens by name.
    named: BTreeMap<String, String>,
}

#[test]
#[ignore = "needs what scripts/crosscheck/token_ids.py writes"]
fn crosscheck_token_ids_are_those_of_transformers() {
    let folder = std::env::var_os("LESS_SELECT_TOKENIZERS").expect("LESS_SELECT_TOKENIZERS is set");
    let folder = Path::new(&folder);
    let strings: Vec<String> =
        serde_json::from_slice(&fs::read(folder.join("strings.json")).unwrap()).unwrap();
    let mut differences = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        if let Ok(expected) = fs::read(folder.join("ids.json")) {
            let expected = serde_json::from_slice(&expected).unwrap();
            differences.extend(compare(&folder, &strings, &expected));
            // The same tokenizer in one file.
            let file = folder.join("model.gguf");
            if file.exists() {
                differences.extend(compare(&file, &strings, &expected));
            }
        }
    }
    differences.sort();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// What is not as in transformers: the first string of those that differ.
fn compare(folder: &Path, strings: &[String], expected: &Expected) -> Option<String> {
    let name = folder.display();
    let config = TokenizerConfig::load(folder).unwrap();
    let Vocabulary { tokenizer, named } = match vocabulary::load(folder, &config) {
        Ok(vocabulary) => vocabulary,
        Err(err) => return Some(format!("{name}: {err:?}")),
    };
    let named = config.named(&named);
    if named != expected.named {
        return Some(format!("{name}: {named:?} is not {:?}", expected.named));
    }
    let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let differ: Vec<_> = strings
        .iter()
        .zip(&expected.ids)
        .filter_map(|(text, expected)| {
            let found = ids(text);
            (found != *expected).then(|| format!("{text:?}\n  {found:?}\n  {expected:?}"))
        })
        .collect();
    let first = differ.iter().min_by_key(|text| text.len())?;
    Some(format!("{name}: {} strings, such as {first}", differ.len()))
}
