//! Modules that are several in one: queries, keys and values, or the MLP's gate
//! and way up.

/// How queries, keys and values stand in the output of one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// All queries, all keys, all values.
    Blocks,
    /// Query, key and value of the first head, then of the next.
    ByHead,
}

#[cfg(feature = "torch")]
mod torch {
    use tch::Tensor;

    use super::Joined;
    use crate::model::{DecoderConfig, dim};

    impl DecoderConfig {
        /// Queries, keys and values, `[.., n_heads · head_dim]` and twice `[..,
        /// n_kv_heads · head_dim]`, as views of what one module gave.
        pub(crate) fn split_heads(&self, joined: &Tensor) -> [Tensor; 3] {
            let head_dim = dim(self.head_dim);
            match self.joined {
                Joined::Blocks => {
                    let widths = [self.n_heads, self.n_kv_heads, self.n_kv_heads];
                    parts(joined, widths.map(|n_heads| dim(n_heads) * head_dim))
                }
                Joined::ByHead => {
                    let by_head = joined.unflatten(-1, [-1, 3 * head_dim]);
                    parts(&by_head, [head_dim; 3]).map(|heads| heads.flatten(-2, -1))
                }
            }
        }

        /// The other way, for gradients.
        pub(crate) fn join_heads(&self, heads: &[Tensor; 3]) -> Tensor {
            match self.joined {
                Joined::Blocks => Tensor::cat(heads, -1),
                Joined::ByHead => {
                    let head_dim = dim(self.head_dim);
                    let by_head = heads.each_ref().map(|rows| rows.unflatten(-1, [-1, head_dim]));
                    Tensor::cat(&by_head, -1).flatten(-2, -1)
                }
            }
        }
    }

    /// The MLP's gate and way up, as views of what one module gave.
    pub(crate) fn split_gate(joined: &Tensor) -> [Tensor; 2] {
        let width = joined.size().last().map_or(0, |width| width / 2);
        parts(joined, [width; 2])
    }

    fn parts<const N: usize>(joined: &Tensor, widths: [i64; N]) -> [Tensor; N] {
        let mut start = 0;
        widths.map(|width| {
            start += width;
            joined.narrow(-1, start - width, width)
        })
    }
}

#[cfg(feature = "torch")]
pub(crate) use torch::split_gate;
