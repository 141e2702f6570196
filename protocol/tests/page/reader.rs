//! A client's decoder made from the page alone: the tables say which fields there are, this says
//! how each type is read. It knows nothing of the crate's own types.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use super::page::{Field, FrameSection, Structure};

/// Bytes being read.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("a byte more");
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn string(&mut self) -> String {
        let length = self.varint() as usize;
        String::from_utf8(self.take(length).to_vec()).expect("UTF-8")
    }
}

/// The page's types.
pub(crate) struct Reader {
    pub(crate) frames: Vec<FrameSection>,
    pub(crate) structures: BTreeMap<String, Structure>,
}

impl Reader {
    /// One whole frame as the JSON that the page says it is.
    pub(crate) fn frame(&self, bytes: &mut Bytes<'_>) -> Value {
        let length = bytes.varint() as usize;
        let before = bytes.0.len();
        let number = bytes.varint();
        let frame = self.frames.iter().find(|frame| u64::from(frame.number) == number).expect("a known type");
        let flags = bytes.byte();
        let critical = !["typing", "user_typing", "erased"].contains(&frame.name.as_str());
        assert_eq!(flags & !2, u8::from(critical), "{}", frame.name);
        let mut object = Map::new();
        object.insert("type".into(), frame.name.clone().into());
        if flags & 2 != 0 {
            object.insert("request_id".into(), bytes.varint().into());
        }
        self.fields(&frame.fields, &mut object, bytes);
        assert_eq!(before - bytes.0.len(), length, "{} ends where its length says", frame.name);
        Value::Object(object)
    }

    fn fields(&self, fields: &[Field], object: &mut Map<String, Value>, bytes: &mut Bytes<'_>) {
        for field in fields {
            object.insert(field.name.clone(), self.value(&field.kind, bytes));
        }
    }

    fn value(&self, kind: &str, bytes: &mut Bytes<'_>) -> Value {
        if let Some(kind) = kind.strip_prefix("optional ") {
            return match bytes.byte() {
                0 => Value::Null,
                1 => self.value(kind, bytes),
                other => panic!("an optional of {other}"),
            };
        }
        if let Some(kind) = kind.strip_prefix("list of ") {
            let count = bytes.varint();
            return (0..count).map(|_| self.value(kind, bytes)).collect();
        }
        match kind {
            "bool" => (bytes.byte() == 1).into(),
            "u16" | "u32" | "u64" => bytes.varint().into(),
            "string" => bytes.string().into(),
            "data" => serde_json::from_str(&bytes.string()).expect("a JSON text"),
            "uuid" => uuid(bytes.take(16)).into(),
            "conversation" => conversation(bytes.take(16)).into(),
            "target" => match bytes.varint() {
                0 => bytes.string().into(),
                1 => conversation(bytes.take(16)).into(),
                other => panic!("a target of {other}"),
            },
            name => self.named(name, bytes),
        }
    }

    fn named(&self, name: &str, bytes: &mut Bytes<'_>) -> Value {
        match self.structures.get(name).unwrap_or_else(|| panic!("the page does not explain {name:?}")) {
            Structure::Record(fields) => {
                let mut object = Map::new();
                self.fields(fields, &mut object, bytes);
                Value::Object(object)
            }
            Structure::Enumeration(variants) => variants[bytes.varint() as usize].clone().into(),
            Structure::Kinds(kinds) => {
                let (number, length) = (bytes.varint(), bytes.varint() as usize);
                self.body(kinds.get(number as usize), number, bytes.take(length))
            }
        }
    }

    fn body(&self, kind: Option<&(String, Vec<Field>)>, number: u64, bytes: &[u8]) -> Value {
        let Some((name, fields)) = kind else {
            if number == u64::from(u32::MAX) {
                return serde_json::from_slice(bytes).expect("a kind known by name is its JSON");
            }
            return json!({ "kind": "opaque", "number": number, "bytes": BASE64URL_NOPAD.encode(bytes) });
        };
        let mut object = Map::new();
        object.insert("kind".into(), name.clone().into());
        self.fields(fields, &mut object, &mut Bytes(bytes));
        object.retain(|_, value| !value.is_null());
        Value::Object(object)
    }
}

fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn conversation(bytes: &[u8]) -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let number = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    // 128 bits are 25 characters of 5 bits and one of 3, filled up with zeros.
    let characters = (0..26).map(|place| {
        let shifted = if place < 25 { number >> (123 - 5 * place) } else { number << 2 };
        char::from(alphabet[(shifted & 31) as usize])
    });
    format!("c:{}", characters.collect::<String>())
}
