//! What a decoder is made of: names and shapes of its weights and of its LoRA
//! parameters, as `transformers` and `peft` write them.

use super::DecoderConfig;
use crate::checkpoint::LoraSettings;
use crate::gradient::layout::ParamLayout;

/// A linear module of a decoder layer: what an adapter can be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinearModule {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// The attention's output.
    OProj,
    /// The MLP's gate.
    GateProj,
    /// The MLP's way up.
    UpProj,
    /// The MLP's way down.
    DownProj,
}

impl LinearModule {
    /// Every module, in the order of a layer's definition.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// The module's own name, as the `lora-targets` setting has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }

    /// The module's full name in layer number `layer`, such as
    /// `model.layers.0.self_attn.q_proj`.
    pub fn path(self, layer: usize) -> String {
        let block = match self {
            Self::QProj | Self::KProj | Self::VProj | Self::OProj => "self_attn",
            Self::GateProj | Self::UpProj | Self::DownProj => "mlp",
        };
        format!("model.layers.{layer}.{block}.{}", self.name())
    }
}

/// Why an adapter cannot be put on a model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoraError {
    /// A target that no layer has.
    #[error("`{0}` is not a linear module of the model ({names})", names = names())]
    UnknownModule(String),
    /// An adapter on nothing, or of rank zero, has no gradient.
    #[error("a LoRA adapter needs a rank and a module to sit on")]
    Empty,
}

fn names() -> String {
    LinearModule::ALL.map(LinearModule::name).join(", ")
}

/// The modules that `lora` targets, in order of definition.
///
/// # Errors
///
/// If there is none, or one that no layer has.
pub fn lora_modules(lora: &LoraSettings) -> Result<Vec<LinearModule>, LoraError> {
    if lora.rank == 0 || lora.targets.is_empty() {
        return Err(LoraError::Empty);
    }
    for target in &lora.targets {
        if !LinearModule::ALL.iter().any(|module| module.name() == target) {
            return Err(LoraError::UnknownModule(target.clone()));
        }
    }
    let is_target = |module: &LinearModule| lora.targets.iter().any(|name| name == module.name());
    Ok(LinearModule::ALL.into_iter().filter(is_target).collect())
}

impl DecoderConfig {
    /// Rows and columns, `[d_out, d_in]`, of a module's weight.
    pub fn linear_shape(&self, module: LinearModule) -> [usize; 2] {
        let heads = self.n_heads * self.head_dim;
        let kv_heads = self.n_kv_heads * self.head_dim;
        match module {
            LinearModule::QProj => [heads, self.hidden_size],
            LinearModule::KProj | LinearModule::VProj => [kv_heads, self.hidden_size],
            LinearModule::OProj => [self.hidden_size, heads],
            LinearModule::GateProj | LinearModule::UpProj => {
                [self.intermediate_size, self.hidden_size]
            }
            LinearModule::DownProj => [self.hidden_size, self.intermediate_size],
        }
    }

    /// Whether a module adds a bias.
    pub fn has_bias(&self, module: LinearModule) -> bool {
        match module {
            LinearModule::QProj | LinearModule::KProj | LinearModule::VProj => self.biases.qkv,
            LinearModule::OProj => self.biases.output,
            LinearModule::GateProj | LinearModule::UpProj | LinearModule::DownProj => {
                self.biases.mlp
            }
        }
    }

    /// Name and shape of every tensor that the model's weight files must hold.
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let norm = |name: String| (name, vec![self.hidden_size]);
        let vocabulary = vec![self.vocab_size, self.hidden_size];
        let mut weights = vec![("model.embed_tokens.weight".to_owned(), vocabulary.clone())];
        for layer in 0..self.n_layers {
            weights.push(norm(format!("model.layers.{layer}.input_layernorm.weight")));
            weights.push(norm(format!("model.layers.{layer}.post_attention_layernorm.weight")));
            if self.qk_norm {
                for name in ["q_norm", "k_norm"] {
                    let name = format!("model.layers.{layer}.self_attn.{name}.weight");
                    weights.push((name, vec![self.head_dim]));
                }
            }
            for module in LinearModule::ALL {
                let shape = self.linear_shape(module);
                if self.has_bias(module) {
                    weights.push((format!("{}.bias", module.path(layer)), vec![shape[0]]));
                }
                weights.push((format!("{}.weight", module.path(layer)), shape.to_vec()));
            }
        }
        weights.push(norm("model.norm.weight".to_owned()));
        if !self.tied_embeddings {
            weights.push(("lm_head.weight".to_owned(), vocabulary));
        }
        weights
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
        let modules = lora_modules(lora)?;
        let params = (0..self.n_layers).flat_map(|layer| {
            modules.iter().flat_map(move |&module| {
                let [d_out, d_in] = self.linear_shape(module);
                let path = format!("base_model.model.{}", module.path(layer));
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
            LinearModule::ALL.map(|module| self.linear_shape(module).iter().product()).iter().sum();
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
    use crate::model::config::{Biases, LayerAttention};
    use crate::model::rope::{RopeScaling, RopeSettings};

    fn smollm2() -> DecoderConfig {
        DecoderConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            n_layers: 30,
            n_heads: 9,
            n_kv_heads: 3,
            head_dim: 64,
            intermediate_size: 1536,
            rms_norm_eps: 1e-5,
            rope: RopeSettings { theta: 1e5, scaling: RopeScaling::Default },
            attention: vec![LayerAttention { window: None, is_rotary: true }; 30],
            qk_norm: false,
            tied_embeddings: true,
            biases: Biases { qkv: false, output: false, mlp: false },
        }
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
    fn an_adapter_on_an_unknown_module_is_refused() {
        let error = smollm2().lora_layout(&lora(&["c_attn"])).unwrap_err();
        insta::assert_snapshot!(error, @"`c_attn` is not a linear module of the model (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj)");
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
