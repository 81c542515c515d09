//! Quantised weights: blocks of 32 or 256 values with scales of their own
//! (`ggml-quants.c` of ggml has the formats).

use half::{bf16, f16};

/// How a tensor's values are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As they are, in four bytes.
    F32,
    /// As they are, in two.
    F16,
    /// As they are, in two.
    Bf16,
    /// Blocks of 32: d·(q − 8), q of 4 bits.
    Q4_0,
    /// Blocks of 32: d·q + m, q of 4 bits.
    Q4_1,
    /// Blocks of 32: d·(q − 16), q of 5 bits.
    Q5_0,
    /// Blocks of 32: d·q + m, q of 5 bits.
    Q5_1,
    /// Blocks of 32: d·q, q of 8 bits.
    Q8_0,
    /// Blocks of 256 in eight parts: d·s·q − d'·m, q of 4 bits, s and m of 6.
    Q4K,
    /// The same with q of 5 bits.
    Q5K,
    /// Blocks of 256 in sixteen parts: d·s·(q − 32), q of 6 bits, s of 8.
    Q6K,
}

/// Values in a block that has parts.
const SUPER: usize = 256;

impl Packing {
    /// What is known, for people.
    pub(super) const KNOWN: &str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K";

    pub(super) fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Values and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (SUPER, 144),
            Self::Q5K => (SUPER, 176),
            Self::Q6K => (SUPER, 210),
        }
    }

    /// Bytes of `n_values`; `None` if those are no whole number of blocks.
    pub(super) fn n_bytes(self, n_values: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        n_values.is_multiple_of(values).then(|| (n_values / values).checked_mul(bytes)).flatten()
    }

    /// The values in `bytes`, a whole number of blocks.
    pub(super) fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let (n_values, n_bytes) = self.block();
        let mut values = Vec::with_capacity(bytes.len() / n_bytes * n_values);
        for block in bytes.chunks_exact(n_bytes) {
            match self {
                Self::F32 => {
                    values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
                }
                Self::F16 => values.push(half_at(block, 0)),
                Self::Bf16 => values.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q4_0 => four_bits(block, half_at(block, 0), -8.0, 0.0, &mut values),
                Self::Q4_1 => {
                    four_bits(&block[2..], half_at(block, 0), 0.0, half_at(block, 2), &mut values);
                }
                Self::Q5_0 => five_bits(block, half_at(block, 0), -16.0, 0.0, &mut values),
                Self::Q5_1 => {
                    five_bits(&block[2..], half_at(block, 0), 0.0, half_at(block, 2), &mut values);
                }
                Self::Q8_0 => {
                    let scale = half_at(block, 0);
                    values.extend(block[2..].iter().map(|q| scale * f32::from(q.cast_signed())));
                }
                Self::Q4K => with_minima(block, None, &block[16..], &mut values),
                Self::Q5K => with_minima(block, Some(&block[16..48]), &block[48..], &mut values),
                Self::Q6K => six_bits(block, &mut values),
            }
        }
        values
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low halves of sixteen bytes behind a scale, then the high ones.
fn four_bits(block: &[u8], scale: f32, offset: f32, minimum: f32, values: &mut Vec<f32>) {
    let bytes = &block[2..18];
    let low = bytes.iter().map(|byte| byte & 15);
    let high = bytes.iter().map(|byte| byte >> 4);
    values.extend(low.chain(high).map(|q| scale * (f32::from(q) + offset) + minimum));
}

/// The same, with each value's fifth bit in the four bytes before.
fn five_bits(block: &[u8], scale: f32, offset: f32, minimum: f32, values: &mut Vec<f32>) {
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let bytes = &block[6..22];
    let low = bytes.iter().map(|byte| byte & 15);
    let high = bytes.iter().map(|byte| byte >> 4);
    let value = |(at, q): (usize, u8)| {
        let q = q | ((fifth >> at & 1) as u8) << 4;
        scale * (f32::from(q) + offset) + minimum
    };
    values.extend(low.chain(high).enumerate().map(value));
}

/// Blocks of 256 in eight parts; `fifth` has each value's fifth bit, where there is one.
fn with_minima(block: &[u8], fifth: Option<&[u8]>, nibbles: &[u8], values: &mut Vec<f32>) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for part in 0..8 {
        let (s, m) = scale_and_minimum(packed, part);
        let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
        let bytes = &nibbles[part / 2 * 32..][..32];
        values.extend(bytes.iter().enumerate().map(|(at, byte)| {
            let q = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
            let q = q | fifth.map_or(0, |bits| (bits[at] >> part & 1) << 4);
            scale * f32::from(q) - minimum
        }));
    }
}

/// Of a part: six bits each, the last four parts' in what the first four leave over.
fn scale_and_minimum(packed: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (packed[part] & 63, packed[part + 4] & 63);
    }
    let low = packed[part + 4];
    (low & 15 | packed[part - 4] >> 6 << 4, low >> 4 | packed[part] >> 6 << 4)
}

/// Blocks of 256 in two halves of four times 32: four bits, two bits, scales, scale.
fn six_bits(block: &[u8], values: &mut Vec<f32>) {
    let (four, rest) = block.split_at(128);
    let (two, rest) = rest.split_at(64);
    let scale = half_at(rest, 16);
    for half in 0..2 {
        let (four, two) = (&four[64 * half..][..64], &two[32 * half..][..32]);
        for quarter in 0..4 {
            values.extend((0..32).map(|at| {
                let byte = four[32 * (quarter % 2) + at];
                let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
                let q = low | (two[at] >> (2 * quarter) & 3) << 4;
                let own = rest[8 * half + 2 * quarter + at / 16].cast_signed();
                scale * f32::from(own) * (f32::from(q) - 32.0)
            }));
        }
    }
}
