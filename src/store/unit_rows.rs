//! The rows of a shard in their columns: written, decoded, multiplied.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryArray, Float16Array, Float32Array, Int8Array,
};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Int8Type};
use arrow::error::ArrowError;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::decode::{Element, decode_row};
use super::dtype::GROUP;
use super::inner_products::{Queries, add_inner_products};
use super::{StoreDtype, list_type, lists, quantize};
use crate::gradient::direction::GradientKind;

/// Rows of unit length, or zeros where flagged, as they are stored.
#[derive(Clone, Copy, Debug)]
pub struct UnitRows<'a> {
    codes: Codes<'a>,
    /// One a row; `None` where the codes are the coordinates themselves.
    scales: Option<&'a [f32]>,
    proj_dim: usize,
}

/// The coordinates of rows, row-major.
#[derive(Clone, Copy, Debug)]
enum Codes<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    I8(&'a [i8]),
    I4(&'a [u8]),
    I1(&'a [u8]),
}

/// The columns that hold the rows of one kind.
pub(super) fn fields(kind: GradientKind, dtype: StoreDtype, proj_dim: usize) -> Vec<Field> {
    let codes = match dtype {
        StoreDtype::F32 => list_type(DataType::Float32, proj_dim),
        StoreDtype::F16 => list_type(DataType::Float16, proj_dim),
        StoreDtype::I8 => list_type(DataType::Int8, proj_dim),
        StoreDtype::I4 | StoreDtype::I1 => DataType::FixedSizeBinary(packed_size(dtype, proj_dim)),
    };
    let mut fields = vec![Field::new(kind.name(), codes, false)];
    if dtype.has_scale() {
        fields.push(Field::new(format!("{kind}.scale"), DataType::Float32, false));
    }
    fields
}

/// The same columns, filled with `unit`, `[n × proj_dim]`. Quantizes on the
/// current rayon pool.
pub(super) fn columns(
    dtype: StoreDtype,
    proj_dim: usize,
    unit: Vec<f32>,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let list = |values: ArrayRef| -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(lists(values, proj_dim)?))
    };
    let packed = |bytes: Vec<u8>| -> Result<ArrayRef, ArrowError> {
        let size = packed_size(dtype, proj_dim);
        Ok(Arc::new(FixedSizeBinaryArray::try_new(size, bytes.into(), None)?))
    };
    let with_scales = |codes: ArrayRef, scales: Vec<f32>| -> Vec<ArrayRef> {
        vec![codes, Arc::new(Float32Array::from(scales))]
    };
    Ok(match dtype {
        StoreDtype::F32 => vec![list(Arc::new(Float32Array::from(unit)))?],
        StoreDtype::F16 => {
            let mut halves = vec![f16::ZERO; unit.len()];
            halves.convert_from_f32_slice(&unit);
            vec![list(Arc::new(Float16Array::from(halves)))?]
        }
        StoreDtype::I8 => {
            let (codes, scales) = quantize::to_i8(&unit, proj_dim);
            with_scales(list(Arc::new(Int8Array::from(codes)))?, scales)
        }
        StoreDtype::I4 => {
            let (bytes, scales) = quantize::to_i4(&unit, proj_dim);
            with_scales(packed(bytes)?, scales)
        }
        StoreDtype::I1 => {
            let (bytes, scales) = quantize::to_i1(&unit, proj_dim);
            with_scales(packed(bytes)?, scales)
        }
    })
}

/// A size that Arrow cannot express becomes one that no data fits.
fn packed_size(dtype: StoreDtype, proj_dim: usize) -> i32 {
    i32::try_from(dtype.packed_bytes(proj_dim)).unwrap_or(i32::MAX)
}

