//! Stored coordinates as f32, a group at a time.

#![expect(clippy::inline_always, reason = "code is compiled for the target it is inlined into")]

use half::f16;

use super::dtype::GROUP;

/// What a stored row is a slice of: `N` of them are [`GROUP`] coordinates.
///
/// Written as plain loops over arrays, which the compiler turns into vector
/// instructions wherever this is inlined.
pub(super) trait Element<const N: usize>: Copy + Default + Sync {
    /// The coordinates of a group, without the row's scale.
    fn decode(group: &[Self; N]) -> [f32; GROUP];
}

impl Element<GROUP> for f32 {
    #[inline(always)]
    fn decode(group: &[Self; GROUP]) -> [f32; GROUP] {
        *group
    }
}

impl Element<GROUP> for f16 {
    #[inline(always)]
    fn decode(group: &[Self; GROUP]) -> [f32; GROUP] {
        let mut values = [0.0; GROUP];
        for (value, half) in values.iter_mut().zip(group) {
            *value = finite_half(*half);
        }
        values
    }
}

impl Element<GROUP> for i8 {
    #[inline(always)]
    fn decode(group: &[Self; GROUP]) -> [f32; GROUP] {
        let mut values = [0.0; GROUP];
        for (value, code) in values.iter_mut().zip(group) {
            *value = f32::from(*code);
        }
        values
    }
}

/// `i4`: two codes a byte, [`GROUP`]/2 coordinates apart.
impl Element<{ GROUP / 2 }> for u8 {
    #[inline(always)]
    fn decode(group: &[Self; GROUP / 2]) -> [f32; GROUP] {
        // Two's complement of four bits.
        let signed = |code: i32| ((code ^ 8) - 8) as f32;
        let mut values = [0.0; GROUP];
        let (low, high) = values.split_at_mut(GROUP / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(group) {
            *low = signed(i32::from(byte & 15));
            *high = signed(i32::from(byte >> 4));
        }
        values
    }
}

/// `i1`: eight codes a byte, a set bit meaning −1.
impl Element<{ GROUP / 8 }> for u8 {
    #[inline(always)]
    fn decode(group: &[Self; GROUP / 8]) -> [f32; GROUP] {
        let bits = u32::from_le_bytes(*group);
        let mut values = [0.0; GROUP];
        for (value, place) in values.iter_mut().zip(0..) {
            let sign = bits.wrapping_shl(31 - place) & 1 << 31;
            *value = f32::from_bits(1f32.to_bits() | sign);
        }
        values
    }
}

/// A finite f16 as f32, by arithmetic that every processor has. Coordinates of
/// unit rows are finite.
#[inline(always)]
fn finite_half(half: f16) -> f32 {
    // The exponent of f32 is 112 higher.
    const REBIAS: u32 = 112 << 23;
    // The value of 2^−14, from which on f16 has no smaller exponents.
    const LEAST_NORMAL: u32 = 113 << 23;
    let bits = u32::from(half.to_bits());
    let (magnitude, sign) = ((bits & 0x7fff) << 13, (bits & 0x8000) << 16);
    let normal = magnitude.wrapping_add(REBIAS);
    let subnormal = f32::from_bits(magnitude | LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
    let is_normal = magnitude >= 1 << 23;
    f32::from_bits(sign | if is_normal { normal } else { subnormal.to_bits() })
}

/// Decodes a row into as many coordinates as `values` has.
pub(super) fn decode_row<T: Element<N>, const N: usize>(row: &[T], values: &mut [f32]) {
    let (groups, tail) = row.as_chunks::<N>();
    let tail = padded(tail);
    let groups = groups.iter().chain([&tail]);
    for (values, group) in values.chunks_mut(GROUP).zip(groups) {
        values.copy_from_slice(&T::decode(group)[..values.len()]);
    }
}

/// What is left of a row after its whole groups, with zeros behind it.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut group = [T::default(); N];
    group[..tail.len()].copy_from_slice(tail);
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_is_decoded_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(finite_half(half).to_bits(), half.to_f32().to_bits(), "{half}");
            }
        }
    }

    #[test]
    fn a_row_may_end_within_a_group() {
        let row: Vec<i8> = (-20..25).collect();
        let mut values = vec![0.0; row.len()];
        decode_row(&row, &mut values);
        assert_eq!(values, row.iter().map(|code| f32::from(*code)).collect::<Vec<_>>());
    }
}
