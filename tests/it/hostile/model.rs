//! A model's folder and checkpoints.

use std::path::PathBuf;

use fs_err as fs;
use less_select::checkpoint::Checkpoint;
use less_select::config::layers;
use less_select::model::DecoderConfig;
use less_select::model::weights::WeightFiles;
use less_select::pool::{ChatEncoder, Conversation, EncodingSettings, Turn};
use less_select::tensor_file::TensorFile;

use super::{Desk, causes, fixture};

impl Desk {
    /// What a conversation comes to under the chat template `source`.
    fn template(&self, source: &str) -> String {
        self.file("model/chat_template.jinja", source);
        let encoder = match ChatEncoder::load(&self.path("model"), &EncodingSettings::of_model(256))
        {
            Ok(encoder) => encoder,
            Err(err) => return causes(&err).replace(&self.dir.path().display().to_string(), ""),
        };
        let turns = vec![Turn::new("user", "1 + 1?"), Turn::new("assistant", "2")];
        let encoded = encoder.encode(&Conversation { turns, ..Conversation::default() });
        assert!(self.began.elapsed().as_secs() < 100, "it took {:?}", self.began.elapsed());
        encoded.map_or_else(|reason| reason.to_string(), |_| "a row".to_owned())
    }

    /// A copy of the biased model, whose weights are in three files, with
    /// another index.
    fn sharded(&self, index: &str) -> String {
        let model = self.path("sharded");
        fs::create_dir_all(&model).unwrap();
        fs::copy(fixture("tiny-llama-biased").join("config.json"), model.join("config.json"))
            .unwrap();
        fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        let config = DecoderConfig::read(&model).unwrap();
        causes(&WeightFiles::open(&model, &config).unwrap_err())
            .replace(&self.dir.path().display().to_string(), "")
    }

    /// A copy of a good checkpoint with another file.
    fn checkpoint(&self, name: &str, content: &str) -> Result<Checkpoint, String> {
        let dir = self.path("epoch-1");
        fs::create_dir_all(&dir).unwrap();
        for file in ["adapter_config.json", "trainer_state.json"] {
            fs::copy(fixture("tiny-checkpoints/epoch-1").join(file), dir.join(file)).unwrap();
        }
        fs::write(dir.join(name), content).unwrap();
        Checkpoint::open(&dir)
            .map_err(|err| causes(&err).replace(&self.dir.path().display().to_string(), ""))
    }

    fn tensors(&self, header_len: u64, header: &str) -> String {
        let bytes = [&header_len.to_le_bytes()[..], header.as_bytes(), &[0; 64]].concat();
        let path: PathBuf = self.file("x.safetensors", bytes);
        causes(&TensorFile::open(&path).unwrap_err())
    }
}

#[test]
fn a_chat_template_that_does_not_end_is_stopped() {
    let desk = Desk::new();
    let forever =
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    insta::assert_snapshot!(desk.template(forever), @"the chat template fails: it does not end within 4000000 steps");
    let itself = "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}";
    insta::assert_snapshot!(desk.template(itself), @"the chat template fails: recursion limit exceeded");
}

#[test]
fn a_chat_template_cannot_fill_the_memory() {
    let desk = Desk::new();
    for source in [
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% for i in range(9999) %}{{ 'x' * 90000000 }}{% endfor %}",
        "{{ 'x'.replace('', 'x' * 9999).replace('', 'x' * 9999).replace('', 'x' * 9999) }}",
        "{{ messages|tojson(indent=999999999) }}",
        "{{ 'x'|indent(999999999, true) }}",
        "{{ ('\\n' * 200000000)|indent(64, true, blank=true) }}",
        "{{ [[[[[[range(100000)|list * 100]]]]]]|tojson(indent=64) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ [1]|batch(999999999, 0)|list }}",
        "{{ range(100000)|map('string')|join('x' * 99999) }}",
        "{{ strftime_now('%255Y' * 1000000) }}",
    ] {
        let said = desk.template(source);
        assert!(said != "a row", "{source}");
        assert!(said.len() < 500, "{source}: {} bytes", said.len());
    }
}

