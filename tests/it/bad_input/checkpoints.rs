//! Checkpoints from elsewhere.

use std::path::Path;
use std::sync::LazyLock;

use less_select::tensor_file::{TensorFile, serialize, to_f32};

use super::{Desk, copy_folder, edit_json, edit_tensors, halve};
use crate::support::committed_shards;

/// A desk whose run is complete, to take checkpoints from.
static TRAINED: LazyLock<Desk> = LazyLock::new(|| {
    let desk = Desk::new();
    let said = desk.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    desk
});

const OWN: [&str; 2] = ["--checkpoints", "trained"];

impl Desk {
    /// A desk with two checkpoints in `trained`.
    fn with_checkpoints() -> Self {
        let desk = Self::new();
        desk.restore_checkpoints();
        desk
    }

    fn restore_checkpoints(&self) {
        copy_folder(&TRAINED.path("run/checkpoints"), &self.path("trained"));
    }

    /// The error of checkpoints that cannot be used. No gradient was taken at
    /// the good ones before the bad one was found, and with the checkpoints as
    /// they were, the same command completes.
    #[track_caller]
    fn refuses_the_checkpoints(&self) -> String {
        let error = self.refuses(&OWN, 65);
        for store in ["epoch-1/target", "epoch-1/pool"] {
            let store = self.path("run/gradients").join(store);
            assert!(committed_shards(&store).is_empty(), "gradients were taken");
        }
        self.restore_checkpoints();
        let said = self.run(&OWN);
        assert_eq!(said.code, 0, "{}", said.stderr);
        error
    }
}

