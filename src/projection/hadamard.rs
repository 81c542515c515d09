//! The Walsh–Hadamard transform.

/// Replaces x by H·x, H\[i, j\] = (−1)^(number of bits that i and j share): the
/// natural order, unscaled. f32 additions in an order that depends on the
/// length alone.
///
/// Quarters first, then all quarters at once: two of the usual stages in one
/// pass, and small parts finished while they are in the cache.
///
/// # Panics
///
/// If the length is no power of two.
pub(super) fn transform(x: &mut [f32]) {
    assert!(x.len().is_power_of_two(), "a Hadamard matrix of a power of two");
    match x.len() {
        1 => {}
        2 => (x[0], x[1]) = (x[0] + x[1], x[0] - x[1]),
        LEAF => leaf(x),
        len => {
            x.chunks_exact_mut(len / 4).for_each(transform);
            combine(x);
        }
    }
}

/// Length from which on recursion would cost more than additions.
const LEAF: usize = 64;

fn leaf(x: &mut [f32]) {
    for quarter in [1, 4, 16] {
        x.chunks_exact_mut(4 * quarter).for_each(combine);
    }
}

/// H of the whole from H of its quarters.
#[inline]
fn combine(x: &mut [f32]) {
    let (low, high) = x.split_at_mut(x.len() / 2);
    let (a, b) = low.split_at_mut(low.len() / 2);
    let (c, d) = high.split_at_mut(high.len() / 2);
    for ((a, b), (c, d)) in a.iter_mut().zip(b).zip(c.iter_mut().zip(d)) {
        let (ab, a_b, cd, c_d) = (*a + *b, *a - *b, *c + *d, *c - *d);
        (*a, *b, *c, *d) = (ab + cd, a_b + c_d, ab - cd, a_b - c_d);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_the_matrix_of_its_definition() {
        for log2 in 0..11 {
            // Whole numbers, so that every order of additions is exact.
            let x: Vec<f32> = (0..1 << log2).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
            let slow = |i: usize| -> f32 {
                let signed = |(j, x): (usize, &f32)| {
                    if (i & j).count_ones().is_multiple_of(2) { *x } else { -x }
                };
                x.iter().enumerate().map(signed).sum()
            };
            let mut found = x.clone();
            transform(&mut found);
            assert_eq!(found, (0..x.len()).map(slow).collect::<Vec<_>>());
        }
    }
}
