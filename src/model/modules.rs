//! What a decoder is made of: shapes of its weights and of its LoRA parameters,
//! named as `transformers` and `peft` write them.

use super::DecoderConfig;
use super::architecture::{NormKind, QkNorm};
use crate::checkpoint::LoraSettings;
use crate::gradient::layout::ParamLayout;

/// A linear module of a decoder layer: what an adapter can be put on. A family has
/// some of them, by names of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinearModule {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Queries, keys and values in one.
    Qkv,
    /// The attention's output.
    O,
    /// The MLP's gate.
    Gate,
    /// The MLP's way up.
    Up,
    /// Gate and way up in one.
    GateUp,
    /// The MLP's way down.
    Down,
}

impl LinearModule {
    /// How many there are.
    #[cfg(feature = "torch")]
    pub(crate) const COUNT: usize = Self::Down as usize + 1;

    fn is_attention(self) -> bool {
        matches!(self, Self::Q | Self::K | Self::V | Self::Qkv | Self::O)
    }
}

/// The target that is every linear module of attention.
const ATTENTION: &str = "attention";

/// The target that is every linear module, as `peft` calls it.
const ALL_LINEAR: &str = "all-linear";

/// Why an adapter cannot be put on a model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoraError {
    /// A target that no layer has.
    #[error("`{target}` is not a linear module of the model ({known})")]
    UnknownModule {
        /// The target.
        target: String,
        /// What may be named.
        known: String,
    },
    /// An adapter on nothing, or of rank zero, has no gradient.
    #[error("a LoRA adapter needs a rank and a module to sit on")]
    Empty,
}

/// Whether a target is about the module with this name.
fn is_meant(target: &str, module: LinearModule, path: &str) -> bool {
    match target {
        ALL_LINEAR => true,
        ATTENTION => module.is_attention(),
        name => {
            let before = path.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        }
    }
}

