//! The published JSON schema of runtime-spec: which fields there are, and what a document has
//! wrong. Only the keywords that it uses; any other is a panic, so that none is passed over.

use std::sync::OnceLock;

use serde_json::{Map, Value};

const FILES: [(&str, &str); 7] = [
    ("config-schema.json", include_str!("../schema/config-schema.json")),
    ("config-linux.json", include_str!("../schema/config-linux.json")),
    ("defs.json", include_str!("../schema/defs.json")),
    ("defs-linux.json", include_str!("../schema/defs-linux.json")),
    ("features-schema.json", include_str!("../schema/features-schema.json")),
    ("features-linux.json", include_str!("../schema/features-linux.json")),
    ("state-schema.json", include_str!("../schema/state-schema.json")),
];

/// Properties of a configuration whose schemas are not here: other platforms'.
const ELSEWHERE: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// A schema or a part of one; references are relative to its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    file: &'static str,
    value: &'static Map<String, Value>,
}

impl Schema {
    pub(crate) fn config() -> Self {
        Self::at("config-schema.json", "")
    }

    pub(crate) fn features() -> Self {
        Self::at("features-schema.json", "")
    }

    pub(crate) fn state() -> Self {
        Self::at("state-schema.json", "")
    }

    fn at(file: &str, pointer: &str) -> Self {
        static PARSED: OnceLock<Vec<(&str, Value)>> = OnceLock::new();
        let parsed = PARSED.get_or_init(|| {
            FILES.iter().map(|(name, text)| (*name, serde_json::from_str(text).unwrap())).collect()
        });
        let found = parsed.iter().find(|(name, _)| *name == file);
        let (file, value) = found.unwrap_or_else(|| panic!("{file} is not here"));
        let value = value.pointer(pointer).and_then(Value::as_object);
        Self { file, value: value.unwrap_or_else(|| panic!("{file}#{pointer}")) }
    }

    fn part(self, value: &'static Value) -> Self {
        Self { value: value.as_object().expect("a schema"), ..self }
    }

    fn parts(self, value: &'static Value) -> impl Iterator<Item = Self> {
        value.as_array().expect("a list of schemas").iter().map(move |part| self.part(part))
    }

    fn properties(self, value: &'static Value) -> impl Iterator<Item = (&'static str, Self)> {
        let properties = value.as_object().expect("properties").iter();
        let here = properties.filter(|(name, _)| !ELSEWHERE.contains(&name.as_str()));
        here.map(move |(name, schema)| (name.as_str(), self.part(schema)))
    }

    fn reference(self, value: &'static Value) -> Self {
        let (file, pointer) = value.as_str().and_then(|text| text.split_once('#')).unwrap();
        Self::at(if file.is_empty() { self.file } else { file }, pointer)
    }

    /// The JSON path of every field, as `mounts[].options` or `linux.netDevices.*.name`.
    pub(crate) fn fields(self) -> Vec<String> {
        let mut fields = Vec::new();
        self.collect("", &mut fields);
        if self.file == "config-schema.json" {
            fields.extend(ELSEWHERE.map(String::from));
        }
        fields
    }

    fn collect(self, path: &str, fields: &mut Vec<String>) {
        for (keyword, value) in self.value {
            match keyword.as_str() {
                "$ref" => self.reference(value).collect(path, fields),
                "allOf" | "anyOf" => self.parts(value).for_each(|part| part.collect(path, fields)),
                "items" => self.part(value).collect(&format!("{path}[]"), fields),
                "additionalProperties" => self.part(value).collect(&format!("{path}.*"), fields),
                "properties" => {
                    for (name, property) in self.properties(value) {
                        let dot = if path.is_empty() { "" } else { "." };
                        let field = format!("{path}{dot}{name}");
                        property.collect(&field, fields);
                        fields.push(field);
                    }
                }
                _ => {}
            }
        }
    }

    /// What is wrong with a document, one line a fault.
    pub(crate) fn faults(self, document: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(document, "", &mut faults);
        faults
    }

    fn check(self, it: &Value, path: &str, faults: &mut Vec<String>) {
        for (keyword, value) in self.value {
            let good = match keyword.as_str() {
                "$ref" => {
                    self.reference(value).check(it, path, faults);
                    true
                }
                "allOf" => {
                    self.parts(value).for_each(|part| part.check(it, path, faults));
                    true
                }
                "anyOf" => self.parts(value).any(|part| part.faults(it).is_empty()),
                "properties" | "additionalProperties" | "patternProperties" | "items" => {
                    self.check_below((keyword, value), it, path, faults);
                    true
                }
                "type" => has_type(it, value.as_str().unwrap()),
                "enum" => value.as_array().unwrap().contains(it),
                "required" => value.as_array().unwrap().iter().all(|name| {
                    it.as_object().is_none_or(|it| it.contains_key(name.as_str().unwrap()))
                }),
                "minimum" => number(it).is_none_or(|it| it >= number(value).unwrap()),
                "maximum" => number(it).is_none_or(|it| it <= number(value).unwrap()),
                "minItems" => {
                    it.as_array().is_none_or(|it| it.len() as i128 >= number(value).unwrap())
                }
                "pattern" => it.as_str().is_none_or(|it| matches(value.as_str().unwrap(), it)),
                "description" | "$schema" | "definitions" => true,
                unknown => panic!("{unknown} in {}: not known here", self.file),
            };
            if !good {
                faults.push(format!("{path}: {keyword} {value}: {it}"));
            }
        }
    }