impl<'a> UnitRows<'a> {
    /// Reads what [`columns`] made; their types are those of [`fields`].
    pub(super) fn read(dtype: StoreDtype, proj_dim: usize, columns: &'a [ArrayRef]) -> Self {
        let codes = &columns[0];
        let values = || codes.as_fixed_size_list().values();
        let bytes = || codes.as_fixed_size_binary().value_data();
        let codes = match dtype {
            StoreDtype::F32 => Codes::F32(values().as_primitive::<Float32Type>().values()),
            StoreDtype::F16 => Codes::F16(values().as_primitive::<Float16Type>().values()),
            StoreDtype::I8 => Codes::I8(values().as_primitive::<Int8Type>().values()),
            StoreDtype::I4 => Codes::I4(bytes()),
            StoreDtype::I1 => Codes::I1(bytes()),
        };
        let scales = || columns[1].as_primitive::<Float32Type>().values().as_ref();
        Self { codes, scales: dtype.has_scale().then(scales), proj_dim }
    }

    /// The rows `rows` as f32, `[n × proj_dim]`.
    ///
    /// # Panics
    ///
    /// If `rows` passes the end.
    pub fn decode(&self, rows: Range<usize>) -> Vec<f32> {
        let mut decoded = vec![0.0; rows.len() * self.proj_dim];
        for (row, values) in rows.zip(decoded.chunks_exact_mut(self.proj_dim)) {
            let this = self.slice(row..row + 1);
            match this.codes {
                Codes::F32(row) => values.copy_from_slice(row),
                Codes::F16(row) => decode_row::<_, GROUP>(row, values),
                Codes::I8(row) => decode_row::<_, GROUP>(row, values),
                Codes::I4(row) => decode_row::<_, { GROUP / 2 }>(row, values),
                Codes::I1(row) => decode_row::<_, { GROUP / 8 }>(row, values),
            }
            if let Some(scales) = this.scales {
                for value in values {
                    *value *= scales[0];
                }
            }
        }
        decoded
    }

    /// ⟨row, query⟩ of `rows` and all `queries`, `[n × queries.len()]`: see
    /// [`inner_products`](super::inner_products) for the order of the sums.
    ///
    /// # Panics
    ///
    /// If `rows` passes the end, or the queries are not `proj_dim` long.
    pub fn inner_products(&self, rows: Range<usize>, queries: &Queries) -> Vec<f64> {
        let mut products = vec![0.0; rows.len() * queries.len()];
        if products.is_empty() {
            return products;
        }
        assert_eq!(queries.length(), self.proj_dim, "queries are as long as rows");
        let Self { codes, scales, .. } = self.slice(rows);
        match codes {
            Codes::F32(rows) => add::<_, GROUP>(rows, queries, &mut products),
            Codes::F16(rows) => add::<_, GROUP>(rows, queries, &mut products),
            Codes::I8(rows) => add::<_, GROUP>(rows, queries, &mut products),
            Codes::I4(rows) => add::<_, { GROUP / 2 }>(rows, queries, &mut products),
            Codes::I1(rows) => add::<_, { GROUP / 8 }>(rows, queries, &mut products),
        }
        if let Some(scales) = scales {
            for (products, scale) in products.chunks_exact_mut(queries.len()).zip(scales) {
                for product in products {
                    *product *= f64::from(*scale);
                }
            }
        }
        products
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        let part = |row_len: usize| rows.start * row_len..rows.end * row_len;
        let packed = |dtype: StoreDtype| part(dtype.packed_bytes(self.proj_dim));
        let codes = match self.codes {
            Codes::F32(codes) => Codes::F32(&codes[part(self.proj_dim)]),
            Codes::F16(codes) => Codes::F16(&codes[part(self.proj_dim)]),
            Codes::I8(codes) => Codes::I8(&codes[part(self.proj_dim)]),
            Codes::I4(codes) => Codes::I4(&codes[packed(StoreDtype::I4)]),
            Codes::I1(codes) => Codes::I1(&codes[packed(StoreDtype::I1)]),
        };
        Self { codes, scales: self.scales.map(|scales| &scales[rows]), proj_dim: self.proj_dim }
    }
}

/// Adds the products of some whole rows; there is a row and a query.
fn add<T: Element<N>, const N: usize>(rows: &[T], queries: &Queries, sums: &mut [f64]) {
    let n_rows = sums.len() / queries.len();
    add_inner_products::<T, N>(rows, rows.len() / n_rows, queries, sums);
}
