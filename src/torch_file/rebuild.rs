//! The functions that a pickle of tensors calls, and what comes of them.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use super::TorchFileError;
use super::unpickle::{Id, Object};

/// A class or function that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `set` and `frozenset`.
    Set,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`: the tensor is its first argument.
    Parameter,
    /// The class of storages of a dtype, such as `torch.FloatStorage`.
    StorageOf(Dtype),
}

impl Function {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Set,
            ("torch._utils", "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
            ("torch", "FloatStorage") => Self::StorageOf(Dtype::F32),
            ("torch", "HalfStorage") => Self::StorageOf(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::StorageOf(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::StorageOf(Dtype::F64),
            ("torch", "LongStorage") => Self::StorageOf(Dtype::I64),
            ("torch", "IntStorage") => Self::StorageOf(Dtype::I32),
            ("torch", "ShortStorage") => Self::StorageOf(Dtype::I16),
            ("torch", "CharStorage") => Self::StorageOf(Dtype::I8),
            ("torch", "ByteStorage") => Self::StorageOf(Dtype::U8),
            ("torch", "BoolStorage") => Self::StorageOf(Dtype::BOOL),
            _ => return None,
        })
    }
}

/// Most dimensions of a tensor. Weights have two; more would let a few bytes of a
/// pickle take much memory.
const MAX_DIMS: usize = 8;

/// A storage: where its bytes are in the file.
#[derive(Debug)]
pub(super) struct Storage {
    /// The text that names it.
    key: Id,
    dtype: Dtype,
    bytes: Range<usize>,
}

/// A tensor: where its elements are in the file.
#[derive(Debug)]
pub(super) struct TensorParts {
    pub(super) dtype: Dtype,
    /// From its first element to the end of its storage.
    pub(super) bytes: Range<usize>,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
}

/// What a call returns.
pub(super) enum Returned {
    New(Object),
    /// One of its arguments. A copy would make a short pickle large.
    Argument(Id),
}

/// What `function` returns; `None` if it does not take these arguments.
pub(super) fn rebuild(
    function: Function,
    args: &[Id],
    objects: &[Object],
) -> Result<Option<Returned>, TorchFileError> {
    let arg = |place: usize| args.get(place).map(|&id| &objects[id]);
    Ok(match (function, arg(0)) {
        (Function::OrderedDict, None) => Some(Returned::New(Object::Dict(Vec::new()))),
        (Function::Set, Some(Object::Sequence(_)))
        | (Function::Parameter, Some(Object::Tensor(_))) => Some(Returned::Argument(args[0])),
        (Function::Tensor, Some(Object::Storage(storage))) => {
            let sizes = |place| arg(place).and_then(|object| counts(object, objects));
            let (Some(offset), Some(shape), Some(strides)) =
                (arg(1).and_then(count), sizes(2), sizes(3))
            else {
                return Ok(None);
            };
            let made = tensor(storage, offset, shape, strides, objects)?;
            Some(Returned::New(Object::Tensor(Box::new(made))))
        }
        _ => None,
    })
}

/// The storage that `("storage", class, key, device, length)` stands for;
/// `None` if it is told in another way.
pub(super) fn storage(
    reference: &[Id],
    objects: &[Object],
    storages: &BTreeMap<String, Range<usize>>,
) -> Result<Option<Storage>, TorchFileError> {
    let &[kind, class, key, _, length] = reference else { return Ok(None) };
    let (
        Object::Text(kind),
        Object::Function(Function::StorageOf(dtype)),
        Object::Text(name),
        Some(length),
    ) = (&objects[kind], &objects[class], &objects[key], count(&objects[length]))
    else {
        return Ok(None);
    };
    if **kind != *"storage" {
        return Ok(None);
    }
    let damaged =
        |why: String| TorchFileError::Archive(format!("its storage `{}` {why}", printable(name)));
    let bytes = storages.get(&**name).ok_or_else(|| damaged("is not there".to_owned()))?;
    if length.checked_mul(size_of(*dtype)) != Some(bytes.len()) {
        let n_bytes = bytes.len();
        return Err(damaged(format!("has {n_bytes} bytes, not {length} values of {dtype}")));
    }
    Ok(Some(Storage { key, dtype: *dtype, bytes: bytes.clone() }))
}

/// A tensor in `storage`, from its element `offset` on.
fn tensor(
    storage: &Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    objects: &[Object],
) -> Result<TensorParts, TorchFileError> {
    let Storage { key, dtype, bytes } = storage;
    let room = (bytes.len() / size_of(*dtype)).checked_sub(offset);
    let why = match (room, n_elements(&shape), last_element(&shape, &strides)) {
        _ if shape.len() != strides.len() => Some("as many strides as sizes are needed"),
        (Some(_), Some(0), _) => None,
        (Some(room), Some(n), Some(last)) if last < room && n <= room => None,
        // Strides of zero repeat an element; nothing that is trained has them.
        (Some(room), Some(_), Some(last)) if last < room => Some("it has more elements"),
        _ => Some("it passes the end"),
    };
    if let Some(why) = why {
        let Object::Text(name) = &objects[*key] else { unreachable!("storages have names") };
        return Err(TorchFileError::Tensor { storage: printable(name), shape, strides, why });
    }
    let bytes = bytes.start + offset * size_of(*dtype)..bytes.end;
    Ok(TensorParts { dtype: *dtype, bytes, shape, strides })
}

/// A name from a file, for an error's text.
fn printable(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

fn n_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1, |n: usize, &size| n.checked_mul(size))
}

/// The place of the last element of a tensor that has one.
fn last_element(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().zip(strides).try_fold(0, |last: usize, (&size, &stride)| {
        size.saturating_sub(1).checked_mul(stride)?.checked_add(last)
    })
}

/// Bytes an element.
pub(super) fn size_of(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

fn count(object: &Object) -> Option<usize> {
    match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

fn counts(object: &Object, objects: &[Object]) -> Option<Vec<usize>> {
    match object {
        Object::Sequence(items) if items.len() <= MAX_DIMS => {
            items.iter().map(|&id| count(&objects[id])).collect()
        }
        _ => None,
    }
}
