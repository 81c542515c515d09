//! How well a projection keeps inner products.

use ndarray::ArrayView2;

/// The error of inner products after a projection, relative to the vectors'
/// lengths: the root of the mean over all pairs of rows x ≠ y of
///
/// ```text
/// ( (⟨Px, Py⟩ − ⟨x, y⟩) / (‖x‖·‖y‖) )²
/// ```
///
/// `exact` is `[n × grad_dim]`, `projected` `[n × proj_dim]`, row i of both
/// belonging to the same vector; f32 values, f64 sums. For nearly orthogonal
/// vectors a good projection is at 1/√`proj_dim`; with cosines of c, at
/// √((1+c²)/`proj_dim`).
///
/// NaN with fewer than two rows or a row of zeros.
///
/// # Panics
///
/// If the two have different numbers of rows.
pub fn inner_product_error(exact: ArrayView2<'_, f32>, projected: ArrayView2<'_, f32>) -> f64 {
    assert_eq!(exact.nrows(), projected.nrows(), "one projected row a vector");
    let exact = exact.mapv(f64::from);
    let projected = projected.mapv(f64::from);
    let (exact, projected) = (exact.dot(&exact.t()), projected.dot(&projected.t()));
    let n = exact.nrows();
    let pairs = (0..n).flat_map(|x| (0..x).map(move |y| (x, y)));
    let sum_of_squares: f64 = pairs
        .map(|(x, y)| {
            let lengths = (exact[[x, x]] * exact[[y, y]]).sqrt();
            ((projected[[x, y]] - exact[[x, y]]) / lengths).powi(2)
        })
        .sum();
    (sum_of_squares / (n * n.saturating_sub(1) / 2) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_error_is_relative_to_the_lengths() {
        let exact = array![[2.0, 0.0], [0.0, 3.0]];
        let projected = array![[2.0], [0.6]];
        // ⟨Px, Py⟩ = 1.2 instead of 0, with lengths 2 and 3.
        approx::assert_relative_eq!(
            inner_product_error(exact.view(), projected.view()),
            0.2,
            epsilon = 1e-7
        );
    }
}
