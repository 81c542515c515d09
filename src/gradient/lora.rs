//! LoRA gradients, layer by layer: every example's own, or all together for training.
//!
//! From the top, each layer is differentiated by hand ([`layer`](super::layer))
//! and is then dropped, so one layer's LoRA gradients are in memory at a time
//! ([`adapted`](super::adapted)).

use tch::{Kind, Tensor};

use super::adapted::Sink;
use super::layer::{Layers, Tape};
use super::layout::ParamLayout;
use super::pass::{MasksOf, Pass};
use super::{ExampleLoss, PerExampleGradients};
use crate::model::batch::Batch;
use crate::model::lora::LoraLeaves;
use crate::model::{LoraDecoder, ModelError, dim, memory};
use crate::pool::Example;

/// Labels whose logits are in memory at once on a processor: with 50,000 tokens
/// in the vocabulary, 25 MB of f32.
const LABELS: usize = 128;

/// Logits in memory at once on a CUDA device, 256 MB of f32: products of few rows
/// would wait for its memory.
const LOGITS_ON_DEVICE: usize = 1 << 26;

impl PerExampleGradients for LoraDecoder {
    type Error = ModelError;

    fn layout(&self) -> &ParamLayout {
        self.layout()
    }

    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, ModelError> {
        let mut rows = Vec::new();
        memory::guarded(|| {
            let batch = Batch::new(batch, self.config(), self.device())?;
            self.backward_tensors(&batch, &mut |param, gradient| {
                let gradient = gradient.f_to_kind(Kind::Float)?;
                rows.resize(gradient.numel(), 0.0);
                gradient.f_copy_data(&mut rows, gradient.numel())?;
                sink(param, &rows);
                Ok(())
            })
        })
    }

    fn is_out_of_memory(err: &ModelError) -> bool {
        matches!(err, ModelError::OutOfMemory(_))
    }
}

impl LoraDecoder {
    /// [`PerExampleGradients::backward`] with gradients on the model's device:
    /// `sink` is given each parameter's once, `[n_examples, rows, columns]` of
    /// the weights' kind.
    pub(crate) fn backward_tensors(
        &self,
        batch: &Batch,
        sink: &mut Sink<'_>,
    ) -> Result<Vec<ExampleLoss>, ModelError> {
        let pass = Pass::of_examples(self);
        let losses = self.differentiate(pass, batch, &weights(batch), sink)?;
        Ok(mean_losses(batch, &losses))
    }

    /// The gradient by `adapter` of the sum of the batch's token losses, each times
    /// `weight`: `sink` is given each parameter's once, `[1, rows, columns]` of the
    /// weights' kind. Returns the sum of each example's token losses, in nats.
    ///
    /// Dropout draws each layer's masks from the generator that `masks_of` gives.
    pub(crate) fn training_gradients(
        &self,
        batch: &Batch,
        adapter: &LoraLeaves,
        weight: f64,
        masks_of: &MasksOf,
        sink: &mut Sink<'_>,
    ) -> Result<Vec<f64>, ModelError> {
        memory::guarded(|| {
            let pass = Pass::of_training(self, adapter, masks_of);
            let weights = batch.targets.ones_like().to_kind(Kind::Float) * weight;
            let losses = self.differentiate(pass, batch, &weights, sink)?;
            Ok(batch.sums(&losses))
        })
    }

