//! The model's weight files: one `model.safetensors` or `pytorch_model.bin`, shards
//! named by an index, or a GGUF file, mapped and checked against the configuration
//! before any is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::names::Names;
pub use super::weight_file::{Weight, WeightData, WeightFile};
use super::{DecoderConfig, shards};
use crate::gguf::GgufError;
use crate::tensor_file::TensorFileError;
use crate::torch_file::TorchFileError;

/// All weights of a model: each expected tensor present once, with the right
/// shape and a dtype that can be computed with.
#[derive(Debug)]
pub struct WeightFiles {
    files: Vec<WeightFile>,
    head_dim: usize,
    /// By the names that the configuration has for them.
    places: BTreeMap<String, Place>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
struct Place {
    /// Position among the files.
    file: usize,
    /// What it is called there.
    name: String,
}

/// Why a model's weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("model weights `{}`", path.display())]
pub struct WeightsError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: WeightsErrorKind,
}

/// What is wrong with weight files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsErrorKind {
    /// There are no weights.
    #[error("no model.safetensors, no pytorch_model.bin and no index of shards of either")]
    NoFile,
    /// A file cannot be read or is damaged.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A file of `torch.save` cannot be read, is damaged, or holds more than tensors.
    #[error(transparent)]
    Torch(Box<TorchFileError>),
    /// A GGUF file cannot be read or is damaged.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The index of shards cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The index of shards is not what it should be.
    #[error("damaged index of shards")]
    Index(#[source] serde_json::Error),
    /// A tensor that the configuration calls for is absent.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A tensor that the configuration does not call for.
    #[error("tensor `{0}` has no place in the model that its configuration describes")]
    Extra(String),
    /// Two shards hold the same tensor.
    #[error("tensor `{0}` is in another shard, too")]
    Twice(String),
    /// A tensor of another shape than the configuration says.
    #[error("tensor `{name}` has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor of a dtype that the decoder does not read.
    #[error("tensor `{name}` has dtype {dtype}, expected F32, F16 or BF16")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// An infinity or NaN among the weights.
    #[error("tensor `{0}` has values that are not finite")]
    NotFinite(String),
    /// The configuration ties the output projection to the embedding, and the
    /// files hold two different ones.
    #[error("the configuration ties the embeddings, but `{head}` differs from `{embeddings}`")]
    NotTied {
        /// The output projection.
        head: String,
        /// The embeddings.
        embeddings: String,
    },
}

impl WeightFiles {
    /// Maps the weight files in `model_dir` and checks names, shapes and
    /// dtypes against `config`. Values are not looked at.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, or a tensor missing, superfluous or
    /// not what `config` says; the error names the file and the tensor.
    pub fn open(model_dir: &Path, config: &DecoderConfig) -> Result<Self, WeightsError> {
        let (files, places) = (Vec::new(), BTreeMap::new());
        let mut weights = Self { files, head_dim: config.head_dim, places };
        for path in shards::paths(model_dir)?.into_iter().filter(|path| !shards::is_index(path)) {
            weights.add(WeightFile::open(&path)?, config.names)?;
        }
        weights.settle_tied(config)?;
        let mut unexpected = weights.places.clone();
        for (name, shape) in config.weights() {
            let Some(place) = unexpected.remove(&name) else {
                return Err(fail(model_dir, WeightsErrorKind::Missing(name)));
            };
            let file = &weights.files[place.file];
            check(file, place.name, shape).map_err(|kind| fail(file.path(), kind))?;
        }
        match unexpected.pop_first() {
            Some((_, place)) => {
                Err(fail(weights.files[place.file].path(), WeightsErrorKind::Extra(place.name)))
            }
            None => Ok(weights),
        }
    }

    /// The tensor `name` of the configuration this was opened with, and the
    /// file that holds it.
    ///
    /// # Panics
    ///
    /// If the configuration has no such tensor.
    pub fn tensor(&self, name: &str) -> (Weight<'_>, &Path) {
        let place = &self.places[name];
        let file = &self.files[place.file];
        (file.weight(&place.name, self.head_dim), file.path())
    }

