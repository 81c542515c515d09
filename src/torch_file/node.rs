//! Looking at the objects of a file.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::Dtype;

use super::rebuild::{TensorParts, size_of};
use super::unpickle::{Id, Object, Pickle};
use crate::tensor_file;

/// An object of a file.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pickle: &'a Pickle,
    bytes: &'a [u8],
    id: Id,
}

impl<'a> Node<'a> {
    pub(super) fn root(pickle: &'a Pickle, bytes: &'a [u8]) -> Self {
        Self { pickle, bytes, id: pickle.root }
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    fn object(self) -> &'a Object {
        &self.pickle.objects[self.id]
    }

    /// The entries of a dict, in order; `None` if it is none. A key may stand
    /// there twice, and then the last one counts.
    pub fn entries(self) -> Option<impl Iterator<Item = (Node<'a>, Node<'a>)>> {
        match self.object() {
            Object::Dict(entries) => {
                Some(entries.iter().map(move |&(key, value)| (self.at(key), self.at(value))))
            }
            _ => None,
        }
    }

    /// The items of a list, a tuple or a set; `None` if it is none.
    pub fn items(self) -> Option<impl Iterator<Item = Node<'a>>> {
        match self.object() {
            Object::Sequence(items) => Some(items.iter().map(move |&id| self.at(id))),
            _ => None,
        }
    }

    /// What a dict holds under a text.
    pub fn get(self, key: &str) -> Option<Node<'a>> {
        self.entries()?.filter(|(own, _)| own.text() == Some(key)).map(|(_, value)| value).last()
    }

    /// A text.
    pub fn text(self) -> Option<&'a str> {
        match self.object() {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer.
    pub fn integer(self) -> Option<i64> {
        match self.object() {
            Object::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A truth value.
    pub fn truth(self) -> Option<bool> {
        match self.object() {
            Object::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// An integer, a float, or the only element of a tensor.
    pub fn number(self) -> Option<f64> {
        match self.object() {
            Object::Int(number) => Some(*number as f64),
            Object::Float(number) => Some(*number),
            Object::Tensor(_) => self.tensor()?.only_element(),
            _ => None,
        }
    }

    /// A tensor.
    pub fn tensor(self) -> Option<Tensor<'a>> {
        match self.object() {
            Object::Tensor(parts) => Some(Tensor { parts, bytes: self.bytes }),
            _ => None,
        }
    }
}

/// A tensor of a mapped file.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    parts: &'a TensorParts,
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        self.parts.dtype
    }

    /// Its sizes.
    pub fn shape(&self) -> &'a [usize] {
        &self.parts.shape
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// The bytes of its elements, row-major: those of the file where they lie
    /// so in it, else a copy.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        let storage = &self.bytes[self.parts.bytes.clone()];
        let size = size_of(self.dtype());
        let n_elements = self.n_elements();
        if n_elements == 0 {
            return Cow::Borrowed(&[]);
        }
        if self.is_row_major() {
            return Cow::Borrowed(&storage[..n_elements * size]);
        }
        let mut gathered = Vec::with_capacity(n_elements * size);
        let mut place = vec![0; self.shape().len()];
        for _ in 0..n_elements {
            let strides = place.iter().zip(&self.parts.strides);
            let element: usize = strides.map(|(at, stride)| at * stride).sum();
            gathered.extend_from_slice(&storage[element * size..][..size]);
            advance(&mut place, self.shape());
        }
        Cow::Owned(gathered)
    }

    /// Its elements as f32, row-major; `None` if they are no f32, f16 or bf16.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        tensor_file::floats(self.dtype(), &self.bytes())
    }

    fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape().iter().zip(&self.parts.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }

    fn only_element(&self) -> Option<f64> {
        if self.n_elements() != 1 {
            return None;
        }
        let bytes = self.bytes();
        Some(match self.dtype() {
            Dtype::F64 => f64::from_le_bytes(bytes.as_ref().try_into().ok()?),
            Dtype::F32 => f32::from_le_bytes(bytes.as_ref().try_into().ok()?).into(),
            Dtype::F16 => f16::from_le_bytes(bytes.as_ref().try_into().ok()?).into(),
            Dtype::BF16 => bf16::from_le_bytes(bytes.as_ref().try_into().ok()?).into(),
            Dtype::I64 => i64::from_le_bytes(bytes.as_ref().try_into().ok()?) as f64,
            Dtype::I32 => i32::from_le_bytes(bytes.as_ref().try_into().ok()?).into(),
            _ => return None,
        })
    }
}

/// The next place in row-major order.
fn advance(place: &mut [usize], shape: &[usize]) {
    for (at, size) in place.iter_mut().zip(shape).rev() {
        *at += 1;
        if *at < *size {
            return;
        }
        *at = 0;
    }
}