    /// The losses of the labels in nats, `[n_supervised]`; the gradients of their sum,
    /// each times one of `weights`, go to `sink`.
    fn differentiate(
        &self,
        pass: Pass<'_>,
        batch: &Batch,
        weights: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Vec<f32>, ModelError> {
        let pass = Layers::new(pass, batch);
        let mut hidden = self.decoder.embed(&batch.token_ids);
        let mut layers = Vec::new();
        for layer in 0..self.config().n_layers {
            let input = hidden.shallow_clone();
            let (output, tape) = pass.record(layer, hidden);
            hidden = output;
            layers.push(if self.recompute {
                Recorded::Input(layer, input)
            } else {
                Recorded::Tape(Box::new(tape))
            });
        }
        let (losses, mut gradient) = self.label_gradients(batch, weights, &hidden)?;
        while let Some(layer) = layers.pop() {
            let tape = match layer {
                Recorded::Input(layer, input) => pass.record(layer, input).1,
                Recorded::Tape(tape) => *tape,
            };
            gradient = pass.differentiate(tape, &gradient, sink)?;
        }
        Ok(Vec::try_from(losses)?)
    }

    /// Losses of the labels in nats, f32 `[n_supervised]`, and the gradient of their
    /// sum, each times one of `weights`, by `hidden`, `[n_examples, n_sites,
    /// hidden_size]`.
    fn label_gradients(
        &self,
        batch: &Batch,
        weights: &Tensor,
        hidden: &Tensor,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let weights = weights.to_device(self.device());
        let at_labels = hidden.flatten(0, 1).index_select(0, &batch.labels);
        let n_labels = at_labels.size()[0];
        let n_at_once = self.labels_at_once();
        let mut gradient = hidden.zeros_like().flatten(0, 1);
        let losses = gradient.new_empty([n_labels], (Kind::Float, self.device()));
        for start in (0..n_labels).step_by(n_at_once) {
            let n_own = dim(n_at_once).min(n_labels - start);
            let own = |rows: &Tensor| rows.narrow(0, start, n_own);
            let hidden = own(&at_labels).detach().set_requires_grad(true);
            let token_losses = self.decoder.losses_at(&hidden, &own(&batch.targets));
            let total = (&token_losses * own(&weights)).sum(Kind::Float);
            let by_hidden = Tensor::f_run_backward(&[total], &[hidden], false, false)?;
            let _ = gradient.index_copy_(0, &own(&batch.labels), &by_hidden[0]);
            own(&losses).copy_(&token_losses.detach());
        }
        Ok((losses, gradient.view_(hidden.size())))
    }

    fn labels_at_once(&self) -> usize {
        let logits = if self.device().is_cuda() { LOGITS_ON_DEVICE } else { 0 };
        (logits / self.config().vocab_size).max(LABELS)
    }
}

/// What is kept of a layer until its backward pass.
enum Recorded<'a> {
    /// The layer's number and input: the rest is computed once more.
    Input(usize, Tensor),
    /// All of it.
    Tape(Box<Tape<'a>>),
}

/// One over the number of supervised tokens of each token's example.
fn weights(batch: &Batch) -> Tensor {
    let weights: Vec<f32> =
        batch.n_supervised.iter().flat_map(|&n| std::iter::repeat_n(1.0 / n as f32, n)).collect();
    Tensor::from_slice(&weights)
}

fn mean_losses(batch: &Batch, token_losses: &[f32]) -> Vec<ExampleLoss> {
    let losses = batch.sums(token_losses).into_iter().zip(&batch.n_supervised);
    losses
        .map(|(sum, &n)| ExampleLoss {
            loss: (sum / n.max(1) as f64) as f32,
            n_supervised: n as u32,
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use super::*;
    use crate::checkpoint::LoraSettings;
    use crate::compute::{ComputeSettings, Dtype};
    use crate::model::flat;
    use crate::pool::ExampleId;
    use crate::seed::Seed;
    use crate::warmup::trial_adapter;

    pub(in crate::gradient) fn example(token_ids: &[u32], supervised: &[bool]) -> Example {
        let id = ExampleId::of(token_ids, supervised);
        Example { id, token_ids: token_ids.to_vec(), supervised: supervised.to_vec() }
    }

    /// The tiny Llama, its adapter small and nowhere zero.
    fn model() -> LoraDecoder {
        model_with(&["v_proj"], Dtype::F32)
    }

    pub(in crate::gradient) fn model_with(targets: &[&str], dtype: Dtype) -> LoraDecoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let targets = targets.iter().map(|&name| name.to_owned()).collect();
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.5, targets };
        let compute =
            ComputeSettings { threads: Some(NonZeroUsize::MIN), ..ComputeSettings::cpu(dtype) };
        let mut model = LoraDecoder::load(&dir, &lora, &compute).unwrap();
        let n = model.layout().grad_dim();
        model.set_adapter(&(0..n).map(|at| 0.01 * (1 + at % 7) as f32).collect::<Vec<_>>());
        model
    }

    /// Losses, and the sum of squares of each row's gradient.
    fn backward(model: &mut LoraDecoder, batch: &[&Example]) -> (Vec<ExampleLoss>, Vec<f32>) {
        let mut squares = vec![0.0; batch.len()];
        let losses = model.backward(batch, &mut |_, rows| {
            for (sum, row) in squares.iter_mut().zip(rows.chunks(rows.len() / batch.len())) {
                *sum += row.iter().map(|value| value * value).sum::<f32>();
            }
        });
        (losses.unwrap(), squares)
    }

    /// Whole gradients, one an example, from one batch.
    fn gradients(model: &mut LoraDecoder, batch: &[&Example]) -> Vec<Vec<f32>> {
        let layout = model.layout().clone();
        let mut rows = vec![vec![f32::NAN; layout.grad_dim()]; batch.len()];
        let sink = &mut |param: usize, values: &[f32]| {
            let param = &layout.params()[param];
            for (row, own) in rows.iter_mut().zip(values.chunks_exact(param.n_coordinates())) {
                row[param.offset..][..own.len()].copy_from_slice(own);
            }
        };
        model.backward(batch, sink).unwrap();
        rows
    }

    /// The gradient as plainly as libtorch gives it: one example, one graph,
    /// the adapter's weights its leaves.
    fn plain_gradient(model: &LoraDecoder, example: &Example) -> Vec<f32> {
        let batch = Batch::new(&[example], model.config(), model.device()).unwrap();
        let lora = leaves(model);
        let loss = token_losses(model, &batch, &lora).mean(Kind::Float);
        flat(&Tensor::run_backward(&[loss], &lora.leaves, false, false))
    }

    /// The losses of the supervised tokens, f32 `[n_supervised]`, as a graph.
    fn token_losses(model: &LoraDecoder, batch: &Batch, lora: &LoraLeaves) -> Tensor {
        let hidden = model.decoder.hidden(&batch.token_ids, &batch.lengths, lora);
        let at_labels = hidden.flatten(0, 1).index_select(0, &batch.positions);
        model.decoder.losses_at(&at_labels, &batch.targets)
    }

    /// The model's adapter, as what autograd differentiates by.
    fn leaves(model: &LoraDecoder) -> LoraLeaves {
        let LoraLeaves { leaves, .. } = model.trainable();
        let leaves = leaves.into_iter().map(|leaf| leaf.set_requires_grad(true)).collect();
        LoraLeaves { leaves, dropout: 0.0, ..model.trainable() }
    }

    fn distance(found: &[f32], expected: &[f32]) -> f32 {
        let norm =
            |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        norm(&mut found.iter().zip(expected).map(|(a, b)| a - b))
            / norm(&mut expected.iter().copied())
    }

    #[test]
    fn gradients_equal_those_of_one_example_and_one_graph() {
        let examples = [
            example(&[8, 9, 10, 11], &[false, false, true, true]),
            example(
                &[1, 2, 3, 4, 5, 6, 7, 8, 9],
                &[false, true, false, true, false, false, true, true, false],
            ),
            example(&[300, 7], &[false, true]),
            example(&[20, 21, 22, 23], &[false, true, true, true]),
        ];
        let batch: Vec<&Example> = examples.iter().collect();
        let all: &[&str] = &["all-linear"];
        for (targets, dtype, tolerance) in [
            (all, Dtype::F32, 2e-6),
            (&["k_proj", "v_proj"], Dtype::F32, 2e-6),
            (all, Dtype::Bf16, 3e-2),
        ] {
            let mut model = model_with(targets, dtype);
            for is_fused in [false, true] {
                model.is_fused = is_fused;
                for (found, example) in gradients(&mut model, &batch).iter().zip(&examples) {
                    let distance = distance(found, &plain_gradient(&model, example));
                    let what = format!("{targets:?}, {dtype:?}, fused: {is_fused}");
                    assert!(distance <= tolerance, "{what}: {distance}");
                }
            }
        }
    }

    /// A configuration of every kind of layer that families have.
    fn families() -> Vec<serde_json::Value> {
        use serde_json::json;
        let window = json!({ "use_sliding_window": true, "sliding_window": 9 });
        let gpt2 = json!({
            "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96, "n_positions": 300,
        });
        let parallel = json!({ "use_parallel_residual": false, "rotary_pct": 0.5 });
        let long = json!({ "rope_scaling": {
            "type": "longrope", "short_factor": [1.0, 1.5, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0],
            "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            "original_max_position_embeddings": 25, "factor": 4.0,
        }});
        let of = |model_type, own: &[&serde_json::Value]| {
            let mut config = json!({
                "model_type": model_type, "hidden_size": 64, "intermediate_size": 96,
                "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
                "vocab_size": 512, "head_dim": 16,
            });
            for changes in own {
                config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            }
            config
        };
        let layers = json!({ "layer_types": ["sliding_attention", "full_attention"] });
        vec![
            of("qwen3", &[&window, &json!({ "max_window_layers": 1 })]),
            of("qwen3", &[&window, &layers]),
            of("smollm3", &[&window, &json!({ "no_rope_layers": [0, 1] })]),
            of("phi3", &[&json!({ "sliding_window": 9 })]),
            of("phi3", &[&long]),
            of("olmo2", &[]),
            of("gemma", &[]),
            of("gemma2", &[&window]),
            of("gemma3_text", &[&window, &layers]),
            of("gpt_neox", &[]),
            of("gpt_neox", &[&parallel]),
            of("gpt2", &[&gpt2]),
        ]
    }

    #[test]
    fn what_families_add_is_differentiated_as_autograd_does() {
        let dir = tempfile::tempdir().unwrap();
        let row = |n_tokens: u32| {
            let token_ids: Vec<u32> = (0..n_tokens).map(|at| 7 * at * (at + 3) % 512).collect();
            let supervised: Vec<bool> = (0..n_tokens).map(|at| at > n_tokens / 3).collect();
            example(&token_ids, &supervised)
        };
        let examples = [row(300), row(20), row(2)];
        let batch: Vec<&Example> = examples.iter().collect();
        for config in families() {
            fs_err::write(dir.path().join("config.json"), config.to_string()).unwrap();
            let targets = vec!["all-linear".to_owned()];
            let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.0, targets };
            let threads = Some(NonZeroUsize::MIN);
            for (dtype, tolerance) in [(Dtype::F32, 1e-5), (Dtype::Bf16, 5e-2)] {
                let compute = ComputeSettings { threads, ..ComputeSettings::cpu(dtype) };
                let mut model = LoraDecoder::random(dir.path(), Seed(0), &lora, &compute).unwrap();
                model.set_adapter(&trial_adapter(model.layout(), Seed(0)));
                for is_fused in [false, true] {
                    model.is_fused = is_fused;
                    for (found, example) in gradients(&mut model, &batch).iter().zip(&examples) {
                        let distance = distance(found, &plain_gradient(&model, example));
                        let what = format!("{config}, {dtype:?}, fused: {is_fused}");
                        assert!(distance <= tolerance, "{what}: {distance}");
                    }
                }
            }
        }
    }

