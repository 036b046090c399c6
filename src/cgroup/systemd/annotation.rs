//! Annotations `org.systemd.property.NAME`: unit properties that `rt` has no own knowledge of. The
//! value is GVariant text: a string, a boolean, a number, or an array of one of these. Each may
//! have its type in front, such as `'inactive-or-failed'`, `uint64 5`, `@ay [0x01]`.

use anyhow::{Context, Result, bail};

use super::wire::{Property, Value};
use crate::annotations;

/// The prefix of the annotations.
pub const PREFIX: &str = "org.systemd.property.";

/// Returns the property that an annotation asks for; None if it is another annotation.
pub(super) fn property(key: &str, text: &str) -> Result<Option<Property>> {
    let Some(name) = key.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    let context = || annotations::origin(key);
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        bail!("{}: not the name of a property", context());
    }
    let value = parse(text.trim()).with_context(|| format!("{text:?} is no value"));
    let value = value.with_context(context)?;
    // The bus has `TimeoutStopUSec` where the manual has TimeoutStopSec.
    let Some(seconds) = name
        .strip_suffix("Sec")
        .filter(|name| name.ends_with(char::is_lowercase))
    else {
        return Ok(Some((name.to_owned(), value)));
    };
    let value = microseconds(&value)
        .context("not a time")
        .with_context(context)?;
    Ok(Some((format!("{seconds}USec"), Value::U64(value))))
}

fn microseconds(value: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = match value {
        Value::F64(value) => {
            let value = value * SECOND as f64;
            return (0.0..u64::MAX as f64)
                .contains(&value)
                .then_some(value as u64);
        }
        Value::Byte(value) => (*value).into(),
        Value::I16(value) => u64::try_from(*value).ok()?,
        Value::U16(value) => (*value).into(),
        Value::I32(value) => u64::try_from(*value).ok()?,
        Value::U32(value) => (*value).into(),
        Value::I64(value) => u64::try_from(*value).ok()?,
        Value::U64(value) => *value,
        _ => return None,
    };
    whole.checked_mul(SECOND)
}

fn parse(text: &str) -> Option<Value> {
    if let Some(typed) = text.strip_prefix("@a") {
        return array(typed.get(..1), typed.get(1..)?.trim());
    }
    if text.starts_with('[') {
        return array(None, text);
    }
    scalar(text)
}

fn scalar(text: &str) -> Option<Value> {
    if let Some((text, rest)) = quoted(text) {
        return rest.is_empty().then_some(Value::Text(text));
    }
    if let Some((kind, number)) = text.split_once(char::is_whitespace) {
        return typed(kind, number.trim());
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ if text.contains(['.', 'e']) => text.parse().ok().map(Value::F64),
        // Without a type a number is an int32.
        _ => typed("int32", text),
    }
}

/// `kind` is the signature of the elements. Elements without a type have the type of the first one.
fn array(kind: Option<&str>, text: &str) -> Option<Value> {
    const SIGNATURES: [&str; 9] = ["ab", "ay", "an", "aq", "ai", "au", "ax", "at", "ad"];
    let text = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    if kind.map_or(text.is_empty() || text.starts_with(['\'', '"']), |kind| {
        kind == "s"
    }) {
        return texts(text).map(Value::Texts);
    }
    let mut kind = kind.map(str::to_owned);
    let mut numbers = Vec::new();
    for element in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        let value = match &kind {
            Some(kind) if !element.contains(char::is_whitespace) => {
                typed(&format!("@{kind}"), element)
            }
            _ => scalar(element),
        };
        let value = value?;
        let kind = kind.get_or_insert_with(|| value.signature().to_owned());
        (kind == value.signature()).then(|| numbers.push(value))?;
    }
    let signature = SIGNATURES
        .into_iter()
        .find(|signature| kind.as_deref() == Some(&signature[1..]));
    Some(Value::Numbers(signature?, numbers))
}

