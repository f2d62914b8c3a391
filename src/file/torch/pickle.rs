//! A pickle machine that can build tensors and plain values, and nothing else.
//!
//! A pickle is a program, and Python runs it: it may call any function that can be imported. This machine knows the
//! opcodes that torch's files use (protocols 2 to 5), and of all functions those few that put tensors together
//! ([`Global`]); they are recognised by name and never looked up. Everything else ends the reading with the name of what was
//! wanted.
//!
//! Objects lie in one list and refer to each other by their places in it, so that cycles neither leak nor recurse, and each
//! is made by at least one byte of the file: some sixty bytes of memory for one of the pickle, at worst.

use std::collections::HashMap;

use super::global::Global;
use super::opcode;
use crate::file::view::Dtype;

/// A state dictionary takes some twenty objects for each of its tensors; the largest models have thirty thousand.
const MAX_OBJECTS: usize = 1 << 20;
/// Tuples are built from the stack and dictionaries by the thousand; this is a tuple of a million.
const MAX_STACK: usize = 1 << 20;
/// Modules' and functions' names are some dozens of letters.
const MAX_GLOBAL: usize = 256;

/// The place of an object in the list.
pub(super) type Id = usize;

/// What pickles of tensors are made of.
#[derive(Debug)]
pub(super) enum Object<'p> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'p str),
    /// Bytes and integers past 64 bits, which no tensor and no plain value is made of.
    Opaque,
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage<'p>>),
    Tensor(Box<Tensor<'p>>),
}

/// A block of elements that tensors share; its bytes are elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Storage<'p> {
    pub(super) key: &'p str,
    /// None: bytes, that get a type from each tensor.
    pub(super) dtype: Option<Dtype>,
    /// Elements.
    pub(super) len: usize,
}

/// A tensor: a pattern over a storage. Offset and strides count elements.
#[derive(Debug)]
pub(super) struct Tensor<'p> {
    pub(super) storage: Storage<'p>,
    pub(super) dtype: Dtype,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// What a program made.
pub(super) struct Pickle<'p> {
    objects: Vec<Object<'p>>,
    root: Id,
    /// Where the program ends.
    pub(super) end: usize,
}

/// Why a program was not run to its end.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    /// The program is right, but wants something that is not to be had here.
    pub(super) unsupported: bool,
    pub(super) what: String,
}

impl<'p> Pickle<'p> {
    /// Runs the program that `bytes` start with.
    pub(super) fn run(bytes: &'p [u8]) -> std::result::Result<Self, Fault> {
        let mut machine = Machine { bytes, ..Machine::default() };
        loop {
            let at = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { objects: machine.objects, root, end: machine.at }),
                Err(stop) => {
                    let (unsupported, what) = match stop {
                        Stop::Wrong(what) => (false, what),
                        Stop::Unsupported(what) => (true, what),
                    };
                    return Err(Fault { at, unsupported, what });
                }
            }
        }
    }

    /// The object that the program is for.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Object<'p> {
        self.objects.get(id).unwrap_or(&Object::None)
    }

    /// All objects, reachable from the root or not.
    pub(super) fn objects(&self) -> &[Object<'p>] {
        &self.objects
    }
}

/// Why an opcode could not be run.
pub(super) enum Stop {
    Wrong(String),
    Unsupported(String),
}

pub(super) type Step<T> = std::result::Result<T, Stop>;

pub(super) fn wrong<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Wrong(what.into()))
}

