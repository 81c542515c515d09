//! What transformers makes of models; made by `scripts/goldens/sentencepiece_models.py`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::tokenizer_config::TokenizerConfig;
use super::super::vocabulary::Vocabulary;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Golden>,
}

/// A model under a class.
#[derive(Deserialize)]
pub(in crate::pool::encoder) struct Golden {
    pub(in crate::pool::encoder) model: String,
    pub(in crate::pool::encoder) config: Value,
    named: BTreeMap<String, String>,
    ids: Vec<(String, Vec<u32>)>,
}

pub(in crate::pool::encoder) fn goldens() -> Vec<Golden> {
    let text = include_str!("../../../../tests/goldens/sentencepiece.json");
    serde_json::from_str::<Goldens>(text).unwrap().cases
}

impl Golden {
    #[track_caller]
    pub(in crate::pool::encoder) fn check(&self, config: &TokenizerConfig, own: &Vocabulary) {
        let Self { model, config: class, named, ids } = self;
        assert_eq!(config.named(&own.named), *named, "{model} {class}");
        for (text, ids) in ids {
            let encoding = own.tokenizer.encode(text.as_str(), false).unwrap();
            assert_eq!(encoding.get_ids(), ids, "{model} {class}: {text:?}");
        }
    }
}
