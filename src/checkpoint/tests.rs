use serde_json::Value;

use super::*;
use crate::gradient::direction::AdamRule;
use crate::tensor_file::TensorFile;

fn fixture(label: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-checkpoints").join(label)
}

/// The layout of the adapter on the tiny Llama, from the reference's own list.
fn layout() -> ParamLayout {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/model.json");
    let goldens: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    ParamLayout::new(serde_json::from_value::<Vec<_>>(goldens["params"].clone()).unwrap())
}

fn small() -> (ParamLayout, LoraSettings, Moments, TrainerState) {
    let layout = ParamLayout::new([("a".into(), vec![2, 1]), ("b".into(), vec![1])]);
    let lora =
        LoraSettings { rank: 1, alpha: 2.0, dropout: 0.1, targets: vec!["q_proj".to_owned()] };
    let rule = AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 3 };
    let moments = Moments { rule, exp_avg: vec![4.0, 5.0, 6.0], exp_avg_sq: vec![7.0, 8.0, 9.0] };
    let entry = |step: u64, learning_rate| LogEntry {
        epoch: Some(step as f64 / 2.0),
        learning_rate: Some(learning_rate),
        step,
        ..LogEntry::default()
    };
    let state = TrainerState {
        epoch: 2.0,
        global_step: 4,
        log_history: vec![entry(1, 9.0), entry(2, 9.0), entry(3, 2.0), entry(4, 1.0)],
        ..TrainerState::default()
    };
    (layout, lora, moments, state)
}

fn write_small(dir: &Path) -> ParamLayout {
    let (layout, lora, moments, state) = small();
    let content = Content {
        base_model: "m",
        lora: &lora,
        layout: &layout,
        adapter: &[1.0, 2.0, 3.0],
        moments: &moments,
        state: &state,
    };
    write(dir, &content).unwrap();
    layout
}

#[test]
fn what_was_written_is_read() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("epoch-2");
    write_small(&dir);
    let layout = write_small(&dir);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.label(), "epoch-2");
    assert_eq!(checkpoint.lora(), &small().1);
    approx::assert_relative_eq!(checkpoint.learning_rate(), 1.5);
    assert_eq!(checkpoint.adapter(&layout).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(checkpoint.moments(&layout).unwrap(), small().2);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no partial folder is left");
}

#[test]
fn a_checkpoint_of_peft_and_the_trainer_is_read() {
    let checkpoint = Checkpoint::open(&fixture("epoch-2")).unwrap();
    assert_eq!((checkpoint.lora().rank, checkpoint.lora().targets.len()), (4, 7));
    approx::assert_relative_eq!(checkpoint.learning_rate(), 0.008, max_relative = 1e-12);
    let adapter = checkpoint.adapter(&layout()).unwrap();
    assert_eq!(adapter.len(), layout().grad_dim());
    let moments = checkpoint.moments(&layout()).unwrap();
    assert_eq!(moments.rule.step, 6);
    assert!(moments.exp_avg_sq.iter().all(|&v| v >= 0.0));
}

#[test]
fn our_files_have_the_keys_and_names_of_theirs() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = (root.path().join("epoch-2"), fixture("epoch-2"));
    let checkpoint = Checkpoint::open(&theirs).unwrap();
    let layout = layout();
    let state = trainer_state::read(&theirs.join(trainer_state::FILE)).unwrap();
    let content = Content {
        base_model: "tiny-llama",
        lora: checkpoint.lora(),
        layout: &layout,
        adapter: &checkpoint.adapter(&layout).unwrap(),
        moments: &checkpoint.moments(&layout).unwrap(),
        state: &state,
    };
    write(&ours, &content).unwrap();
    for file in ["adapter_config.json", "trainer_state.json"] {
        let [ours, theirs] = [&ours, &theirs].map(|dir| -> Value {
            serde_json::from_str(&fs::read_to_string(dir.join(file)).unwrap()).unwrap()
        });
        assert!(same(&ours, &theirs), "{file}:\n{ours:#}\n{theirs:#}");
    }
    for file in ["adapter_model.safetensors", "optimizer.safetensors"] {
        let [ours, theirs] = [&ours, &theirs].map(|dir| TensorFile::open(&dir.join(file)).unwrap());
        assert_eq!(ours.metadata("format"), theirs.metadata("format"));
        let sorted = |file: &TensorFile| {
            let mut names = file.names();
            names.sort();
            names
        };
        assert_eq!(sorted(&ours), sorted(&theirs));
        for name in ours.names() {
            assert_eq!(ours.tensor(&name), theirs.tensor(&name), "{name}");
        }
    }
}

/// Equality in which `8` is `8.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[test]
fn checkpoints_are_in_the_order_of_their_numbers() {
    let root = tempfile::tempdir().unwrap();
    for name in ["epoch-10", "epoch-9", ".writing-epoch-11"] {
        write_small(&root.path().join(name));
    }
    fs::create_dir(root.path().join("runs-1")).unwrap();
    let labels = |dir: &Path| -> Vec<String> {
        checkpoints_in(dir).unwrap().iter().map(|c| c.label().to_owned()).collect()
    };
    assert_eq!(labels(root.path()), ["epoch-9", "epoch-10"]);
    assert_eq!(labels(&root.path().join("epoch-9")), ["epoch-9"]);
    let none = checkpoints_in(&root.path().join("runs-1")).unwrap_err();
    assert!(matches!(none.kind, CheckpointErrorKind::NoCheckpoints));
}