    fn check_below(
        self,
        (keyword, value): (&str, &'static Value),
        it: &Value,
        path: &str,
        faults: &mut Vec<String>,
    ) {
        let members = it.as_object().into_iter().flatten();
        match keyword {
            "properties" => {
                for (name, property) in self.properties(value) {
                    if let Some(it) = it.get(name) {
                        property.check(it, &format!("{path}.{name}"), faults);
                    }
                }
            }
            "items" => {
                for (i, it) in it.as_array().into_iter().flatten().enumerate() {
                    self.part(value).check(it, &format!("{path}[{i}]"), faults);
                }
            }
            "additionalProperties" => {
                members.for_each(|(name, it)| {
                    self.part(value).check(it, &format!("{path}.{name}"), faults)
                });
            }
            // The only one there is: any name.
            _ => {
                let any = self.part(&value[".{1,}"]);
                members.for_each(|(name, it)| any.check(it, &format!("{path}.{name}"), faults));
            }
        }
    }
}

fn has_type(it: &Value, name: &str) -> bool {
    match name {
        "object" => it.is_object(),
        "array" => it.is_array(),
        "string" => it.is_string(),
        "boolean" => it.is_boolean(),
        "integer" => number(it).is_some(),
        other => panic!("type {other}: not known here"),
    }
}

fn number(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or(value.as_u64().map(i128::from))
}

/// A pattern of characters and classes of them, each perhaps with `*` or `+`, from end to end.
fn matches(pattern: &str, text: &str) -> bool {
    let whole = pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$'));
    let pattern: Vec<char> =
        whole.unwrap_or_else(|| panic!("{pattern}: not whole")).chars().collect();
    let text: Vec<char> = text.chars().collect();
    matches_from(&pattern, &text)
}

fn matches_from(pattern: &[char], text: &[char]) -> bool {
    let Some(first) = pattern.first() else { return text.is_empty() };
    let end = if *first == '[' { pattern.iter().position(|c| *c == ']').unwrap() } else { 0 };
    let class = if end == 0 { &pattern[..1] } else { &pattern[1..end] };
    let rest = &pattern[end + 1..];
    let here = text.first().is_some_and(|c| in_class(class, *c));
    match rest.first() {
        Some('*') => matches_from(&rest[1..], text) || here && matches_from(pattern, &text[1..]),
        Some('+') => {
            here && (matches_from(&rest[1..], &text[1..]) || matches_from(pattern, &text[1..]))
        }
        _ => here && matches_from(rest, &text[1..]),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    match class {
        ['^', others @ ..] => !in_class(others, c),
        [from, '-', to, others @ ..] => (*from..=*to).contains(&c) || in_class(others, c),
        [one, others @ ..] => *one == c || in_class(others, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_has_fields_through_references_lists_and_maps() {
        let fields = Schema::config().fields();
        for field in [
            "process.cwd",
            "mounts[].uidMappings[].hostID",
            "linux.netDevices.*.name",
            "linux.resources.blockIO.weightDevice[].major",
            "windows",
        ] {
            assert!(fields.iter().any(|known| known == field), "{field} in {fields:?}");
        }
    }

    #[test]
    fn a_document_is_checked_against_its_schema() {
        let config = |linux: Value| json!({ "ociVersion": "1.3.0", "linux": linux });
        let faults = |document: Value| Schema::config().faults(&document).len();
        assert_eq!(faults(config(json!({}))), 0);
        assert_eq!(faults(json!({})), 1, "required");
        assert_eq!(faults(config(json!([]))), 1, "type");
        assert_eq!(faults(config(json!({ "devices": [{ "type": "x", "path": "/a" }] }))), 1);
        assert_eq!(faults(config(json!({ "namespaces": [{ "type": "moon" }] }))), 1, "enum");
        assert_eq!(faults(config(json!({ "sysctl": { "a": 1 } }))), 1, "any name");
        assert_eq!(faults(config(json!({ "netDevices": { "a": { "name": 1 } } }))), 1);
        let size =
            |size| json!({ "resources": { "hugepageLimits": [{ "pageSize": size, "limit": 1 }] } });
        assert_eq!(faults(config(size("64KB"))) + faults(config(size("2MB"))), 0);
        assert_eq!(faults(config(size("0KB"))) + faults(config(size("2 MB"))), 2, "pattern");
        let shares = |n: f64| config(json!({ "resources": { "cpu": { "shares": n } } }));
        assert_eq!(faults(shares(1.5)), 1, "integer");
        assert_eq!(
            faults(config(json!({ "resources": { "cpu": { "shares": -1 } } }))),
            1,
            "minimum"
        );
    }
}
