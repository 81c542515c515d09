//! Models against transformers, and what is refused.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use super::super::tokenizer_config::{CONFIG, TokenizerConfig};
use super::super::vocabulary::{self, SENTENCE_PIECE};
use super::goldens::goldens;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentencepiece");
    fixtures.join(name).with_extension("model")
}

fn folder(model: &[u8], config: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SENTENCE_PIECE), model).unwrap();
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    dir
}

#[test]
fn ids_are_those_of_transformers_under_every_class() {
    for golden in goldens() {
        let dir = folder(&fs::read(fixture(&golden.model)).unwrap(), &golden.config);
        let files = TokenizerConfig::load(dir.path()).unwrap();
        golden.check(&files, &vocabulary::load(dir.path(), &files).unwrap());
    }
}

#[test]
fn what_no_tokenizer_can_be_made_of_says_why() {
    let problem = |model: &[u8], config: &Value| {
        let dir = folder(model, config);
        let config = TokenizerConfig::load(dir.path()).unwrap();
        let Err(err) = vocabulary::load(dir.path(), &config) else { panic!("it loads") };
        let causes = std::iter::successors(std::error::Error::source(&err), |err| err.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        causes.join(": ")
    };
    let (bpe, unigram) = (fs::read(fixture("bpe")).unwrap(), fs::read(fixture("unigram")).unwrap());
    let llama = json!({ "tokenizer_class": "LlamaTokenizer" });
    insta::assert_snapshot!(problem(&unigram, &llama), @"the tokenizer does not load: a unigram model, of which `transformers` 5 makes pairs for a `LlamaTokenizer`");
    insta::assert_snapshot!(problem(&bpe, &json!({ "tokenizer_class": "T5Tokenizer" })), @"the tokenizer does not load: how a `T5Tokenizer` reads a SentencePiece model is not known");
    insta::assert_snapshot!(problem(&bpe[..bpe.len() - 1], &llama), @"the tokenizer does not load: not a SentencePiece model: it ends within a field");
    // Compiled rules that claim to be longer than the file.
    let charsmap = [2 << 3 | 2, 4, 0xff, 0xff, 0xff, 0xff];
    let damaged = [&unigram[..], &[3 << 3 | 2, 6], &charsmap].concat();
    insta::assert_snapshot!(problem(&damaged, &json!({})), @"the tokenizer does not load: its rules of normalization are damaged");
    let words = [&bpe[..], &[2 << 3 | 2, 2, 3 << 3, 3]].concat();
    insta::assert_snapshot!(problem(&words, &llama), @"the tokenizer does not load: a SentencePiece model of words or characters; unigram and BPE are read");
}