#[test]
fn an_adapter_of_another_shape_than_the_first_is_refused() {
    let desk = Desk::with_checkpoints();
    edit_json(&desk.path("trained/epoch-2/adapter_config.json"), |config| {
        config.insert("r".to_owned(), 8.into());
    });
    insta::assert_snapshot!(desk.refuses_the_checkpoints(), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `trained/epoch-2`
      caused by: its adapter (rank 8, alpha 32, on q_proj, k_proj, v_proj, o_proj) is not like that of `epoch-1` (rank 4, alpha 32, on q_proj, k_proj, v_proj, o_proj): checkpoints of one training are alike
    ");
}

#[test]
fn an_adapter_for_another_model_is_named_by_parameter() {
    let desk = Desk::with_checkpoints();
    edit_tensors(&desk.path("trained/epoch-2/adapter_model.safetensors"), |header, _| {
        *header = std::mem::take(header)
            .into_iter()
            .map(|(name, tensor)| (name.replace("layers.1", "layers.7"), tensor))
            .collect();
    });
    insta::assert_snapshot!(desk.refuses_the_checkpoints(), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `trained/epoch-2/adapter_model.safetensors`
      caused by: parameter `base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight` is missing: an adapter for another model?
    ");
}

#[test]
fn an_adapter_on_modules_of_another_family_is_refused() {
    let desk = Desk::with_checkpoints();
    for epoch in ["epoch-1", "epoch-2"] {
        edit_json(&desk.path("trained").join(epoch).join("adapter_config.json"), |config| {
            config.insert("target_modules".to_owned(), vec!["query_key_value"].into());
        });
    }
    insta::assert_snapshot!(desk.refuses_the_checkpoints(), @r"
    error: the adapter of `epoch-1` is none for this model
      caused by: `query_key_value` is not a linear module of the model (self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, self_attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    ");
}

#[test]
fn an_adapter_that_is_no_plain_lora_is_refused_with_the_way_out() {
    let desk = Desk::with_checkpoints();
    edit_json(&desk.path("trained/epoch-2/adapter_config.json"), |config| {
        config.insert("use_dora".to_owned(), true.into());
    });
    insta::assert_snapshot!(desk.refuses_the_checkpoints(), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `trained/epoch-2/adapter_config.json`
      caused by: `use_dora` = true is not supported
    hint: gradients are taken of a plain LoRA, one rank and scale for all of its modules: train one so, or leave out --checkpoints for a warm-up of less-select's own
    ");
}

#[test]
fn weights_saved_with_an_adapter_must_fit_the_model() {
    let desk = Desk::with_checkpoints();
    let model = TensorFile::open(&desk.path("model/model.safetensors")).unwrap();
    let embeddings = to_f32(&model.tensor("model.embed_tokens.weight").unwrap()).unwrap();
    let save_along = |name: &str, shape: &[usize]| {
        for epoch in ["epoch-1", "epoch-2"] {
            let path = desk.path("trained").join(epoch).join("adapter_model.safetensors");
            let values = &embeddings[..shape.iter().product()];
            add_tensor(&path, &format!("base_model.model.{name}.weight"), shape, values);
        }
    };
    // As of a tokenizer that has one token less.
    save_along("model.embed_tokens", &[511, 64]);
    let said = desk.run(&OWN);
    assert_eq!(said.code, 0, "{}", said.stderr);
    desk.restore_checkpoints();
    save_along("model.embed_tokens", &[512, 32]);
    insta::assert_snapshot!(desk.refuses(&OWN, 65), @r"
    error: `epoch-1` was saved with a `model.embed_tokens.weight` that is not the model's
    hint: gradients are taken at the model's own weights: give a --model that was saved with that one in it
    ");
    desk.restore_checkpoints();
    save_along("model.norm", &[64]);
    insta::assert_snapshot!(desk.refuses(&OWN, 65), @r"
    error: `epoch-1` was saved with a `model.norm.weight` that is not the model's
    hint: gradients are taken at the model's own weights: give a --model that was saved with that one in it
    ");
}

/// Adds a tensor to a file of f32 tensors.
fn add_tensor(path: &Path, name: &str, shape: &[usize], values: &[f32]) {
    let file = TensorFile::open(path).unwrap();
    let own: Vec<_> = file
        .names()
        .into_iter()
        .map(|name| {
            let tensor = file.tensor(&name).unwrap();
            (name, tensor.shape().to_vec(), to_f32(&tensor).unwrap())
        })
        .collect();
    let own = own.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    let bytes = serialize(own.chain([(name.to_owned(), shape, values)]), "format", "pt");
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_optimizer_is_named() {
    let desk = Desk::with_checkpoints();
    halve(&desk.path("trained/epoch-2/optimizer.safetensors"));
    insta::assert_snapshot!(desk.refuses_the_checkpoints(), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `trained/epoch-2/optimizer.safetensors`
      caused by: damaged or no safetensors file
      caused by: incomplete metadata, file not fully covered
    ");
}

#[test]
fn without_an_optimizer_there_are_plain_gradients() {
    let desk = Desk::with_checkpoints();
    fs_err::remove_file(desk.path("trained/epoch-2/optimizer.safetensors")).unwrap();
    insta::assert_snapshot!(desk.refuses(&OWN, 65), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `trained/epoch-2`
      caused by: no optimizer state (optimizer.safetensors, optimizer.pt or optimizer.bin); only gradients of kind `sgd` do without
    ");
    let said = desk.run(&["--checkpoints", "trained", "--gradient", "sgd"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn checkpoints_without_any_optimizer_state_get_plain_gradients_and_a_warning() {
    let desk = Desk::with_checkpoints();
    for epoch in ["epoch-1", "epoch-2"] {
        let file = desk.path("trained").join(epoch).join("optimizer.safetensors");
        fs_err::remove_file(file).unwrap();
    }
    let said = desk.run(&OWN);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let warning = said.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
    insta::assert_snapshot!(warning, @"warning: the checkpoints have no optimizer state, so that gradients are plain (`--gradient sgd`), which is not what LESS does; without --checkpoints a warm-up is trained");
    // Whoever names a kind gets that one or none.
    let named = desk.run(&["--checkpoints", "trained", "--gradient", "adam-v"]);
    assert_eq!(named.code, 65, "{}", named.stderr);
}

#[test]
fn a_folder_without_a_checkpoint_is_told_what_one_is() {
    let desk = Desk::with_checkpoints();
    fs_err::create_dir(desk.path("empty")).unwrap();
    insta::assert_snapshot!(desk.refuses(&["--checkpoints", "empty"], 65), @r"
    error: the checkpoints cannot be used
      caused by: checkpoint `empty`
      caused by: no checkpoint in it (folders `NAME-1`, `NAME-2`, … with an adapter_config.json)
    ");
}