#[derive(Default)]
pub(super) struct Machine<'p> {
    bytes: &'p [u8],
    at: usize,
    objects: Vec<Object<'p>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'p> Machine<'p> {
    /// Runs one opcode; returns the root when the program stops.
    fn step(&mut self) -> Step<Option<Id>> {
        let first = self.at == 0;
        let op = self.byte()?;
        if first != (op == opcode::PROTO) {
            return wrong(format!("expected a pickle that starts with its protocol, found opcode 0x{op:02x}"));
        }
        match op {
            opcode::PROTO => match self.byte()? {
                2..=5 => {}
                other => return Err(Stop::Unsupported(format!("expected protocol 2 to 5, found {other}"))),
            },
            // A frame: a length that helps those who read from a pipe.
            opcode::FRAME => {
                let n = self.length(8)?;
                self.peek(n)?;
            }
            opcode::STOP => return self.stop().map(Some),
            opcode::MARK => {
                if self.marks.len() >= MAX_STACK {
                    return wrong(format!("expected at most {MAX_STACK} marks, found more"));
                }
                self.marks.push(self.stack.len());
            }
            _ if self.plain(op)? || self.container(op)? || self.memoize(op)? => {}
            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.get(module), self.get(name)) {
                    (&Object::Text(module), &Object::Text(name)) => self.global(module, name)?,
                    _ => return wrong("expected the names of a module and of something in it, found other objects"),
                }
            }
            opcode::PERSISTENT => self.persistent()?,
            opcode::REDUCE => self.reduce()?,
            opcode::BUILD => self.build()?,
            other => {
                let would = opcode::foreign(other);
                return Err(Stop::Unsupported(format!(
                    "expected the opcodes that torch writes, found 0x{other:02x}{would}"
                )));
            }
        }
        Ok(None)
    }

    /// Opcodes that push a value that has no parts.
    fn plain(&mut self, op: u8) -> Step<bool> {
        let object = match op {
            opcode::NONE => Object::None,
            opcode::TRUE => Object::Bool(true),
            opcode::FALSE => Object::Bool(false),
            opcode::INT => Object::Int(i64::from(i32::from_le_bytes(self.array()?))),
            opcode::INT1 => Object::Int(i64::from(self.byte()?)),
            opcode::INT2 => Object::Int(i64::from(u16::from_le_bytes(self.array()?))),
            opcode::LONG1 => self.long(1)?,
            opcode::LONG4 => self.long(4)?,
            opcode::FLOAT => Object::Float(f64::from_be_bytes(self.array()?)),
            opcode::TEXT1 => self.text(1)?,
            opcode::TEXT4 => self.text(4)?,
            opcode::TEXT8 => self.text(8)?,
            opcode::BYTES1 => self.opaque(1)?,
            opcode::BYTES4 => self.opaque(4)?,
            opcode::BYTES8 | opcode::BYTEARRAY8 => self.opaque(8)?,
            _ => return Ok(false),
        };
        self.push_new(object)?;
        Ok(true)
    }

    /// Opcodes that make tuples, lists and dictionaries, and fill them.
    fn container(&mut self, op: u8) -> Step<bool> {
        match op {
            opcode::EMPTY_TUPLE => self.push_new(Object::Tuple(Box::default()))?,
            opcode::EMPTY_LIST => self.push_new(Object::List(Vec::new()))?,
            opcode::EMPTY_DICT => self.push_new(Object::Dict(Vec::new()))?,
            opcode::TUPLE => {
                let items = self.pop_mark()?;
                self.push_new(Object::Tuple(items.into()))?;
            }
            opcode::TUPLE1..=opcode::TUPLE3 => {
                let n = usize::from(op - opcode::TUPLE1) + 1;
                let mut items = Vec::with_capacity(n);
                for _ in 0..n {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_new(Object::Tuple(items.into()))?;
            }
            opcode::APPEND => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            opcode::APPENDS => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            opcode::SET_ITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            opcode::SET_ITEMS => {
                let items = self.pop_mark()?;
                self.set(items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that remember the top of the stack, or bring it back.
    fn memoize(&mut self, op: u8) -> Step<bool> {
        let key = match op {
            opcode::PUT1 | opcode::GET1 => self.number(1)?,
            opcode::PUT4 | opcode::GET4 => self.number(4)?,
            opcode::MEMOIZE => u64::try_from(self.memo.len()).unwrap_or(u64::MAX),
            _ => return Ok(false),
        };
        if matches!(op, opcode::GET1 | opcode::GET4) {
            let Some(&id) = self.memo.get(&key) else {
                return wrong(format!("expected an object that was remembered as {key}, found none"));
            };
            self.push(id)?;
        } else {
            let id = self.top()?;
            self.memo.insert(key, id);
        }
        Ok(true)
    }

    fn stop(&mut self) -> Step<Id> {
        match (self.stack.as_slice(), self.marks.as_slice()) {
            (&[root], []) => Ok(root),
            (stack, marks) => {
                let (n, m) = (stack.len(), marks.len());
                wrong(format!("expected one object at the end, found {n}, and {m} open marks"))
            }
        }
    }

    fn peek(&self, n: usize) -> Step<&'p [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.get(..n) {
            Some(bytes) => Ok(bytes),
            None => wrong(format!("expected {n} more bytes, found {} before the end", rest.len())),
        }
    }

    fn take(&mut self, n: usize) -> Step<&'p [u8]> {
        let bytes = self.peek(n)?;
        self.at = self.at.saturating_add(n);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        match self.take(N)?.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => wrong("expected more bytes, found the end"),
        }
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number of `n` bytes, little-endian.
    fn number(&mut self, n: usize) -> Step<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    /// A length of `n` bytes.
    fn length(&mut self, n: usize) -> Step<usize> {
        let length = self.number(n)?;
        usize::try_from(length).or_else(|_| wrong(format!("expected a length, found {length}")))
    }

    /// What a length of `n` bytes is the length of.
    fn counted(&mut self, n: usize) -> Step<&'p [u8]> {
        let length = self.length(n)?;
        self.take(length)
    }

    fn text(&mut self, n: usize) -> Step<Object<'p>> {
        match std::str::from_utf8(self.counted(n)?) {
            Ok(text) => Ok(Object::Text(text)),
            Err(e) => wrong(format!("expected a string in UTF-8, found {e}")),
        }
    }

    fn opaque(&mut self, n: usize) -> Step<Object<'p>> {
        self.counted(n).map(|_| Object::Opaque)
    }

    /// An integer of any length, two's complement.
    fn long(&mut self, n: usize) -> Step<Object<'p>> {
        let bytes = self.counted(n)?;
        if bytes.len() > 8 {
            return Ok(Object::Opaque);
        }
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
        Ok(Object::Int(bytes.iter().rev().fold(sign, |v, &b| v << 8 | i64::from(b))))
    }

    fn line(&mut self) -> Step<&'p str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let line = rest.iter().take(MAX_GLOBAL + 1).position(|&b| b == b'\n').and_then(|n| rest.get(..n));
        let Some(line) = line else {
            return wrong(format!("expected a name of at most {MAX_GLOBAL} bytes, found more"));
        };
        self.at = self.at.saturating_add(line.len() + 1);
        std::str::from_utf8(line).or_else(|e| wrong(format!("expected a name in UTF-8, found {e}")))
    }

    pub(super) fn get(&self, id: Id) -> &Object<'p> {
        self.objects.get(id).unwrap_or(&Object::None)
    }

    pub(super) fn push(&mut self, id: Id) -> Step<()> {
        if self.stack.len() >= MAX_STACK {
            return wrong(format!("expected a stack of at most {MAX_STACK}, found more"));
        }
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push_new(&mut self, object: Object<'p>) -> Step<()> {
        if self.objects.len() >= MAX_OBJECTS {
            return wrong(format!("expected at most {MAX_OBJECTS} objects, found more"));
        }
        self.objects.push(object);
        self.push(self.objects.len() - 1)
    }

    /// The height below which the stack is closed by the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    pub(super) fn pop(&mut self) -> Step<Id> {
        match self.stack.len() > self.floor() {
            true => self.stack.pop().map_or_else(|| wrong("expected an object, found none"), Ok),
            false => wrong("expected an object on the stack, found none since the last mark"),
        }
    }

    pub(super) fn top(&self) -> Step<Id> {
        match self.stack.last().filter(|_| self.stack.len() > self.floor()) {
            Some(&id) => Ok(id),
            None => wrong("expected an object on the stack, found none since the last mark"),
        }
    }

    /// The objects since the last mark, which goes as well.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => wrong("expected a mark on the stack, found none"),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Step<()> {
        let list = self.top()?;
        match self.objects.get_mut(list) {
            Some(Object::List(list)) => list.extend(items),
            _ => return wrong("expected a list to append to, found another object"),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Step<()> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.objects.get_mut(dict) {
            Some(Object::Dict(dict)) if rest.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Object::Dict(_)) => return wrong("expected keys with values, found a key without one"),
            _ => return wrong("expected a dictionary to put items into, found another object"),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        match Global::find(module, name) {
            Some(global) => self.push_new(Object::Global(global)),
            None => {
                let wanted: String = format!("{module}.{name}").escape_debug().take(MAX_GLOBAL).collect();
                Err(Stop::Unsupported(format!(
                    "expected tensors and plain values, found \"{wanted}\", which is neither and is not run; save \
                     model.state_dict() and not the model"
                )))
            }
        }
    }
}
