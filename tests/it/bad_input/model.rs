//! The model's folder.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Desk, edit_json, edit_tensors, halve};

impl Desk {
    fn model_file(&self, name: &str) -> PathBuf {
        self.path("model").join(name)
    }

    fn edit_weights(&self, change: impl FnOnce(&mut Map<String, Value>, &mut [u8])) {
        edit_tensors(&self.model_file("model.safetensors"), change);
    }

    /// The error of a model that is refused before a run is begun; with the
    /// model as it was, the same command completes.
    #[track_caller]
    fn refuses_the_model(&self) -> String {
        let error = self.refuses(&[], 65);
        assert!(!self.path("run").exists(), "a run was begun");
        self.restore_model();
        self.completes();
        error
    }
}

#[test]
fn a_missing_tokenizer_is_named_with_the_way_to_make_it() {
    let desk = Desk::new();
    fs_err::remove_file(desk.model_file("tokenizer.json")).unwrap();
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the model cannot be used
      caused by: tokenizer file `model/tokenizer.json`
      caused by: missing; `AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)` of the Python package `transformers` writes it
    ");
    desk.restore_model();
    desk.completes();
}

#[test]
fn a_damaged_tokenizer_is_named() {
    let desk = Desk::new();
    halve(&desk.model_file("tokenizer.json"));
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the model cannot be used
      caused by: tokenizer file `model/tokenizer.json`
      caused by: the tokenizer does not load
      caused by: EOF while parsing a string at line 615 column 9
    ");
    desk.restore_model();
    desk.completes();
}

#[test]
fn a_model_without_chat_template_is_told_where_to_get_one() {
    let desk = Desk::new();
    edit_json(&desk.model_file("tokenizer_config.json"), |config| {
        config.remove("chat_template").unwrap();
    });
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the model cannot be used
      caused by: tokenizer file `model/tokenizer_config.json`
      caused by: has no `chat_template`, and there is no chat_template.jinja beside it
    hint: name what the model is to read with --chat-template: a template (chatml, llama-2, tulu, alpaca, or a file such as the chat_template.jinja of its instruction-tuned sibling), or `none` for prompts and completions as they are
    ");
    desk.restore_model();
    desk.completes();
}

#[test]
fn a_missing_config_is_named() {
    let desk = Desk::new();
    fs_err::remove_file(desk.model_file("config.json")).unwrap();
    insta::assert_snapshot!(desk.refuses_the_model(), @r"
    error: the model cannot be used
      caused by: model configuration `model/config.json`
      caused by: missing; a model in the Hugging Face layout has it
    ");
}

#[test]
fn a_model_of_another_family_is_refused() {
    let desk = Desk::new();
    edit_json(&desk.model_file("config.json"), |config| {
        config.insert("model_type".to_owned(), "mamba".into());
    });
    insta::assert_snapshot!(desk.refuses_the_model(), @r#"
    error: the model cannot be used
      caused by: model configuration `model/config.json`
      caused by: `model_type` = "mamba" is not supported (only llama, mistral, qwen2, qwen3, smollm3, phi3, olmo2, gemma, gemma2, gemma3_text, gpt_neox, gpt2)
    "#);
}

#[test]
fn a_download_that_stopped_halfway_is_no_model() {
    let desk = Desk::new();
    halve(&desk.model_file("model.safetensors"));
    insta::assert_snapshot!(desk.refuses_the_model(), @r"
    error: the model cannot be used
      caused by: model weights `model/model.safetensors`
      caused by: damaged or no safetensors file
      caused by: incomplete metadata, file not fully covered
    ");
}

#[test]
fn weights_of_a_wrong_dtype_are_named() {
    let desk = Desk::new();
    desk.edit_weights(|header, _| header["model.norm.weight"]["dtype"] = "I32".into());
    insta::assert_snapshot!(desk.refuses_the_model(), @r"
    error: the model cannot be used
      caused by: model weights `model/model.safetensors`
      caused by: tensor `model.norm.weight` has dtype I32, expected F32, F16 or BF16
    ");
}

#[test]
fn a_missing_tensor_is_named() {
    let desk = Desk::new();
    desk.edit_weights(|header, _| {
        let norm = header.remove("model.norm.weight").unwrap();
        header.insert("transformer.norm.weight".to_owned(), norm);
    });
    insta::assert_snapshot!(desk.refuses_the_model(), @r"
    error: the model cannot be used
      caused by: model weights `model`
      caused by: tensor `model.norm.weight` is missing
    ");
}

#[test]
fn weights_that_are_not_numbers_are_named_before_anything_is_trained() {
    let desk = Desk::new();
    desk.edit_weights(|header, data| {
        let place = &header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0];
        let start = place.as_u64().unwrap() as usize;
        data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the model cannot be used
      caused by: model weights `model/model.safetensors`
      caused by: tensor `model.layers.1.mlp.up_proj.weight` has values that are not finite
    ");
    assert!(!desk.path("run/checkpoints").exists());
    desk.restore_model();
    desk.completes();
}