fn typed(kind: &str, text: &str) -> Option<Value> {
    match kind {
        "byte" | "@y" => number(text).map(Value::Byte),
        "int16" | "@n" => number(text).map(Value::I16),
        "uint16" | "@q" => number(text).map(Value::U16),
        "int32" | "@i" => number(text).map(Value::I32),
        "uint32" | "@u" => number(text).map(Value::U32),
        "int64" | "@x" => number(text).map(Value::I64),
        "uint64" | "@t" => number(text).map(Value::U64),
        "double" | "@d" => text.parse().ok().map(Value::F64),
        "string" | "@s" => quoted(text)
            .filter(|(_, rest)| rest.is_empty())
            .map(|(t, _)| Value::Text(t)),
        "boolean" | "@b" => text.parse().ok().map(Value::Bool),
        _ => None,
    }
}

/// Parses a decimal or hexadecimal number.
fn number<T: TryFrom<i128>>(text: &str) -> Option<T> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    T::try_from(number.ok()?).ok()
}

/// Parses a string in single or double quotation marks. Returns it and the text behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut unescaped = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == mark => return Some((unescaped, text[at + 1..].trim_start())),
            '\\' => match characters.next()?.1 {
                'n' => unescaped.push('\n'),
                't' => unescaped.push('\t'),
                other @ ('\\' | '\'' | '"') => unescaped.push(other),
                _ => return None,
            },
            _ => unescaped.push(character),
        }
    }
    None
}

fn texts(mut rest: &str) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    rest = rest.trim();
    while !rest.is_empty() {
        let (text, after) = quoted(rest)?;
        texts.push(text);
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (written, value) in [
            ("'inactive-or-failed'", text("inactive-or-failed")),
            ("\"a'b\\\\\"", text("a'b\\")),
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("uint64 5000000", Value::U64(5_000_000)),
            ("byte 0x10", Value::Byte(16)),
            ("1.5", Value::F64(1.5)),
            ("['a', 'b']", Value::Texts(vec!["a".into(), "b".into()])),
            ("@as []", Value::Texts(vec![])),
            ("[]", Value::Texts(vec![])),
            ("@ay [0x01]", Value::Numbers("ay", vec![Value::Byte(1)])),
            (
                "[byte 1, 2]",
                Value::Numbers("ay", vec![Value::Byte(1), Value::Byte(2)]),
            ),
            (
                "[1, 2]",
                Value::Numbers("ai", vec![Value::I32(1), Value::I32(2)]),
            ),
            ("[true]", Value::Numbers("ab", vec![Value::Bool(true)])),
            ("@at []", Value::Numbers("at", vec![])),
        ] {
            assert_eq!(parse(written), Some(value), "{written}");
        }
        for wrong in [
            "",
            "'a",
            "a",
            "uint64 -1",
            "byte 256",
            "['a' 'b']",
            "'a' 'b'",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let nested = "[".repeat(100_000) + &"]".repeat(100_000);
        for wrong in [
            "[1",
            "[1,]",
            "[,]",
            "[1, 'a']",
            "[1, uint64 2]",
            "@ay [256]",
            "[[1]]",
            &nested,
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for wrong in ["@a", "@ay", "@av []", "@aé []", "[byte]"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn properties() {
        let property = |name: &str, text| property(&format!("org.systemd.property.{name}"), text);
        let collect = property("CollectMode", "'inactive'").unwrap().unwrap();
        assert_eq!(
            collect,
            ("CollectMode".to_owned(), Value::Text("inactive".to_owned()))
        );
        let endless = property("TimeoutStopSec", "1e30").unwrap_err();
        assert!(
            format!("{endless:#}").ends_with("not a time"),
            "{endless:#}"
        );
        let stop = property("TimeoutStopSec", "1.5").unwrap().unwrap();
        assert_eq!(stop, ("TimeoutStopUSec".to_owned(), Value::U64(1_500_000)));
        assert!(property("A-b", "true").is_err());
        let error = format!("{:#}", property("Nice", "nice").unwrap_err());
        assert_eq!(
            error,
            "annotations[\"org.systemd.property.Nice\"]: \"nice\" is no value"
        );
    }
}
