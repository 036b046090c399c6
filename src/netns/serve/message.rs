//! DNS messages (RFC 1035), as far as it takes to answer for names and addresses. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
const ANY: u16 = 255;
const INTERNET: u16 = 1;
const HEADER: usize = 12;

/// Response codes.
pub(super) const NO_ERROR: u8 = 0;
pub(super) const FORMAT_ERROR: u8 = 1;
pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NAME_ERROR: u8 = 3;
pub(super) const NOT_IMPLEMENTED: u8 = 4;
pub(super) const REFUSED: u8 = 5;

/// The question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The name in lower case, without the final dot.
    pub(super) name: String,
    pub(super) kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

/// Returns the one question of a query. `Err` is the code to answer with, `None` means that there
/// must be no answer.
pub(super) fn question(query: &[u8]) -> Option<Result<Question, u8>> {
    let header = query.get(..HEADER)?;
    // An answer to an answer might go on for ever.
    if header[2] & 0x80 != 0 {
        return None;
    }
    if header[2] & 0x78 != 0 {
        return Some(Err(NOT_IMPLEMENTED));
    }
    if header[4..6] != [0, 1] {
        return Some(Err(FORMAT_ERROR));
    }
    Some(parse(query).ok_or(FORMAT_ERROR))
}

fn parse(query: &[u8]) -> Option<Question> {
    let (mut at, mut name) = (HEADER, String::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {}
            // A compression pointer, which has nothing to point at yet.
            _ => return None,
        }
        let label = query.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        // Bytes that are no text match no container's name, and the query is passed on as it came.
        name.extend(label.iter().map(|byte| match byte {
            b'.' => '\0',
            byte => char::from(byte.to_ascii_lowercase()),
        }));
        if at - HEADER > 255 {
            return None;
        }
    }
    let number = |at: usize| Some(u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?));
    let (kind, class) = (number(at)?, number(at + 2)?);
    (class == INTERNET || class == ANY).then_some(Question {
        name,
        kind,
        end: at + 4,
    })
}

/// Returns a response without records.
pub(super) fn empty(query: &[u8], code: u8) -> Vec<u8> {
    let end = match question(query) {
        Some(Ok(question)) => question.end,
        _ => HEADER,
    };
    let mut response = query.get(..end).unwrap_or_default().to_vec();
    response.resize(end, 0);
    // The flags: a response, recursion desired as in the query, recursion available.
    response[2] = 0x80 | response[2] & 0x79;
    response[3] = 0x80 | code;
    response[4..6].copy_from_slice(&u16::from(end > HEADER).to_be_bytes());
    response[6..12].fill(0);
    response
}

/// Returns the response with the addresses of the family that was asked for, or with a name. The
/// time to live is 0, since they may change at any time.
pub(super) fn answer(query: &[u8], question: &Question, found: &[FoundName<'_>]) -> Vec<u8> {
    let mut response = empty(query, NO_ERROR);
    // The answer is authoritative.
    response[2] |= 0x04;
    let mut count = 0_u16;
    for one in found {
        let (kind, data) = match one {
            FoundName::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            FoundName::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            FoundName::Name(name) => (PTR, encode(name)),
        };
        if question.kind != kind && question.kind != ANY {
            continue;
        }
        // A pointer to the name in the question.
        response.extend_from_slice(&[0xc0, HEADER as u8]);
        response.extend_from_slice(&kind.to_be_bytes());
        response.extend_from_slice(&INTERNET.to_be_bytes());
        response.extend_from_slice(&0_u32.to_be_bytes());
        response.extend_from_slice(&(data.len() as u16).to_be_bytes());
        response.extend_from_slice(&data);
        count += 1;
    }
    response[6..8].copy_from_slice(&count.to_be_bytes());
    response
}

/// The data of a record in an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum FoundName<'a> {
    Address(IpAddr),
    Name(&'a str),
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len().min(63) as u8);
        bytes.extend(label.bytes().take(63));
    }
    bytes.push(0);
    bytes
}

/// Returns the address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let bytes: Vec<u8> = labels
            .split('.')
            .rev()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    let labels: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').collect();
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    let digits: String = labels.into_iter().rev().collect();
    Some(Ipv6Addr::from_bits(u128::from_str_radix(&digits, 16).ok()?).into())
}

/// Parses arbitrary bytes, for [`crate::fuzz`], as a query, and makes an answer.
#[cfg(any(test, fuzzing))]
pub fn read_anything(query: &[u8]) {
    match question(query) {
        None => {}
        Some(Err(code)) => drop(empty(query, code)),
        Some(Ok(question)) => {
            let address = reverse(&question.name);
            let found = address.map(FoundName::Address);
            let name = FoundName::Name(&question.name);
            answer(query, &question, &[found.unwrap_or(name), name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encode(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        bytes
    }

    #[test]
    fn a_name_is_asked_for_in_any_case() {
        let asked = question(&query("Db.Example", A)).unwrap().unwrap();
        assert_eq!((asked.name.as_str(), asked.kind), ("db.example", A));
    }

    #[test]
    fn an_answer_holds_what_was_asked_for() {
        let query = query("db", A);
        let asked = question(&query).unwrap().unwrap();
        let found = ["10.0.0.2", "fd00::2"].map(|ip| FoundName::Address(ip.parse().unwrap()));
        let response = answer(&query, &asked, &found);
        assert_eq!(&response[..2], [7, 7]);
        assert_eq!(&response[6..8], [0, 1], "one answer");
        assert!(response.ends_with(&[0, 4, 10, 0, 0, 2]));
        assert_eq!(response[3] & 0xf, NO_ERROR);
    }

    #[test]
    fn only_questions_are_answered() {
        let mut answer = query("db", A);
        answer[2] |= 0x80;
        assert!(question(&answer).is_none());
        assert!(question(&[1, 2, 3]).is_none());
        let mut update = query("db", A);
        update[2] |= 5 << 3;
        assert_eq!(question(&update), Some(Err(NOT_IMPLEMENTED)));
        assert_eq!(empty(&update, NOT_IMPLEMENTED)[3] & 0xf, NOT_IMPLEMENTED);
    }

    #[test]
    fn addresses_are_read_backwards() {
        assert_eq!(
            reverse("2.0.20.172.in-addr.arpa"),
            Some("172.20.0.2".parse().unwrap())
        );
        let v6 = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(reverse(&v6), Some("fd00::2".parse().unwrap()));
        assert_eq!(reverse("1.2.3.in-addr.arpa"), None);
        assert_eq!(reverse("db"), None);
    }

    proptest! {
        #[test]
        fn no_message_breaks_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(Ok(asked)) = question(&bytes) {
                prop_assert!(asked.end <= bytes.len());
                let response = answer(&bytes, &asked, &[FoundName::Name("x")]);
                prop_assert!(response[2] & 0x80 != 0);
            }
            let response = empty(&bytes, NAME_ERROR);
            prop_assert!(question(&response).is_none());
        }
    }
}
