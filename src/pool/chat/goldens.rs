//! What transformers makes of conversations, as scripts write it down.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::pool::{Conversation, Turn};

#[derive(Deserialize)]
pub(super) struct Goldens<S, C> {
    pub(super) cases: Vec<Family<S, C>>,
}

/// A family of chat templates: `S` is its source, `C` what more there is of every
/// conversation.
#[derive(Deserialize)]
pub(super) struct Family<S, C> {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) source: S,
    pub(super) named: BTreeMap<String, String>,
    pub(super) special_tokens: Vec<String>,
    pub(super) conversations: Vec<Golden<C>>,
}

#[derive(Deserialize)]
pub(super) struct Golden<C> {
    pub(super) messages: Vec<Map<String, Value>>,
    #[serde(default)]
    variables: Map<String, Value>,
    /// None where the template fails.
    pub(super) text: Option<String>,
    /// What the assistant says, in bytes, where that is known.
    pub(super) supervised: Option<Vec<(usize, usize)>>,
    #[serde(flatten)]
    pub(super) more: C,
}

impl<C> Golden<C> {
    pub(super) fn conversation(&self) -> Conversation {
        let turns = self.messages.iter().cloned().map(Turn::of_fields).collect();
        Conversation { turns, variables: self.variables.clone() }
    }
}