    /// Longer than a block of queries of [`attention`](super::super::attention),
    /// as are the labels. In f32, 1.4e-6 is found: sums over more positions than in
    /// the short rows above.
    #[test]
    fn gradients_of_long_rows_equal_those_of_one_example_and_one_graph() {
        let row = |n_tokens: u32, n_prompt: u32| {
            let token_ids: Vec<u32> = (0..n_tokens).map(|at| 7 * at * (at + 3) % 512).collect();
            let supervised: Vec<bool> = (0..n_tokens).map(|at| at >= n_prompt).collect();
            example(&token_ids, &supervised)
        };
        let examples = [row(601, 90), row(300, 2), row(258, 257)];
        let batch: Vec<&Example> = examples.iter().collect();
        for (dtype, tolerance) in [(Dtype::F32, 5e-6), (Dtype::Bf16, 3e-2)] {
            let mut model = model_with(&["all-linear"], dtype);
            for (found, example) in gradients(&mut model, &batch).iter().zip(&examples) {
                let distance = distance(found, &plain_gradient(&model, example));
                assert!(distance <= tolerance, "{dtype:?}: {distance}");
            }
        }
    }

    #[test]
    fn activations_computed_again_give_the_same_bits() {
        let examples = [
            example(&[8, 9, 10, 11], &[false, false, true, true]),
            example(&[1, 2, 3, 4, 5, 6], &[false, true, false, true, true, true]),
        ];
        let batch: Vec<&Example> = examples.iter().collect();
        let mut model = model();
        let kept = gradients(&mut model, &batch);
        model.recompute = true;
        assert_eq!(gradients(&mut model, &batch), kept);
    }

