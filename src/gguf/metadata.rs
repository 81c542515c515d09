//! The metadata of a GGUF file: typed values, read without trust.

use super::GgufError;

/// What a file says under a key. Lists of lists and of bytes mean nothing here and
/// are passed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of any width.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list of numbers.
    Numbers(Vec<f64>),
    /// A list of texts.
    Texts(Vec<String>),
    /// Anything else.
    Other,
}

impl Value {
    /// As a number.
    pub fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// As a number of things.
    #[expect(clippy::cast_sign_loss, reason = "it is not negative")]
    pub fn count(&self) -> Option<usize> {
        let is_count = |number: &f64| number.fract() == 0.0 && (0.0..9e15).contains(number);
        self.number().filter(is_count).map(|number| number as usize)
    }

    /// As a text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// As a list of texts.
    pub fn texts(&self) -> Option<&[String]> {
        if let Self::Texts(texts) = self { Some(texts) } else { None }
    }

    /// As a list of numbers.
    pub fn numbers(&self) -> Option<&[f64]> {
        if let Self::Numbers(numbers) = self { Some(numbers) } else { None }
    }
}

/// Types of values, by their codes in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Flag,
    Text,
    List,
    U64,
    I64,
    F64,
}

const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Flag,
    Kind::Text,
    Kind::List,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

/// A place in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn damaged(&self, what: &'static str) -> GgufError {
        GgufError::Damaged { at: self.at, what }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let taken = self.bytes[self.at..].first_chunk::<N>();
        let taken = *taken.ok_or_else(|| self.damaged("the file ends"))?;
        self.at += N;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.take().map(u32::from_le_bytes)
    }

    /// A size, such as one of a tensor's.
    pub(super) fn size(&mut self) -> Result<usize, GgufError> {
        let size = u64::from_le_bytes(self.take()?);
        usize::try_from(size).map_err(|_| self.damaged("a size that cannot be"))
    }

    /// How many entries follow, of at least a byte each.
    pub(super) fn count(&mut self) -> Result<usize, GgufError> {
        let count = self.size()?;
        let rest = self.bytes.len() - self.at;
        if count <= rest { Ok(count) } else { Err(self.damaged("more entries than bytes")) }
    }

    pub(super) fn text(&mut self) -> Result<String, GgufError> {
        let length = self.count()?;
        let bytes = &self.bytes[self.at..][..length];
        let text = str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.at += length;
        Ok(text.to_owned())
    }

    pub(super) fn value(&mut self) -> Result<Value, GgufError> {
        match self.kind()? {
            Kind::Text => Ok(Value::Text(self.text()?)),
            Kind::Flag => Ok(Value::Flag(self.take::<1>()? != [0])),
            Kind::List => self.list(),
            kind => Ok(Value::Number(self.number(kind)?)),
        }
    }

    fn kind(&mut self) -> Result<Kind, GgufError> {
        let code = self.u32()? as usize;
        KINDS.get(code).copied().ok_or_else(|| self.damaged("a value of an unknown type"))
    }

    fn list(&mut self) -> Result<Value, GgufError> {
        let (kind, length) = (self.kind()?, self.count()?);
        match kind {
            Kind::Text => Ok(Value::Texts(self.items(length, Self::text)?)),
            Kind::List => Err(self.damaged("a list of lists")),
            Kind::U8 | Kind::I8 | Kind::Flag => {
                self.at += length;
                Ok(Value::Other)
            }
            kind => Ok(Value::Numbers(self.items(length, |cursor| cursor.number(kind))?)),
        }
    }

    fn items<T>(
        &mut self,
        length: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, GgufError>,
    ) -> Result<Vec<T>, GgufError> {
        // Grown as bytes are found for it: the length is only what the file says.
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn number(&mut self, kind: Kind) -> Result<f64, GgufError> {
        Ok(match kind {
            Kind::U8 => f64::from(u8::from_le_bytes(self.take()?)),
            Kind::I8 => f64::from(i8::from_le_bytes(self.take()?)),
            Kind::U16 => f64::from(u16::from_le_bytes(self.take()?)),
            Kind::I16 => f64::from(i16::from_le_bytes(self.take()?)),
            Kind::U32 => f64::from(u32::from_le_bytes(self.take()?)),
            Kind::I32 => f64::from(i32::from_le_bytes(self.take()?)),
            // The decimal that was meant: 1e-5, and not 9.999999747378752e-6.
            Kind::F32 => {
                let number = f32::from_le_bytes(self.take()?);
                number.to_string().parse().unwrap_or_else(|_| f64::from(number))
            }
            Kind::U64 => u64::from_le_bytes(self.take()?) as f64,
            Kind::I64 => i64::from_le_bytes(self.take()?) as f64,
            Kind::F64 => f64::from_le_bytes(self.take()?),
            Kind::Flag | Kind::Text | Kind::List => return Err(self.damaged("no number")),
        })
    }
}
