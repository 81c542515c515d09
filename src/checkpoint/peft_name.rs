//! Names of adapter parameters, as files write them and as `peft` saves them.

/// Wrappers that leave their names in those of what they wrap: FSDP's,
/// activation checkpointing's, `torch.compile`'s and DDP's.
const WRAPPERS: [&str; 4] =
    ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module"];
/// How names in a decoder begin.
const BASES: [&str; 3] = ["model.", "transformer.", "gpt_neox."];
/// What `peft` puts before the names of the model.
const PREFIX: &str = "base_model.model.";

/// The name under which `peft` saves the parameter that a file calls `name`:
/// without wrappers and without the adapter's own name.
///
/// ```text
/// module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight
///        base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
/// ```
pub(super) fn peft_name(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let named = |part: &&str| matches!(*part, "lora_A" | "lora_B" | "modules_to_save");
    if let Some(at) = parts.iter().position(named) {
        let is_saved = parts[at] == "modules_to_save";
        if parts.len() == at + 3 {
            parts.remove(at + 1);
        }
        if is_saved {
            parts.remove(at);
        }
    }
    let name = parts.join(".");
    // An adapter that was taken out of its wrapper.
    let of_a_decoder = |module: &str| BASES.iter().any(|base| module.starts_with(base));
    let is_bare = module_of(&name).is_some_and(of_a_decoder);
    if is_bare { format!("{PREFIX}{name}") } else { name }
}

/// Whether `name` is that of a module as it was before it was trained whole, which `peft`
/// keeps beside what it is now.
pub(super) fn is_untrained(name: &str) -> bool {
    name.split('.').any(|part| part == "original_module")
}

/// The module whose adapter has the parameter `name`; `None` if it is none of
/// an adapter's.
pub(super) fn module_of(name: &str) -> Option<&str> {
    name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight"))
}

/// What the base model calls the weight that an adapter's file has as `name`;
/// `None` if it is none of the base model's.
pub(super) fn base_weight(name: &str) -> Option<&str> {
    let own = name.strip_prefix(PREFIX).filter(|own| own.ends_with(".weight"))?;
    (!own.split('.').any(|part| part.starts_with("lora_"))).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

    #[test]
    fn a_parameter_has_one_name_whoever_wrapped_it() {
        for written in [
            SAVED,
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "_fsdp_wrapped_module.base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj.lora_A.default.weight",
            "_orig_mod.base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj.lora_A.mine.weight",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(peft_name(written), SAVED, "{written}");
        }
    }

    #[test]
    fn a_saved_module_is_a_weight_of_the_base_model() {
        for written in [
            "base_model.model.lm_head.weight",
            "base_model.model.lm_head.modules_to_save.default.weight",
        ] {
            assert_eq!(base_weight(&peft_name(written)), Some("lm_head.weight"), "{written}");
        }
        assert_eq!(base_weight(SAVED), None);
        assert_eq!(base_weight("base_model.model.model.embed_tokens.lora_embedding_A"), None);
    }
}
