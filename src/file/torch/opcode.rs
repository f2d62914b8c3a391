//! The opcodes of pickles that torch writes, named by what they push or do; a digit is the bytes of a length or a number.

pub(super) const PROTO: u8 = 0x80;
pub(super) const FRAME: u8 = 0x95;
pub(super) const STOP: u8 = 0x2e;
pub(super) const MARK: u8 = 0x28;
pub(super) const GLOBAL: u8 = 0x63;
pub(super) const STACK_GLOBAL: u8 = 0x93;
pub(super) const PERSISTENT: u8 = 0x51;
pub(super) const REDUCE: u8 = 0x52;
pub(super) const BUILD: u8 = 0x62;
pub(super) const NONE: u8 = 0x4e;
pub(super) const TRUE: u8 = 0x88;
pub(super) const FALSE: u8 = 0x89;
pub(super) const INT: u8 = 0x4a;
pub(super) const INT1: u8 = 0x4b;
pub(super) const INT2: u8 = 0x4d;
pub(super) const LONG1: u8 = 0x8a;
pub(super) const LONG4: u8 = 0x8b;
pub(super) const FLOAT: u8 = 0x47;
pub(super) const TEXT1: u8 = 0x8c;
pub(super) const TEXT4: u8 = 0x58;
pub(super) const TEXT8: u8 = 0x8d;
pub(super) const BYTES1: u8 = 0x43;
pub(super) const BYTES4: u8 = 0x42;
pub(super) const BYTES8: u8 = 0x8e;
pub(super) const BYTEARRAY8: u8 = 0x96;
pub(super) const EMPTY_TUPLE: u8 = 0x29;
pub(super) const EMPTY_LIST: u8 = 0x5d;
pub(super) const EMPTY_DICT: u8 = 0x7d;
pub(super) const TUPLE: u8 = 0x74;
pub(super) const TUPLE1: u8 = 0x85;
pub(super) const TUPLE3: u8 = 0x87;
pub(super) const APPEND: u8 = 0x61;
pub(super) const APPENDS: u8 = 0x65;
pub(super) const SET_ITEM: u8 = 0x73;
pub(super) const SET_ITEMS: u8 = 0x75;
pub(super) const PUT1: u8 = 0x71;
pub(super) const PUT4: u8 = 0x72;
pub(super) const GET1: u8 = 0x68;
pub(super) const GET4: u8 = 0x6a;
pub(super) const MEMOIZE: u8 = 0x94;

/// What an opcode that is none of these would do, for those that run code and are met in hostile or merely foreign files.
pub(super) fn foreign(op: u8) -> &'static str {
    match op {
        b'i' | b'o' | 0x81 | 0x92 => ", which makes an object of any class",
        0x82..=0x84 => ", which looks a class up in a registry",
        b'P' => ", a persistent name of protocol 0",
        _ => "",
    }
}