#[test]
fn a_log_with_numbers_that_are_none_is_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("trainer_state.json");
    let log = r#"{"epoch": 1.0, "global_step": 2, "note": "a \" and NaN", "log_history": [
        {"epoch": 0.5, "step": 1, "learning_rate": 0.5, "loss": NaN, "grad_norm": -Infinity},
        {"epoch": 1.0, "step": 2, "learning_rate": 0.25, "loss": 3.0, "grad_norm": Infinity}]}"#;
    fs::write(&path, log).unwrap();
    let state = trainer_state::read(&path).unwrap();
    assert_eq!((state.learning_rate(), state.loss()), (Some(0.375), Some(3.0)));
    assert_eq!(state.log_history[0].grad_norm, None);
}

#[test]
fn an_adapter_for_another_model_is_named_by_parameter() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("epoch-2");
    write_small(&dir);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let said = |params: &[(&str, &[usize])]| {
        let layout = ParamLayout::new(params.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())));
        checkpoint.adapter(&layout).unwrap_err().kind.to_string()
    };
    insta::assert_snapshot!(said(&[("a", &[2, 1]), ("b", &[3])]), @"parameter `b` has shape [1], the model has [3]");
    insta::assert_snapshot!(said(&[("a", &[2, 1]), ("c", &[1])]), @"parameter `c` is missing: an adapter for another model?");
    insta::assert_snapshot!(said(&[("a", &[2, 1])]), @"parameter `b` has no place on the model: an adapter for another model?");
}

#[test]
fn an_adapter_of_another_kind_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("epoch-2");
    write_small(&dir);
    let path = dir.join("adapter_config.json");
    let plain: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let said = |key: &str, value: Value| {
        let mut config = plain.clone();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        Checkpoint::open(&dir).unwrap_err().kind.to_string()
    };
    insta::assert_snapshot!(said("use_dora", Value::Bool(true)), @"`use_dora` = true is not supported");
    insta::assert_snapshot!(said("peft_type", "IA3".into()), @r#"`peft_type` = "IA3" is not supported"#);
    insta::assert_snapshot!(said("rank_pattern", serde_json::json!({"q_proj": 8})), @r#"`rank_pattern` = {"q_proj":8} is not supported"#);
}

#[test]
fn a_damaged_checkpoint_is_never_read() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("epoch-2");
    let layout = write_small(&dir);
    let cut = |file: &str| {
        let path = dir.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    };
    let checkpoint = Checkpoint::open(&dir).unwrap();
    cut("adapter_model.safetensors");
    cut("optimizer.safetensors");
    assert!(checkpoint.adapter(&layout).is_err());
    assert!(checkpoint.moments(&layout).is_err());
    fs::write(dir.join("trainer_state.json"), r#"{"epoch": 1.0"#).unwrap();
    assert!(matches!(Checkpoint::open(&dir).unwrap_err().kind, CheckpointErrorKind::Json(_)));
}

/// An adapter's file with these weights of the base model in it, one value each.
fn saved_along(dir: &Path, weights: &[(&str, f32)]) -> Checkpoint {
    write_small(dir);
    let values: Vec<_> = weights.iter().map(|(name, value)| (*name, [*value])).collect();
    let tensors = values
        .iter()
        .map(|(name, value)| (format!("base_model.model.lm_head{name}"), &[1, 1][..], &value[..]));
    let bytes = crate::tensor_file::serialize(tensors, "format", "pt");
    fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
    Checkpoint::open(dir).unwrap()
}

/// What peft 0.21 saves of embeddings that were resized and trained.
#[test]
fn a_module_that_is_saved_by_two_names_is_one_and_the_untrained_one_is_none() {
    let root = tempfile::tempdir().unwrap();
    let all =
        [(".weight", 2.0), (".modules_to_save.weight", 2.0), (".original_module.weight", 1.0)];
    let checkpoint = saved_along(&root.path().join("same"), &all);
    assert_eq!(checkpoint.base_weights().unwrap(), ["lm_head.weight"]);
    let weight = checkpoint.base_weight("lm_head.weight").unwrap().unwrap();
    assert_eq!((&weight.shape[..], &weight.values[..]), (&[1, 1][..], &[2.0][..]));
    assert_eq!(checkpoint.base_weight_facts("lm_head.weight").unwrap(), Some((vec![1, 1], true)));

    let two = [(".weight", 2.0), (".modules_to_save.weight", 3.0)];
    let checkpoint = saved_along(&root.path().join("two"), &two);
    let error = checkpoint.base_weights().unwrap_err();
    assert!(matches!(error.kind, CheckpointErrorKind::Twice(_)), "{}", error.kind);
}
