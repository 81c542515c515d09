//! The instructions of a pickle, protocols 2 to 5, as far as plain data needs
//! them (`Lib/pickletools.py` of `CPython` describes them all).
//!
//! Objects stand in one list and know each other by their places in it, so an
//! object that is shared, or holds itself, costs nothing extra, and nothing
//! here recurses.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::TorchFileError;
use super::rebuild::{Function, Returned, Storage, TensorParts, rebuild, storage};

/// The place of an object among all.
pub(super) type Id = usize;

/// What a pickle can build.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    /// A list, a tuple or a set.
    Sequence(Vec<Id>),
    /// A dict, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    Function(Function),
    Storage(Box<Storage>),
    Tensor(Box<TensorParts>),
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) objects: Vec<Object>,
    pub(super) root: Id,
}

impl Pickle {
    /// Follows the instructions in `bytes`. Tensors lie in `storages`.
    pub(super) fn read(
        bytes: &[u8],
        storages: &BTreeMap<String, Range<usize>>,
    ) -> Result<Self, TorchFileError> {
        let mut machine = Machine {
            bytes,
            at: 0,
            storages,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let op = machine.take::<1>()?[0];
            if op == b'.' {
                let root = machine.pop()?;
                return Ok(Self { objects: machine.objects, root });
            }
            machine.follow(op)?;
        }
    }
}

/// A pickle under way.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    storages: &'a BTreeMap<String, Range<usize>>,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at which a collection began.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

type Followed = Result<(), TorchFileError>;

impl<'a> Machine<'a> {
    fn follow(&mut self, op: u8) -> Followed {
        match op {
            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'J' | b'K' | b'M' | 0x8a | b'G' => self.number(op)?,
            b'X' | 0x8c | 0x8d => self.text(op)?,
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | 0x8f | 0x91 => self.sequence(op)?,
            b'a' | b'e' | 0x90 => self.extend(op)?,
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' | b's' | b'u' => self.dict(op)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' | b'1' | b'2' => self.shuffle(op)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'R' => self.call()?,
            b'Q' => self.persistent()?,
            b'b' => self.build()?,
            // The protocol's number, and the length of a frame.
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            _ => return Err(self.damaged("an instruction that plain data does not need")),
        }
        Ok(())
    }

    fn number(&mut self, op: u8) -> Followed {
        let number = match op {
            b'J' => Object::Int(i32::from_le_bytes(self.take()?).into()),
            b'K' => Object::Int(self.take::<1>()?[0].into()),
            b'M' => Object::Int(u16::from_le_bytes(self.take()?).into()),
            b'G' => Object::Float(f64::from_be_bytes(self.take()?)),
            _ => Object::Int(self.long()?),
        };
        self.push(number);
        Ok(())
    }