impl DecoderConfig {
    /// The linear modules of a layer, in order of definition.
    pub fn modules(&self) -> impl Iterator<Item = LinearModule> + '_ {
        self.names.modules.iter().map(|(module, _)| *module)
    }

    /// Whether a layer has this module.
    pub fn has(&self, module: LinearModule) -> bool {
        self.modules().any(|own| own == module)
    }

    /// The modules that `lora` targets, in order of definition. A target is the
    /// end of a module's name, as for `peft`, or `attention` for those of attention,
    /// or `all-linear`.
    ///
    /// # Errors
    ///
    /// If there is none, or one that no layer has.
    pub fn lora_modules(&self, lora: &LoraSettings) -> Result<Vec<LinearModule>, LoraError> {
        Ok(self.targeted(lora)?.into_iter().map(|(module, _)| module).collect())
    }

    /// `lora` with every target a module's own name, as `peft` is told it: the last
    /// part, or all of it where a module that is not meant shares that.
    ///
    /// # Errors
    ///
    /// As [`lora_modules`](Self::lora_modules).
    pub fn named_targets(&self, lora: &LoraSettings) -> Result<LoraSettings, LoraError> {
        let own_name = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let targeted = self.targeted(lora)?;
        let is_shared = |name: &str| {
            let others = self.names.modules.iter().filter(|module| !targeted.contains(module));
            others.into_iter().any(|(_, other)| own_name(other) == name)
        };
        let name = |path| if is_shared(own_name(path)) { path } else { own_name(path) };
        let mut targets: Vec<String> = Vec::new();
        for name in targeted.iter().map(|(_, path)| name(path)) {
            if !targets.iter().any(|known| known == name) {
                targets.push(name.to_owned());
            }
        }
        Ok(LoraSettings { targets, ..lora.clone() })
    }

    fn targeted(
        &self,
        lora: &LoraSettings,
    ) -> Result<Vec<(LinearModule, &'static str)>, LoraError> {
        if lora.rank == 0 || lora.targets.is_empty() {
            return Err(LoraError::Empty);
        }
        let modules = self.names.modules;
        let unknown = lora
            .targets
            .iter()
            .find(|target| !modules.iter().any(|(module, path)| is_meant(target, *module, path)));
        if let Some(target) = unknown {
            let known = modules.iter().map(|(_, path)| *path).collect::<Vec<_>>().join(", ");
            return Err(LoraError::UnknownModule { target: target.clone(), known });
        }
        let is_targeted = |(module, path): &&(LinearModule, &str)| {
            lora.targets.iter().any(|target| is_meant(target, *module, path))
        };
        Ok(modules.iter().filter(is_targeted).copied().collect())
    }

    /// Rows and columns, `[d_out, d_in]`, of a module's weight.
    pub fn linear_shape(&self, module: LinearModule) -> [usize; 2] {
        let heads = self.n_heads * self.head_dim;
        let kv_heads = self.n_kv_heads * self.head_dim;
        let hidden = self.hidden_size;
        match module {
            LinearModule::Q => [heads, hidden],
            LinearModule::K | LinearModule::V => [kv_heads, hidden],
            LinearModule::Qkv => [heads + 2 * kv_heads, hidden],
            LinearModule::O => [hidden, heads],
            LinearModule::Gate | LinearModule::Up => [self.intermediate_size, hidden],
            LinearModule::GateUp => [2 * self.intermediate_size, hidden],
            LinearModule::Down => [hidden, self.intermediate_size],
        }
    }

    /// Whether a module adds a bias.
    pub fn has_bias(&self, module: LinearModule) -> bool {
        match module {
            LinearModule::Q | LinearModule::K | LinearModule::V | LinearModule::Qkv => {
                self.biases.qkv
            }
            LinearModule::O => self.biases.output,
            _ => self.biases.mlp,
        }
    }

    /// Name and shape of every tensor that the model's weight files must hold.
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let vocabulary = vec![self.vocab_size, self.hidden_size];
        let mut weights = vec![(self.embeddings_weight(), vocabulary.clone())];
        if let Some(n_positions) = self.n_positions {
            weights.push((self.positions_weight(), vec![n_positions, self.hidden_size]));
        }
        for layer in 0..self.n_layers {
            self.layer_weights(layer, &mut weights);
        }
        self.norm_weights(self.names.of(self.names.norm), self.hidden_size, &mut weights);
        if !self.tied_embeddings {
            weights.push((self.head_weight(), vocabulary));
        }
        weights
    }

    /// The name of the embedding matrix.
    pub(crate) fn embeddings_weight(&self) -> String {
        format!("{}.weight", self.names.of(self.names.embeddings))
    }

    /// The name of the table of learned positions.
    pub(crate) fn positions_weight(&self) -> String {
        format!("{}.weight", self.names.of(self.names.positions))
    }

    /// The name of the output projection.
    pub(crate) fn head_weight(&self) -> String {
        format!("{}.weight", self.names.heads[0])
    }

    fn layer_weights(&self, layer: usize, weights: &mut Vec<(String, Vec<usize>)>) {
        let norms = [self.names.attention_norms, self.names.mlp_norms].concat();
        for name in norms.into_iter().filter(|name| !name.is_empty()) {
            self.norm_weights(self.names.in_layer(layer, name), self.hidden_size, weights);
        }
        if let Some(widths) = self.qk_norm_widths() {
            for (name, width) in self.names.qk_norms.into_iter().zip(widths) {
                self.norm_weights(self.names.in_layer(layer, name), width, weights);
            }
        }
        for module in self.modules() {
            let path = self.names.module(layer, module);
            let mut shape = self.linear_shape(module);
            if self.has_bias(module) {
                weights.push((format!("{path}.bias"), vec![shape[0]]));
            }
            if self.names.is_transposed {
                shape.reverse();
            }
            weights.push((format!("{path}.weight"), shape.to_vec()));
        }
    }

    fn norm_weights(&self, name: String, width: usize, weights: &mut Vec<(String, Vec<usize>)>) {
        if self.norm == NormKind::Layer {
            weights.push((format!("{name}.bias"), vec![width]));
        }
        weights.push((name + ".weight", vec![width]));
    }

    /// Over how many coordinates queries and keys are normed, where they are.
    fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        Some(match self.qk_norm? {
            QkNorm::Head => [self.head_dim; 2],
            QkNorm::Whole => [self.n_heads, self.n_kv_heads].map(|heads| heads * self.head_dim),
        })
    }

    /// Number of weights of the model, adapters not counted.
    pub fn n_parameters(&self) -> usize {
        self.weights().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The LoRA parameters of an adapter on this model, by layer, then by
    /// module, A `[rank, d_in]` before B `[d_out, rank]`.
    ///
    /// # Errors
    ///
    /// If the adapter targets nothing, or a module that the model lacks.
    pub fn lora_layout(&self, lora: &LoraSettings) -> Result<ParamLayout, LoraError> {
        let modules = self.lora_modules(lora)?;
        let params = (0..self.n_layers).flat_map(|layer| {
            modules.iter().flat_map(move |&module| {
                let [d_out, d_in] = self.linear_shape(module);
                let path = format!("base_model.model.{}", self.names.module(layer, module));
                [
                    (format!("{path}.lora_A.weight"), vec![lora.rank, d_in]),
                    (format!("{path}.lora_B.weight"), vec![d_out, lora.rank]),
                ]
            })
        });
        Ok(ParamLayout::new(params))
    }

    /// Floating-point operations that the LoRA gradient of one example needs:
    /// forward and activation-backward through the frozen weights (4 a weight
    /// and token), attention within the causal half, logits where a label is,
    /// and 6 a LoRA parameter and token. Recomputing and padding not counted.
    pub fn gradient_flop(
        &self,
        lora_layout: &ParamLayout,
        n_tokens: usize,
        n_supervised: usize,
    ) -> f64 {
        let linear: usize =
            self.modules().map(|module| self.linear_shape(module).iter().product::<usize>()).sum();
        let heads = self.n_heads * self.head_dim;
        let (tokens, layers) = (n_tokens as f64, self.n_layers as f64);
        4.0 * tokens * layers * linear as f64
            + 6.0 * tokens * tokens * layers * heads as f64
            + 4.0 * n_supervised as f64 * (self.vocab_size * self.hidden_size) as f64
            + 6.0 * tokens * lora_layout.grad_dim() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smollm2() -> DecoderConfig {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 49_152, "hidden_size": 576,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "intermediate_size": 1536, "rope_theta": 1e5, "tie_word_embeddings": true,
        });
        DecoderConfig::parse(config.as_object().unwrap()).unwrap()
    }

    fn lora(targets: &[&str]) -> LoraSettings {
        let targets = targets.iter().map(|&name| name.to_owned()).collect();
        LoraSettings { rank: 16, alpha: 32.0, dropout: 0.0, targets }
    }

    #[test]
    fn parameters_are_counted_as_the_model_card_does() {
        assert_eq!(smollm2().n_parameters(), 134_515_008);
        let untied = DecoderConfig { tied_embeddings: false, ..smollm2() };
        assert_eq!(untied.n_parameters() - smollm2().n_parameters(), 49_152 * 576);
    }

    #[test]
    fn adapters_follow_the_model_whatever_order_the_targets_have() {
        let layout = smollm2().lora_layout(&lora(&["v_proj", "q_proj"])).unwrap();
        let names: Vec<&str> = layout.params()[..3].iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
                "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight",
            ]
        );
        assert_eq!(layout.params()[1].shape, [576, 16]);
        assert_eq!(layout.grad_dim(), 30 * 16 * (576 + 576 + 576 + 192));
    }

    #[test]
    fn targets_are_named_as_peft_would_find_them() {
        let gpt2 = serde_json::json!({
            "model_type": "gpt2", "vocab_size": 16, "n_embd": 8, "n_layer": 1, "n_head": 2,
        });
        let gpt2 = DecoderConfig::parse(gpt2.as_object().unwrap()).unwrap();
        let names = |config: &DecoderConfig, target| {
            config.named_targets(&lora(&[target])).unwrap().targets
        };
        assert_eq!(names(&smollm2(), "attention"), ["q_proj", "k_proj", "v_proj", "o_proj"]);
        assert_eq!(names(&smollm2(), "self_attn.q_proj"), ["q_proj"]);
        assert_eq!(names(&gpt2, "attention"), ["c_attn", "attn.c_proj"]);
        assert_eq!(names(&gpt2, "all-linear"), ["c_attn", "c_proj", "c_fc"]);
        assert_eq!(gpt2.lora_modules(&lora(&["c_proj"])).unwrap().len(), 2);
        assert!(gpt2.lora_modules(&lora(&["proj"])).is_err());
    }

    #[test]
    fn an_adapter_on_an_unknown_module_is_refused() {
        let error = smollm2().lora_layout(&lora(&["c_attn"])).unwrap_err();
        insta::assert_snapshot!(error, @"`c_attn` is not a linear module of the model (self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, self_attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)");
        assert_eq!(smollm2().lora_layout(&lora(&[])).unwrap_err(), LoraError::Empty);
    }

    #[test]
    fn a_gradient_costs_about_four_operations_a_weight_and_token() {
        let model = smollm2();
        let layout = model.lora_layout(&lora(&["q_proj", "k_proj", "v_proj", "o_proj"])).unwrap();
        let flop = model.gradient_flop(&layout, 160, 160);
        let floor = 4.0 * 160.0 * model.n_parameters() as f64;
        assert!(flop > floor && flop < 1.1 * floor, "{flop:e} against {floor:e}");
    }
}