#[test]
fn a_chat_template_nested_without_end_does_not_parse() {
    let desk = Desk::new();
    for (open, close) in [("{% if 1 %}", "{% endif %}"), ("{{ ", "x }}")] {
        let inner = if open.starts_with("{{") { "(".repeat(100_000) } else { String::new() };
        let n = if inner.is_empty() { 100_000 } else { 1 };
        let source = open.repeat(n) + &inner + &close.repeat(n);
        assert!(desk.template(&source).contains("the chat template does not parse"));
    }
}

#[test]
fn a_sentencepiece_model_that_claims_more_than_it_has_is_refused() {
    let desk = Desk::new();
    fs::create_dir(desk.path("base")).unwrap();
    desk.file("base/tokenizer_config.json", "{}");
    let chat_template = "chatml".parse().unwrap();
    let settings = EncodingSettings { chat_template, ..EncodingSettings::of_model(256) };
    let load = |bytes: &[u8]| {
        desk.file("base/tokenizer.model", bytes);
        let err = ChatEncoder::load(&desk.path("base"), &settings).unwrap_err();
        causes(&err).replace(&desk.dir.path().display().to_string(), "")
    };
    let good = fs::read(fixture("sentencepiece/unigram.model")).unwrap();
    // A piece of 2^63 bytes; rules of normalization with a trie of 4 GiB; a piece that
    // would be cut at every one of a million bytes.
    let huge = [&[1 << 3 | 2][..], &[0xff; 8], &[0x7f]].concat();
    let trie = [&good[..], &[3 << 3 | 2, 6, 2 << 3 | 2, 4, 0xff, 0xff, 0xff, 0xff]].concat();
    let head = [1 << 3 | 2, 0xc4, 0x84, 0x3d, 1 << 3 | 2, 0xc0, 0x84, 0x3d];
    let long = [&head[..], &vec![b'a'; 1_000_000]];
    // A character that becomes ten thousand.
    let blob = [&[0, 0, 0, 0][..], &[b'a'; 10_000]].concat();
    let charsmap = [&[2 << 3 | 2, 0x94, 0x4e][..], &blob].concat();
    let rules = [&good[..], &[3 << 3 | 2, 0x97, 0x4e], &charsmap].concat();
    assert_eq!(load(&rules), load(&trie));
    insta::assert_snapshot!([load(&huge), load(&trie), load(&long.concat())].join("\n"), @r"
    tokenizer file `/base/tokenizer.model`: the tokenizer does not load: not a SentencePiece model: it ends within a field
    tokenizer file `/base/tokenizer.model`: the tokenizer does not load: its rules of normalization are damaged
    tokenizer file `/base/tokenizer.model`: the tokenizer does not load: not a SentencePiece model: piece 0 is longer than 512 bytes
    ");
}

#[test]
fn weights_are_read_from_the_models_folder_alone() {
    let desk = Desk::new();
    let index = |name: &str| format!(r#"{{"weight_map": {{"model.norm.weight": {name:?}}}}}"#);
    insta::assert_snapshot!(desk.sharded(&index("../../etc/passwd")), @"model weights `/sharded/model.safetensors.index.json`: damaged index of shards: `../../etc/passwd` is not the name of a file in the model's folder at line 1 column 56");
    for name in ["/etc/passwd", "..", ".", "", "a/b.safetensors", "./a", "a/"] {
        let said = desk.sharded(&index(name));
        assert!(said.contains("is not the name of a file in the model's folder"), "{name}: {said}");
    }
    let said = desk.sharded(&index("a.safetensors"));
    assert!(said.contains("sharded/a.safetensors"), "{said}");
}

#[test]
fn gigantic_sizes_in_a_safetensors_header_are_refused_before_memory_is_asked_for() {
    let desk = Desk::new();
    let tensor = |shape: &str, end: u64| {
        let header =
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        desk.tensors(header.len() as u64, &header)
    };
    insta::assert_snapshot!(
        [
            desk.tensors(u64::MAX, "{}"),
            desk.tensors(1 << 40, "{}"),
            tensor("[4611686018427387904]", 64),
            tensor("[4294967296, 4294967296, 4294967296]", 64),
            tensor("[16]", u64::MAX),
            tensor("[1000000]", 4_000_000),
        ]
        .join("\n"),
        @r"
        damaged or no safetensors file: header too large
        damaged or no safetensors file: header too large
        damaged or no safetensors file: overflow computing buffer size from shape and/or element type
        damaged or no safetensors file: overflow computing buffer size from shape and/or element type
        damaged or no safetensors file: invalid shape, data type, or offset for tensor
        damaged or no safetensors file: incomplete metadata, file not fully covered
        "
    );
}

#[test]
fn gigantic_sizes_in_configurations_are_refused() {
    let desk = Desk::new();
    let good = fs::read_to_string(fixture("tiny-llama").join("config.json")).unwrap();
    for (size, max) in [("1048575", "at most 4096"), ("99999999999999999999", "1048575")] {
        let layers = format!("\"num_hidden_layers\": {size}");
        desk.file("model/config.json", good.replace("\"num_hidden_layers\": 2", &layers));
        let said = causes(&DecoderConfig::read(&desk.path("model")).unwrap_err());
        assert!(said.contains("num_hidden_layers") && said.contains(max), "{said}");
    }
    let good = fs::read_to_string(fixture("tiny-checkpoints/epoch-1").join("adapter_config.json"))
        .unwrap();
    let rank: serde_json::Value = serde_json::from_str(&good).unwrap();
    let rank = format!("\"r\": {}", rank["r"]);
    let said = desk.checkpoint("adapter_config.json", &good.replace(&rank, "\"r\": 9999999999999"));
    insta::assert_snapshot!(said.unwrap_err(), @"checkpoint `/epoch-1/adapter_config.json`: `r` = 9999999999999 is not supported");
}

#[test]
fn nesting_without_end_is_no_setting() {
    let desk = Desk::new();
    let deep = |open: &str| open.repeat(200_000);
    desk.file("model/config.json", deep("{\"a\":"));
    let said = causes(&DecoderConfig::read(&desk.path("model")).unwrap_err());
    assert!(said.contains("recursion limit exceeded"), "{said}");
    for name in ["adapter_config.json", "trainer_state.json"] {
        let said = desk.checkpoint(name, &deep("[")).unwrap_err();
        assert!(said.contains("recursion limit exceeded") || said.contains("damaged"), "{said}");
    }
    let toml = layers::parse("mine.toml", &format!("budget = {}", deep("["))).unwrap_err();
    assert!(toml.to_string().starts_with("mine.toml:1: "), "{toml}");
    let keys = layers::parse("mine.toml", &format!("a{} = 1", ".a".repeat(200_000))).unwrap_err();
    assert!(keys.to_string().starts_with("mine.toml:1: "), "{}", keys.to_string().len());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let desk = Desk::new();
        desk.file(&format!("model/{name}"), deep("{\"a\":"));
        assert!(ChatEncoder::load(&desk.path("model"), &EncodingSettings::of_model(256)).is_err());
    }
}

#[test]
fn a_tokenizer_on_which_its_library_panics_does_not_load() {
    let desk = Desk::new();
    let good = fs::read_to_string(desk.path("model/tokenizer.json")).unwrap();
    // A control character that no text of JSON may have.
    let damaged = good.replace("\"decoder\": {", "\"decoder\": {\"\u{1}\": 1,");
    assert_ne!(damaged, good);
    desk.file("model/tokenizer.json", damaged);
    let err = ChatEncoder::load(&desk.path("model"), &EncodingSettings::of_model(256)).unwrap_err();
    assert!(causes(&err).contains("the tokenizer does not load"), "{}", causes(&err));
}
