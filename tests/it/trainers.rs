//! Checkpoints as trainers leave them, made by `scripts/goldens/trainers.py`:
//! TRL's, the state of FSDP's optimizer, and 8-bit moments of bitsandbytes.

use std::path::{Path, PathBuf};

use less_select::checkpoint::{Checkpoint, checkpoints_in};
use less_select::gradient::direction::AdamRule;
use less_select::gradient::layout::ParamLayout;
use less_select::model::DecoderConfig;
use less_select::tensor_file::{TensorFile, serialize, to_f32};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::support::less_select;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The parameters of the checkpoint's adapter on the tiny model.
fn layout(checkpoint: &Checkpoint) -> ParamLayout {
    let model = DecoderConfig::read(&fixture("tiny-llama")).unwrap();
    model.lora_layout(checkpoint.lora()).unwrap()
}

/// A checkpoint of TRL that a test may change.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        let trained = fixture("trainers/sft/checkpoint-6");
        for file in [
            "adapter_config.json",
            "adapter_model.safetensors",
            "optimizer.pt",
            "trainer_state.json",
        ] {
            fs_err::copy(trained.join(file), desk.path(file)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn remove(&self, name: &str) {
        fs_err::remove_file(self.path(name)).unwrap();
    }

    fn bring(&self, name: &str) {
        fs_err::copy(fixture("trainers").join(name), self.path(name)).unwrap();
    }

    fn configure(&self, change: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path("adapter_config.json");
        let mut config = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs_err::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    fn open(&self) -> Checkpoint {
        Checkpoint::open(self.dir.path()).unwrap()
    }

    /// Why the checkpoint is refused with `key` set to `value`.
    fn refuses(&self, key: &str, value: Value) -> String {
        self.configure(|config| drop(config.insert(key.to_owned(), value)));
        let error = Checkpoint::open(self.dir.path()).unwrap_err();
        self.configure(|config| drop(config.insert(key.to_owned(), Value::Null)));
        error.kind.to_string()
    }

    /// Why the optimizer's state is refused.
    fn refuses_the_optimizer(&self) -> String {
        let checkpoint = self.open();
        checkpoint.moments(&layout(&checkpoint)).unwrap_err().kind.to_string()
    }
}

#[test]
fn an_output_folder_of_trl_is_read_as_it_is() {
    let checkpoints = checkpoints_in(&fixture("trainers/sft")).unwrap();
    let labels: Vec<&str> = checkpoints.iter().map(Checkpoint::label).collect();
    assert_eq!(labels, ["checkpoint-3", "checkpoint-6"], "and not the last adapter beside them");
    let last = &checkpoints[1];
    assert_eq!((last.lora().rank, last.step()), (2, 6));
    assert_eq!(last.lora().targets, ["q_proj", "v_proj"]);
    // alpha / √rank, written as alpha / rank.
    approx::assert_relative_eq!(last.lora().alpha / 2.0, 6.0 / 2.0_f64.sqrt());
    assert_eq!(last.base_model(), Some("elsewhere/tiny-llama"), "which is nowhere here");
    let rates: Vec<f64> = checkpoints.iter().map(Checkpoint::learning_rate).collect();
    approx::assert_relative_eq!(&rates[..], &[1.0 / 60.0, 1.0 / 150.0][..], max_relative = 1e-12);
    let rule = last.moments(&layout(last)).unwrap().rule;
    assert_eq!(rule, AdamRule { beta1: 0.85, beta2: 0.99, epsilon: 1e-7, step: 6 });
}

#[test]
fn a_state_by_number_and_one_by_name_hold_the_same_moments() {
    let by_number = Desk::new();
    let by_name = Desk::new();
    by_name.remove("optimizer.pt");
    by_name.bring("optimizer.bin");
    let [(number, from), (name, other)] = [by_number, by_name].map(|desk| {
        let checkpoint = desk.open();
        let state = checkpoint.optimizer(&layout(&checkpoint)).unwrap();
        assert_eq!(state.n_params, 8);
        (state.kind, state.moments)
    });
    assert_eq!((number, name), ("Adam by number", "Adam by name"));
    assert_eq!(from, other);
    assert!(from.exp_avg_sq.iter().all(|&v| v > 0.0));
}

#[test]
fn the_groups_of_lora_plus_hold_the_same_moments() {
    let desk = Desk::new();
    let checkpoint = desk.open();
    let layout = layout(&checkpoint);
    let expected = checkpoint.moments(&layout).unwrap();
    fs_err::copy(fixture("trainers/optimizer-lora-plus.pt"), desk.path("optimizer.pt")).unwrap();
    assert_eq!(checkpoint.moments(&layout).unwrap(), expected);
}

#[test]
fn moments_of_eight_bits_are_those_that_bitsandbytes_computes_with() {
    let checkpoint = Checkpoint::open(&fixture("trainers/8bit/checkpoint-3")).unwrap();
    let layout = layout(&checkpoint);
    let state = checkpoint.optimizer(&layout).unwrap();
    assert_eq!(state.kind, "8-bit Adam of bitsandbytes by number");
    assert_eq!(state.moments.rule, AdamRule { beta1: 0.85, beta2: 0.99, epsilon: 1e-7, step: 3 });
    let expected = TensorFile::open(&fixture("trainers/8bit/moments.safetensors")).unwrap();
    for param in layout.params() {
        let range = param.offset..param.offset + param.n_coordinates();
        for (moment, found) in
            [("exp_avg", &state.moments.exp_avg), ("exp_avg_sq", &state.moments.exp_avg_sq)]
        {
            let tensor = expected.tensor(&format!("{moment}.{}", param.name)).unwrap();
            assert_eq!(to_f32(&tensor).unwrap(), found[range.clone()], "{moment}.{}", param.name);
        }
    }
}

#[test]
fn an_adapter_is_the_same_in_an_older_file_with_its_own_name_in_the_names() {
    let desk = Desk::new();
    let checkpoint = desk.open();
    let layout = layout(&checkpoint);
    let expected = checkpoint.adapter(&layout).unwrap();
    desk.remove("adapter_model.safetensors");
    desk.bring("adapter_model.bin");
    assert_eq!(desk.open().adapter(&layout).unwrap(), expected);
}

#[test]
fn targets_may_be_a_pattern_or_full_names() {
    let desk = Desk::new();
    let layout = layout(&desk.open());
    let expected = desk.open().adapter(&layout).unwrap();
    // What `all-linear` is when peft saves it.
    let full_names: Vec<String> = (0..2)
        .flat_map(|layer| ["q", "v"].map(|m| format!("model.layers.{layer}.self_attn.{m}_proj")))
        .collect();
    for targets in [r".*\.(q|v)_proj".into(), "all-linear".into(), full_names.into(), Value::Null] {
        desk.configure(|config| drop(config.insert("target_modules".to_owned(), targets)));
        assert_eq!(desk.open().lora().targets, ["q_proj", "v_proj"]);
        assert_eq!(desk.open().adapter(&layout).unwrap(), expected);
        assert_eq!(desk.open().optimizer(&layout).unwrap().n_params, 8);
    }
}

#[test]
fn layers_without_an_adapter_have_one_of_zero() {
    let desk = Desk::new();
    let layout = layout(&desk.open());
    let whole = desk.open().adapter(&layout).unwrap();
    let path = desk.path("adapter_model.safetensors");
    let first_layer: Vec<_> = {
        let file = TensorFile::open(&path).unwrap();
        let params = layout.params().iter().filter(|param| param.name.contains("layers.0"));
        params
            .map(|p| {
                (p.name.clone(), &p.shape[..], to_f32(&file.tensor(&p.name).unwrap()).unwrap())
            })
            .collect()
    };
    let tensors = first_layer.iter().map(|(name, shape, v)| (name.clone(), *shape, &v[..]));
    fs_err::write(&path, serialize(tensors, "format", "pt")).unwrap();
    let error = desk.open().adapter(&layout).unwrap_err();
    insta::assert_snapshot!(error.kind, @"parameter `base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight` is missing: an adapter for another model?");
    desk.configure(|config| drop(config.insert("layers_to_transform".to_owned(), vec![0].into())));
    let found = desk.open().adapter(&layout).unwrap();
    let half = found.len() / 2;
    assert_eq!(found[..half], whole[..half]);
    assert!(found[half..].iter().all(|&weight| weight == 0.0));
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"the optimizer has 8 parameters, the adapter 4: one of them was trained with more");
}

#[test]
fn an_adapter_that_is_more_than_a_plain_one_is_refused_by_its_setting() {
    let desk = Desk::new();
    let said = |key, value| desk.refuses(key, value);
    insta::assert_snapshot!(said("use_dora", true.into()), @"`use_dora` = true is not supported");
    insta::assert_snapshot!(said("bias", "lora_only".into()), @r#"`bias` = "lora_only" is not supported"#);
    insta::assert_snapshot!(said("alpha_pattern", serde_json::json!({"q_proj": 8})), @r#"`alpha_pattern` = {"q_proj":8} is not supported"#);
    insta::assert_snapshot!(said("lora_bias", true.into()), @"`lora_bias` = true is not supported");
    insta::assert_snapshot!(said("init_lora_weights", "pissa_niter_4".into()), @r#"`init_lora_weights` = "pissa_niter_4" is not supported"#);
    insta::assert_snapshot!(said("trainable_token_indices", vec![7].into()), @"`trainable_token_indices` = [7] is not supported");
}

#[test]
fn an_optimizer_in_pieces_is_named_with_the_way_out() {
    let desk = Desk::new();
    desk.remove("optimizer.pt");
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"no optimizer state (optimizer.safetensors, optimizer.pt or optimizer.bin); only gradients of kind `sgd` do without");
    fs_err::create_dir(desk.path("optimizer_0")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"the optimizer's state is in pieces (`optimizer_0`), which are not read: train with `fsdp_state_dict_type: FULL_STATE_DICT`, or take gradients of kind `sgd`");
    fs_err::create_dir(desk.path("global_step6")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"the optimizer's state is in pieces (`global_step6`), which are not read: zero_to_fp32.py joins weights alone; train the warm-up without DeepSpeed (an adapter's moments are small), or take gradients of kind `sgd`");
}

#[test]
fn an_optimizer_of_another_kind_is_refused() {
    let desk = Desk::new();
    fs_err::copy(fixture("torch-files/sgd.pt"), desk.path("optimizer.pt")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"no state of Adam: it has no two `betas` and `eps`; only gradients of kind `sgd` do without it");
    fs_err::copy(fixture("torch-files/plain.pt"), desk.path("optimizer.pt")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"no state of Adam: it has no `state` and `param_groups`; only gradients of kind `sgd` do without it");
    fs_err::copy(fixture("torch-files/legacy.pt"), desk.path("optimizer.pt")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_optimizer(), @"in the format of PyTorch before 1.6, which is not read: write it anew with `torch.save(torch.load(PATH), PATH)`");
}

#[test]
fn without_a_log_every_checkpoint_counts_alike() {
    let dir = tempfile::tempdir().unwrap();
    for label in ["checkpoint-3", "checkpoint-6"] {
        let folder = dir.path().join(label);
        fs_err::create_dir(&folder).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs_err::copy(fixture("trainers/sft").join(label).join(file), folder.join(file))
                .unwrap();
        }
    }
    let rates = checkpoints_in(dir.path()).unwrap();
    assert_eq!(rates.iter().map(Checkpoint::learning_rate).collect::<Vec<_>>(), [1.0, 1.0]);
    fs_err::copy(
        fixture("trainers/sft/checkpoint-3/trainer_state.json"),
        dir.path().join("checkpoint-3/trainer_state.json"),
    )
    .unwrap();
    let error = checkpoints_in(dir.path()).unwrap_err();
    insta::assert_snapshot!(error.kind, @"no learning rate in the log of its last epoch, and others have one");
}

/// What `doctor` says of a folder beside the tiny model.
fn doctor(folder: &Path, more: &[&str]) -> (i32, String) {
    let mut command = less_select();
    command.args(["doctor", "--model", "tiny-llama", "--checkpoint"]).arg(folder).args(more);
    let output = command.current_dir(fixture("")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code().unwrap(), said.replace(&folder.display().to_string(), "[DIR]"))
}

#[test]
fn doctor_says_what_a_folder_of_a_trainer_holds() {
    let (code, said) = doctor(&fixture("trainers/sft"), &[]);
    insta::assert_snapshot!(said, @r"
    ok    checkpoint-3 adapter   adapter_model.safetensors: rank 2, scale 4.2426 (alpha / √rank), 8 parameters on q_proj, v_proj
    ok    checkpoint-3 optimizer optimizer.pt: Adam by number, moments of 8 parameters, step 3, betas 0.85 and 0.99, epsilon 1e-7
    ok    checkpoint-3 log       step 3, learning rate 1.667e-2: 71 % of the score
    ok    checkpoint-6 adapter   adapter_model.safetensors: rank 2, scale 4.2426 (alpha / √rank), 8 parameters on q_proj, v_proj
    ok    checkpoint-6 optimizer optimizer.pt: Adam by number, moments of 8 parameters, step 6, betas 0.85 and 0.99, epsilon 1e-7
    ok    checkpoint-6 log       step 6, learning rate 6.667e-3: 29 % of the score
    ");
    assert_eq!(code, 0);
}

#[test]
fn doctor_says_what_keeps_a_checkpoint_from_use_and_what_does_not() {
    let desk = Desk::new();
    desk.remove("optimizer.pt");
    desk.remove("trainer_state.json");
    desk.configure(|config| drop(config.remove("base_model_name_or_path")));
    let label = desk.open().label().to_owned();
    let said = |more: &[&str], code| {
        let (found, said) = doctor(desk.dir.path(), more);
        assert_eq!(found, code, "{said}");
        said.replace(&label, "[NAME]")
    };
    insta::assert_snapshot!(said(&[], 1), @r"
    ok    [NAME] adapter    adapter_model.safetensors: rank 2, scale 4.2426 (alpha / √rank), 8 parameters on q_proj, v_proj
    note  [NAME] base model does not say what it was trained on; --model is `tiny-llama`
    FAIL  [NAME] optimizer  checkpoint `[DIR]`: no optimizer state (optimizer.safetensors, optimizer.pt or optimizer.bin); only gradients of kind `sgd` do without
    note  [NAME] log        no learning rate in trainer_state.json: it counts like the others, 100 % of the score
    ");
    let plain = said(&["--gradient", "sgd"], 0);
    insta::assert_snapshot!(plain.lines().nth(2).unwrap(), @"note  [NAME] optimizer  not used by plain gradients: checkpoint `[DIR]`: no optimizer state (optimizer.safetensors, optimizer.pt or optimizer.bin); only gradients of kind `sgd` do without");
    desk.configure(|config| drop(config.insert("use_dora".to_owned(), true.into())));
    insta::assert_snapshot!(said(&[], 1), @r"
    ok    model       `tiny-llama`
    FAIL  checkpoints the checkpoints cannot be used: checkpoint `[DIR]/adapter_config.json`: `use_dora` = true is not supported; gradients are taken of a plain LoRA, one rank and scale for all of its modules: train one so, or leave out --checkpoints for a warm-up of less-select's own
    ");
    desk.remove("adapter_config.json");
    insta::assert_snapshot!(said(&[], 1), @r"
    ok    model       `tiny-llama`
    FAIL  checkpoints the checkpoints cannot be used: checkpoint `[DIR]`: no checkpoint in it (folders `NAME-1`, `NAME-2`, … with an adapter_config.json)
    ");
}