    /// The files, in order of name.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    fn add(&mut self, file: WeightFile, names: &Names) -> Result<(), WeightsError> {
        for (canonical, name) in file.names(names) {
            let place = Place { file: self.files.len(), name };
            if let Some(Place { name, .. }) = self.places.insert(canonical, place) {
                return Err(fail(file.path(), WeightsErrorKind::Twice(name)));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// Forgets a second copy of tied embeddings. A file that holds the matrix by
    /// the head's name alone, as safetensors writes tensors that share memory, holds
    /// the embeddings.
    fn settle_tied(&mut self, config: &DecoderConfig) -> Result<(), WeightsError> {
        let [head, embeddings] = [config.head_weight(), config.embeddings_weight()];
        if !config.tied_embeddings || !self.places.contains_key(&head) {
            return Ok(());
        }
        if self.places.contains_key(&embeddings) {
            let (copy, path) = self.tensor(&head);
            if self.tensor(&embeddings).0.data.bytes() != copy.data.bytes() {
                return Err(fail(path, WeightsErrorKind::NotTied { head, embeddings }));
            }
        }
        let place = self.places.remove(&head).expect("it is there");
        self.places.entry(embeddings).or_insert(place);
        Ok(())
    }
}

pub(super) fn fail(path: &Path, kind: WeightsErrorKind) -> WeightsError {
    WeightsError { path: path.to_owned(), kind }
}

fn check(file: &WeightFile, name: String, expected: Vec<usize>) -> Result<(), WeightsErrorKind> {
    let (found, dtype) = file.described(&name);
    if found != expected {
        return Err(WeightsErrorKind::Shape { name, found, expected });
    }
    if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(WeightsErrorKind::Dtype { name, dtype });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_file::{TensorFile, serialize, to_f32};

    type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
    }

    /// A copy of the tiny Llama, its weights changed by `change`, then opened.
    fn open(change: impl FnOnce(&mut Tensors)) -> Result<WeightFiles, String> {
        let file = TensorFile::open(&fixture().join("model.safetensors")).unwrap();
        let mut tensors: Tensors = file
            .names()
            .into_iter()
            .map(|name| {
                let tensor = file.tensor(&name).unwrap();
                (name, (tensor.shape().to_vec(), to_f32(&tensor).unwrap()))
            })
            .collect();
        change(&mut tensors);
        let borrowed =
            tensors.iter().map(|(name, (shape, values))| (name.clone(), &shape[..], &values[..]));
        let dir = tempfile::tempdir().unwrap();
        let bytes = serialize(borrowed, "format", "pt");
        fs_err::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let config = DecoderConfig::read(&fixture()).unwrap();
        WeightFiles::open(dir.path(), &config).map_err(|err| err.kind.to_string())
    }

    #[test]
    fn wrong_tensors_are_named() {
        let norm = "model.norm.weight";
        let missing = open(|tensors| drop(tensors.remove(norm))).unwrap_err();
        insta::assert_snapshot!(missing, @"tensor `model.norm.weight` is missing");
        let extra = open(|tensors| drop(tensors.insert("classifier".into(), (vec![1], vec![0.0]))));
        insta::assert_snapshot!(extra.unwrap_err(), @"tensor `classifier` has no place in the model that its configuration describes");
        let shape = open(|tensors| drop(tensors.insert(norm.into(), (vec![2], vec![0.0; 2]))));
        insta::assert_snapshot!(shape.unwrap_err(), @"tensor `model.norm.weight` has shape [2], the configuration says [64]");
    }

    #[test]
    fn a_second_copy_of_tied_embeddings_must_be_a_copy() {
        let copy = |tensors: &mut Tensors| {
            let embeddings = tensors["model.embed_tokens.weight"].clone();
            tensors.insert("lm_head.weight".to_owned(), embeddings);
        };
        assert!(open(copy).is_ok());
        let other = |tensors: &mut Tensors| {
            copy(tensors);
            tensors.get_mut("lm_head.weight").unwrap().1[0] += 1.0;
        };
        insta::assert_snapshot!(open(other).unwrap_err(), @"the configuration ties the embeddings, but `lm_head.weight` differs from `model.embed_tokens.weight`");
    }

    #[test]
    fn rotary_tables_of_old_exports_are_passed_over() {
        let name = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
        assert!(open(|tensors| drop(tensors.insert(name, (vec![1], vec![1.0])))).is_ok());
    }

    #[test]
    fn tied_embeddings_may_have_the_name_of_the_head() {
        let renamed = |tensors: &mut Tensors| {
            let embeddings = tensors.remove("model.embed_tokens.weight").unwrap();
            tensors.insert("lm_head.weight".to_owned(), embeddings);
        };
        let weights = open(renamed).unwrap();
        assert_eq!(weights.places["model.embed_tokens.weight"].name, "lm_head.weight");
    }

    #[test]
    fn a_decoder_saved_without_its_head_has_the_same_weights() {
        let without_base = |tensors: &mut Tensors| {
            let all = std::mem::take(tensors).into_iter();
            let short = |name: String| name.strip_prefix("model.").unwrap().to_owned();
            tensors.extend(all.map(|(name, tensor)| (short(name), tensor)));
        };
        assert!(open(without_base).is_ok());
    }

    #[test]
    fn shards_are_read_by_their_index_and_none_may_be_missing() {
        let sharded = fixture().with_file_name("tiny-llama-biased");
        let config = DecoderConfig::read(&sharded).unwrap();
        let weights = WeightFiles::open(&sharded, &config).unwrap();
        assert_eq!(weights.files.len(), 3);
        assert_eq!(weights.tensor("lm_head.weight").0.dtype, Dtype::BF16);

        let dir = tempfile::tempdir().unwrap();
        for entry in fs_err::read_dir(&sharded).unwrap() {
            let path = entry.unwrap().path();
            fs_err::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        let shard = dir.path().join("model-00002-of-00003.safetensors");
        fs_err::copy(dir.path().join("model-00001-of-00003.safetensors"), &shard).unwrap();
        let error = WeightFiles::open(dir.path(), &config).unwrap_err();
        assert!(matches!(error.kind, WeightsErrorKind::Twice(_)), "{}", error.kind);
        fs_err::remove_file(&shard).unwrap();
        let error = WeightFiles::open(dir.path(), &config).unwrap_err();
        assert_eq!(error.path, shard);
    }

    #[test]
    fn integers_are_no_weights() {
        let dir = tempfile::tempdir().unwrap();
        let view = safetensors::tensor::TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
        let path = dir.path().join("x.safetensors");
        fs_err::write(&path, safetensors::serialize([("a", view)], None).unwrap()).unwrap();
        let file = WeightFile::open(&path).unwrap();
        insta::assert_snapshot!(check(&file, "a".into(), vec![1]).unwrap_err(), @"tensor `a` has dtype I64, expected F32, F16 or BF16");
    }

    #[test]
    fn weights_of_torch_save_are_those_of_safetensors() {
        let dir = tempfile::tempdir().unwrap();
        let torch = fixture().with_file_name("torch-files").join("pytorch_model.bin");
        let path = dir.path().join("pytorch_model.bin");
        fs_err::copy(torch, &path).unwrap();
        let biased = fixture().with_file_name("tiny-llama-biased");
        let config = DecoderConfig::read(&biased).unwrap();
        let torch = WeightFiles::open(dir.path(), &config).unwrap();
        let safetensors = WeightFiles::open(&biased, &config).unwrap();
        for (name, _) in config.weights() {
            let [(found, from), (expected, _)] =
                [&torch, &safetensors].map(|weights| weights.tensor(&name));
            assert_eq!(from, path);
            assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{name}");
            assert!(found.data.bytes() == expected.data.bytes(), "{name}");
        }
    }

    #[test]
    fn a_folder_without_weights_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = DecoderConfig::read(&fixture()).unwrap();
        let error = WeightFiles::open(dir.path(), &config).unwrap_err();
        assert!(matches!(error.kind, WeightsErrorKind::NoFile));
        assert_eq!(error.path, dir.path());
    }
}
