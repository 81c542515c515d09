//! Which turns carry loss.

use std::str::FromStr;

use serde::Serialize;

/// Which part of a conversation carries loss: the `loss-turns` setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossTurns {
    /// Every turn of the assistant.
    #[default]
    Assistant,
    /// The assistant's last turn alone.
    LastAssistant,
    /// All of it, prompts and what the template writes between them, too.
    All,
}

impl LossTurns {
    /// What the setting can be, for messages.
    pub const CHOICES: &str = "assistant, last-assistant or all";
}

impl FromStr for LossTurns {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "assistant" => Ok(Self::Assistant),
            "last-assistant" => Ok(Self::LastAssistant),
            "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}