    /// An integer of as many bytes as are told, two's complement.
    fn long(&mut self) -> Result<i64, TorchFileError> {
        let length = usize::from(self.take::<1>()?[0]);
        let bytes = self.slice(length)?;
        if length > 8 {
            return Err(self.damaged("an integer of more than 64 bits"));
        }
        let is_negative = bytes.last().is_some_and(|byte| byte >> 7 == 1);
        let mut wide = [if is_negative { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    fn text(&mut self, op: u8) -> Followed {
        let length = match op {
            0x8c => u64::from(self.take::<1>()?[0]),
            b'X' => u32::from_le_bytes(self.take()?).into(),
            _ => u64::from_le_bytes(self.take()?),
        };
        let length = usize::try_from(length).map_err(|_| self.damaged("a text without end"))?;
        let bytes = self.slice(length)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is no UTF-8"))?;
        self.push(Object::Text(text.into()));
        Ok(())
    }

    fn sequence(&mut self, op: u8) -> Followed {
        let items = match op {
            b']' | b')' | 0x8f => Vec::new(),
            0x85..=0x87 => {
                let length = usize::from(op - 0x84);
                let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                items
            }
            _ => self.since_mark()?,
        };
        self.push(Object::Sequence(items));
        Ok(())
    }

    fn extend(&mut self, op: u8) -> Followed {
        let more = if op == b'a' { vec![self.pop()?] } else { self.since_mark()? };
        let list = self.top()?;
        match &mut self.objects[list] {
            Object::Sequence(items) => items.extend(more),
            _ => return Err(self.damaged("an item for what is no list")),
        }
        Ok(())
    }

    fn dict(&mut self, op: u8) -> Followed {
        let flat = if op == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.since_mark()?
        };
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.damaged("a key without a value"));
        }
        if op == b'd' {
            self.push(Object::Dict(Vec::new()));
        }
        let dict = self.top()?;
        match &mut self.objects[dict] {
            Object::Dict(entries) => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.damaged("an entry for what is no dict")),
        }
        Ok(())
    }

    fn shuffle(&mut self, op: u8) -> Followed {
        match op {
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            _ => self.stack.push(self.top()?),
        }
        Ok(())
    }

    fn remember(&mut self, op: u8) -> Followed {
        let place = match op {
            b'q' | b'h' => u32::from(self.take::<1>()?[0]),
            b'r' | b'j' => u32::from_le_bytes(self.take()?),
            _ => self.memo.len() as u32,
        };
        if matches!(op, b'h' | b'j') {
            let known = self.memo.get(&place).copied();
            self.stack.push(known.ok_or_else(|| self.damaged("an object that was never kept"))?);
        } else {
            let top = self.top()?;
            self.memo.insert(place, top);
        }
        Ok(())
    }

    /// A class or function by its name.
    fn global(&mut self, op: u8) -> Followed {
        let (module, name) = if op == b'c' {
            (self.line()?, self.line()?)
        } else {
            let name = self.pop()?;
            let module = self.pop()?;
            let text = |id: Id| match &self.objects[id] {
                Object::Text(text) => Ok(text.to_string()),
                _ => Err(self.damaged("a name that is no text")),
            };
            (text(module)?, text(name)?)
        };
        let function = Function::named(&module, &name);
        let function = function.ok_or_else(|| {
            TorchFileError::Global(format!("{module}.{name}").chars().take(200).collect())
        })?;
        self.push(Object::Function(function));
        Ok(())
    }

    fn call(&mut self) -> Followed {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Object::Function(function), Object::Sequence(args)) =
            (&self.objects[function], &self.objects[args])
        else {
            return Err(self.damaged("a call of what is no function"));
        };
        match rebuild(*function, args, &self.objects)? {
            Some(Returned::New(object)) => self.push(object),
            Some(Returned::Argument(id)) => self.stack.push(id),
            None => return Err(self.damaged("a call with other arguments")),
        }
        Ok(())
    }

    /// A storage, by the tuple that stands for it.
    fn persistent(&mut self) -> Followed {
        let reference = self.pop()?;
        let made = match &self.objects[reference] {
            Object::Sequence(parts) => storage(parts, &self.objects, self.storages)?,
            _ => None,
        };
        let made = made.ok_or_else(|| self.damaged("a storage that is told in another way"))?;
        self.push(Object::Storage(Box::new(made)));
        Ok(())
    }

    /// Attributes of an object: those of an `OrderedDict` say which version of
    /// a module wrote it, and nothing about its entries.
    fn build(&mut self) -> Followed {
        let _attributes = self.pop()?;
        let object = self.top()?;
        match &self.objects[object] {
            Object::Dict(_) => Ok(()),
            _ => Err(self.damaged("attributes of what has none")),
        }
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    /// The uppermost object, which must not lie under a mark.
    fn top(&self) -> Result<Id, TorchFileError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.damaged("an empty stack")),
        }
    }

    fn pop(&mut self) -> Result<Id, TorchFileError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, TorchFileError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("an end without a beginning"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], TorchFileError> {
        let bytes = self.slice(N)?;
        Ok(bytes.try_into().expect("as many as were asked for"))
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], TorchFileError> {
        let bytes =
            self.bytes[self.at..].get(..length).ok_or_else(|| self.damaged("it ends too early"))?;
        self.at += length;
        Ok(bytes)
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<String, TorchFileError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| self.damaged("a name without end"))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn damaged(&self, why: &'static str) -> TorchFileError {
        TorchFileError::Pickle { at: self.at, why }
    }
}
