//! The parameters a gradient is over: names, shapes and offsets, in one order.

/// One trainable parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name in the adapter file, such as
    /// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub name: String,
    /// Rows and columns, row-major.
    pub shape: Vec<usize>,
    /// Where its first coordinate stands in the whole gradient.
    pub offset: usize,
}

impl Param {
    /// Number of coordinates.
    pub fn n_coordinates(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All trainable parameters of a model, in the one order that gradients,
/// moments and projections share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamLayout {
    params: Vec<Param>,
    grad_dim: usize,
}

impl ParamLayout {
    /// Lays out parameters one behind the other, as given.
    pub fn new(params: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let mut grad_dim = 0;
        let params = params
            .into_iter()
            .map(|(name, shape)| {
                let param = Param { name, shape, offset: grad_dim };
                grad_dim += param.n_coordinates();
                param
            })
            .collect();
        Self { params, grad_dim }
    }

    /// The parameters, in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Number of coordinates of one whole gradient.
    pub fn grad_dim(&self) -> usize {
        self.grad_dim
    }

    /// A hash of names and shapes in order, as 32 hex digits: equal for two
    /// models whose gradients may be compared.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("less-select parameter layout v1");
        for param in &self.params {
            hasher.update(param.name.as_bytes());
            hasher.update(format!("{:?}", param.shape).as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_follow_one_another() {
        let layout = ParamLayout::new([("a".into(), vec![2, 3]), ("b".into(), vec![4])]);
        assert_eq!(layout.params().iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 6]);
        assert_eq!(layout.grad_dim(), 10);
    }

    #[test]
    fn another_order_is_another_layout() {
        let ab = ParamLayout::new([("a".into(), vec![2]), ("b".into(), vec![2])]);
        let ba = ParamLayout::new([("b".into(), vec![2]), ("a".into(), vec![2])]);
        assert_ne!(ab.fingerprint(), ba.fingerprint());
    }
}
