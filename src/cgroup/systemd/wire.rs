//! The byte format of D-Bus messages, "Message Protocol" of the D-Bus specification, with only
//! those types that requests to systemd's manager need.

/// A value of a property, with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
    /// Numbers or booleans of one type, with the signature.
    Numbers(&'static str, Vec<Value>),
    Pids(Vec<u32>),
    /// `DeviceAllow`: pairs of a device and the access to it.
    Devices(Vec<(String, String)>),
}

/// A property of a unit.
pub type Property = (String, Value);

impl Value {
    pub(super) fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Bytes(_) => "ay",
            Self::Numbers(signature, _) => signature,
            Self::Pids(_) => "au",
            Self::Devices(_) => "a(ss)",
        }
    }
}

/// A message that is being built: every value is at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_ne_bytes());
    }

    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        // A text that is too long for the receiver is refused there.
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// Writes an array: its length in bytes, which does not include the gap before the first
    /// element, and the elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        self.value(value);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::Byte(value) => self.0.push(*value),
            Value::I16(value) => self.bytes(value.to_ne_bytes()),
            Value::U16(value) => self.bytes(value.to_ne_bytes()),
            Value::I32(value) => self.bytes(value.to_ne_bytes()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.bytes(value.to_ne_bytes()),
            Value::U64(value) => self.bytes(value.to_ne_bytes()),
            Value::F64(value) => self.bytes(value.to_ne_bytes()),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |w| texts.iter().for_each(|text| w.text(text))),
            Value::Bytes(bytes) => self.array(1, |w| w.0.extend(bytes)),
            Value::Numbers(signature, numbers) => {
                let alignment = match signature.as_bytes().last() {
                    Some(b'y') => 1,
                    Some(b'n' | b'q') => 2,
                    Some(b'x' | b't' | b'd') => 8,
                    _ => 4,
                };
                self.array(alignment, |w| {
                    numbers.iter().for_each(|number| w.value(number))
                });
            }
            Value::Pids(pids) => self.array(4, |w| pids.iter().for_each(|pid| w.u32(*pid))),
            Value::Devices(devices) => self.array(8, |w| {
                for (device, access) in devices {
                    w.align(8);
                    w.text(device);
                    w.text(access);
                }
            }),
        }
    }

    /// Writes properties: `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[Property]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }

    /// Writes an empty `a(sa(sv))`.
    pub(super) fn no_units(&mut self) {
        self.array(8, |_| {});
    }
}

/// The types of messages.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

// The fields of a header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The length of a header's fixed part.
pub(super) const FIXED: usize = 16;
/// The largest message that the specification allows, in bytes.
const LIMIT: usize = 128 << 20;

const ENDIANNESS: u8 = if cfg!(target_endian = "little") {
    b'l'
} else {
    b'B'
};

/// A method to call.
#[derive(Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the arguments.
    pub(super) signature: &'a str,
}

/// Returns a method call as bytes.
pub(super) fn call(serial: u32, method: Method<'_>, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer(vec![ENDIANNESS, CALL, 0, 1]);
    writer.u32(body.len() as u32);
    writer.u32(serial);
    writer.array(8, |writer| {
        let texts = [
            (PATH, "o", Some(method.path)),
            (INTERFACE, "s", Some(method.interface)),
            (MEMBER, "s", Some(method.member)),
            (DESTINATION, "s", method.destination),
        ];
        for (field, signature, text) in texts {
            if let Some(text) = text {
                writer.align(8);
                writer.0.push(field);
                writer.signature(signature);
                writer.text(text);
            }
        }
        if !method.signature.is_empty() {
            writer.align(8);
            writer.0.push(SIGNATURE);
            writer.signature("g");
            writer.signature(method.signature);
        }
    });
    writer.align(8);
    writer.0.extend(body);
    writer.0
}

/// A message that was received.
#[derive(Debug, Default, PartialEq)]
pub(super) struct BusMessage {
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

/// Returns the length of the message that begins with `fixed`; None if it has another byte order or
/// version, or is too long.
pub(super) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_ne_bytes(fixed.get(at..at + 4)?.try_into().ok()?));
    if fixed[0] != ENDIANNESS || fixed[3] != 1 {
        return None;
    }
    let (body, fields) = (number(4)? as usize, number(12)? as usize);
    let length = (FIXED + fields).next_multiple_of(8).checked_add(body)?;
    (length <= LIMIT).then_some(length)
}