    #[test]
    fn a_row_without_labels_has_no_gradient_and_disturbs_no_other() {
        let mut model = model();
        let silent = example(&[5, 6, 7], &[false; 3]);
        let other = example(&[8, 9, 10, 11], &[false, false, true, true]);
        let nothing = ExampleLoss { loss: 0.0, n_supervised: 0 };
        assert_eq!(backward(&mut model, &[&silent]), (vec![nothing], vec![0.0]));
        let (losses, squares) = backward(&mut model, &[&silent, &other]);
        assert_eq!((losses[0], squares[0].to_bits()), (nothing, 0));
        let (alone, square) = backward(&mut model, &[&other]);
        approx::assert_relative_eq!(losses[1].loss, alone[0].loss, max_relative = 1e-6);
        approx::assert_relative_eq!(squares[1], square[0], max_relative = 1e-5);
        assert!(squares[1] > 0.0);
    }

    /// The gradient of a training's loss, and the sums of the rows' token losses.
    fn training_gradient(
        model: &LoraDecoder,
        adapter: &LoraLeaves,
        batch: &[&Example],
    ) -> (Vec<f32>, Vec<f64>) {
        let batch = Batch::new(batch, model.config(), model.device()).unwrap();
        let mut gradient = vec![f32::NAN; model.layout().grad_dim()];
        let masks_of = |layer: usize| Seed(7).stream(&["masks", &layer.to_string()]);
        let sink = &mut |param: usize, found: Tensor| {
            let param = &model.layout().params()[param];
            let found = flat(&[found.to_kind(Kind::Float)]);
            gradient[param.offset..][..found.len()].copy_from_slice(&found);
            Ok(())
        };
        let losses = model.training_gradients(&batch, adapter, 0.25, &masks_of, sink).unwrap();
        (gradient, losses)
    }

