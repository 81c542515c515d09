//! Γ against its formula in f64 and against torch's arithmetic.

use std::path::Path;

use less_select::gradient::direction::{AdamRule, GradientKind, Moments};
use less_select::gradient::layout::ParamLayout;
use proptest::prelude::*;
use safetensors::SafeTensors;

use crate::slow_less;

const RULE: AdamRule = AdamRule { beta1: 0.85, beta2: 0.99, epsilon: 1e-6, step: 3 };

proptest! {
    #[test]
    fn every_kind_follows_its_formula(
        coordinates in prop::collection::vec((-1f32..1.0, -1f32..1.0, 0f32..1.0), 1..50),
        exponent in -12i32..1,
    ) {
        let scale = 10f32.powi(exponent);
        let gradient: Vec<f32> = coordinates.iter().map(|c| c.0 * scale).collect();
        let moments = Moments {
            rule: RULE,
            exp_avg: coordinates.iter().map(|c| c.1 * scale).collect(),
            exp_avg_sq: coordinates.iter().map(|c| c.2 * scale * scale).collect(),
        };
        for kind in GradientKind::ALL {
            let mut out = vec![0.0; gradient.len()];
            kind.write_direction(&gradient, Some(moments.slice(0..gradient.len())), &mut out);
            for (i, found) in out.iter().enumerate() {
                let [g, m, v] =
                    [gradient[i], moments.exp_avg[i], moments.exp_avg_sq[i]].map(f64::from);
                let expected = slow_less::direction(kind, RULE, g, m, v);
                // m and g may cancel; what is left has the error of the larger one.
                let size = slow_less::direction(kind, RULE, g.abs(), m.abs(), v);
                prop_assert!(
                    (f64::from(*found) - expected).abs() <= 2e-6 * size + 1e-30,
                    "{}: {} is not {}", kind, found, expected
                );
            }
        }
    }
}

/// The gradients of two examples at a checkpoint of a tiny Llama, and Γ of
/// them, as torch computed both (`scripts/goldens`).
#[test]
fn every_kind_equals_torchs_arithmetic() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let checkpoint =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-checkpoints/epoch-2");
    let facts: Facts =
        serde_json::from_slice(&fs_err::read(goldens.join("model.json")).unwrap()).unwrap();
    let layout = ParamLayout::new(facts.params);
    let moments = moments(&checkpoint, &layout, facts.step);
    let file = fs_err::read(goldens.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let gradients = floats(&file, "gradients");
    for kind in [GradientKind::Adam, GradientKind::LessCode, GradientKind::AdamV] {
        let expected = floats(&file, &format!("gamma.{kind}"));
        assert_eq!(expected.len(), facts.gamma_rows.len() * layout.grad_dim());
        let expected = expected.chunks_exact(layout.grad_dim());
        for (&row, expected) in facts.gamma_rows.iter().zip(expected) {
            let gradient = &gradients[row * layout.grad_dim()..][..layout.grad_dim()];
            let mut out = vec![0.0; gradient.len()];
            kind.write_direction(gradient, Some(moments.slice(0..gradient.len())), &mut out);
            for (found, expected) in out.iter().zip(expected) {
                approx::assert_relative_eq!(found, expected, epsilon = 1e-6, max_relative = 1e-5);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Facts {
    params: Vec<(String, Vec<usize>)>,
    gamma_rows: Vec<usize>,
    step: u64,
}

fn moments(checkpoint: &Path, layout: &ParamLayout, step: u64) -> Moments {
    let file = fs_err::read(checkpoint.join("optimizer.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let gather = |prefix: &str| {
        let names = layout.params().iter().map(|param| format!("{prefix}.{}", param.name));
        names.flat_map(|name| floats(&file, &name)).collect()
    };
    Moments {
        rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step },
        exp_avg: gather("exp_avg"),
        exp_avg_sq: gather("exp_avg_sq"),
    }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}