/// Parses a whole message.
pub(super) fn message(bytes: &[u8]) -> Option<BusMessage> {
    let mut reader = Reader { bytes, at: 4 };
    let body_length = reader.u32()? as usize;
    let mut message = BusMessage {
        kind: *bytes.get(1)?,
        ..BusMessage::default()
    };
    reader.at = 12;
    let end = FIXED + reader.u32()? as usize;
    while reader.at < end {
        reader.align(8);
        let field = reader.byte()?;
        let signature = reader.signature()?;
        match (field, signature) {
            (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
            (MEMBER, "s") => message.member = reader.text()?.to_owned(),
            (ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
    }
    reader.align(8);
    message.body = bytes
        .get(reader.at..reader.at.checked_add(body_length)?)?
        .to_owned();
    Some(message)
}

/// Reads a body; each step returns None if the body ends too early.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        self.at += 1;
        self.bytes.get(self.at - 1).copied()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Reads a string or an object path.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.byte().filter(|zero| *zero == 0).map(|_| text)
    }

    pub(super) fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.byte().filter(|zero| *zero == 0).map(|_| text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METHOD: Method<'_> = Method {
        destination: Some("org.freedesktop.systemd1"),
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "StopUnit",
        signature: "ss",
    };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let mut body = Writer::default();
        body.text("a.scope");
        body.text("replace");
        let bytes = call(7, METHOD, &body.0);
        let fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        assert_eq!(length(&fixed), Some(bytes.len()));
        let read = message(&bytes).unwrap();
        assert_eq!(
            (read.kind, &*read.member, read.body.len()),
            (CALL, "StopUnit", 24)
        );
        let mut reader = Reader::new(&read.body);
        assert_eq!(
            (reader.text(), reader.text()),
            (Some("a.scope"), Some("replace"))
        );
        assert_eq!(reader.text(), None);
    }

    #[test]
    fn properties_stand_at_multiples_of_eight() {
        let mut writer = Writer::default();
        let list = [
            ("A".to_owned(), Value::U64(5)),
            ("Slice".to_owned(), Value::Text("x".to_owned())),
            ("PIDs".to_owned(), Value::Pids(vec![1, 2])),
        ];
        writer.properties(&list);
        #[rustfmt::skip]
        let expected = [
            &76u32.to_ne_bytes()[..], &[0; 4],
            &1u32.to_ne_bytes(), b"A\0", b"\x01t\0", &[0; 7], &5u64.to_ne_bytes(),
            &5u32.to_ne_bytes(), b"Slice\0", b"\x01s\0", &[0; 3], &1u32.to_ne_bytes(), b"x\0",
            &[0; 2],
            &4u32.to_ne_bytes(), b"PIDs\0", b"\x02au\0", &[0; 3],
            &8u32.to_ne_bytes(), &1u32.to_ne_bytes(), &2u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(writer.0.len(), expected.len());
        assert_eq!(writer.0[4..], expected[4..]);
        assert_eq!(writer.0[..4], ((expected.len() - 8) as u32).to_ne_bytes());
    }

    #[test]
    fn numbers_stand_at_multiples_of_their_size() {
        let mut writer = Writer::default();
        writer.variant(&Value::Numbers("at", vec![Value::U64(7)]));
        let expected = [&b"\x02at\0"[..], &8u32.to_ne_bytes(), &7u64.to_ne_bytes()].concat();
        assert_eq!(writer.0, expected);
        let mut writer = Writer::default();
        writer.variant(&Value::Numbers("ay", vec![Value::Byte(7), Value::Byte(8)]));
        assert_eq!(
            writer.0,
            [&b"\x02ay\0"[..], &2u32.to_ne_bytes(), &[7, 8]].concat()
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&bytes);
            if let Some(fixed) = bytes.first_chunk() {
                let _ = length(fixed);
            }
        }
    }
}