    #[test]
    fn a_trainings_gradient_is_that_of_the_sum_of_all_losses() {
        let examples = [
            example(&[8, 9, 10, 11], &[false, false, true, true]),
            example(&[1, 2, 3, 4, 5, 6, 7], &[false, true, false, true, false, false, true]),
            example(&[5, 6, 7], &[false; 3]),
        ];
        let batch: Vec<&Example> = examples.iter().collect();
        for (dtype, tolerance) in [(Dtype::F32, 2e-6), (Dtype::Bf16, 3e-2)] {
            let model = model_with(&["all-linear"], dtype);
            let lora = leaves(&model);
            let plain = Batch::new(&batch, model.config(), model.device()).unwrap();
            let losses = token_losses(&model, &plain, &lora);
            let loss = losses.sum(Kind::Float) * 0.25;
            let expected = flat(&Tensor::run_backward(&[loss], &lora.leaves, false, false));
            let adapter = LoraLeaves { dropout: 0.0, ..model.trainable() };
            let (found, sums) = training_gradient(&model, &adapter, &batch);
            let distance = distance(&found, &expected);
            assert!(distance <= tolerance, "{dtype:?}: {distance}");
            let expected = plain.sums(&flat(&[losses]));
            for (found, expected) in sums.iter().zip(&expected) {
                approx::assert_relative_eq!(found, expected, max_relative = 1e-2);
            }
        }
    }

    /// A small step along the gradient changes the loss, under the same masks, by its
    /// length squared.
    #[test]
    fn a_trainings_gradient_is_that_of_what_dropout_leaves() {
        let rows = [
            example(&[8, 9, 10, 11, 12, 13], &[false, false, true, true, true, true]),
            example(&[1, 2, 3, 4, 5, 6, 7], &[false, true, false, true, true, true, true]),
        ];
        let batch: Vec<&Example> = rows.iter().collect();
        let mut model = model_with(&["all-linear"], Dtype::F32);
        let loss = |adapter: &LoraLeaves| {
            0.25 * training_gradient(&model, adapter, &batch).1.iter().sum::<f64>()
        };
        let adapter = model.trainable();
        assert!(adapter.dropout > 0.0);
        let (gradient, _) = training_gradient(&model, &adapter, &batch);
        let squared: f64 = gradient.iter().map(|x| f64::from(x * x)).sum();
        let step = |size: f64| {
            let along = model.tensors(&gradient);
            let moved = adapter.leaves.iter().zip(along).map(|(leaf, along)| leaf + along * size);
            LoraLeaves { leaves: moved.collect(), modules: adapter.modules.clone(), ..adapter }
        };
        let size = 1e-2 / squared.sqrt();
        let slope = (loss(&step(size)) - loss(&step(-size))) / (2.0 * size);
        approx::assert_relative_eq!(slope, squared, max_relative = 1e-2);
        let without = LoraLeaves { dropout: 0.0, ..model.trainable() };
        assert!(distance(&training_gradient(&model, &without, &batch).0, &gradient) > 0.1);
        // The masks are the same where activations are computed again.
        model.recompute = true;
        assert_eq!(training_gradient(&model, &adapter, &batch).0, gradient);
    }

    #[test]
    fn gradients_know_no_dropout() {
        let mut model = model();
        let row = example(&[8, 9, 10, 11], &[false, false, true, true]);
        assert_eq!(backward(&mut model, &[&row]), backward(&mut model, &[&row]));
    }
}
