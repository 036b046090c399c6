//! Parses lists of CPUs as in cpuset(7), `0-3,7`, into the masks that system calls take.
//!
//! Nothing is read from the system: the kernel decides which CPUs exist.

use anyhow::{Context, Result, ensure};

/// The first number that is refused: runc's limit, eight times the kernel's largest `NR_CPUS`.
const END: usize = 1 << 16;

/// A set of CPUs as bits, the lowest number first. It is as long as its highest member needs, so it
/// holds any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(Vec<u64>);

impl Cpus {
    /// Returns every CPU number that is allowed. The kernel leaves out those that do not exist and
    /// those that are not in the cpuset.
    pub fn all() -> Self {
        Self(vec![u64::MAX; END / 64])
    }

    /// Parses a list of CPUs.
    ///
    /// # Errors
    /// The part that is not a number, not a range, or too large.
    pub fn parse(list: &str) -> Result<Self> {
        let mut cpus = Self(Vec::new());
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, part)?, number(last, part)?);
            ensure!(first <= last, "{part:?}: ends before it begins");
            (first..=last).for_each(|cpu| cpus.insert(cpu));
        }
        Ok(cpus)
    }

    fn insert(&mut self, cpu: usize) {
        let word = cpu / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (cpu % 64);
    }

    /// Returns the mask for sched_setaffinity(2), whose words are 64 bits long on 64-bit machines.
    pub fn mask(&self) -> &[u64] {
        &self.0
    }
}

fn number(text: &str, part: &str) -> Result<usize> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    ensure!(digits, "{part:?}: not a number or a range");
    let number = text.parse::<usize>().ok().filter(|number| *number < END);
    number.with_context(|| format!("{part:?}: beyond {}", END - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_a_mask_as_long_as_it_has_to_be() {
        let mask = |list| Cpus::parse(list).unwrap().0;
        assert_eq!(mask("0-3,7"), [0x8f]);
        assert_eq!(mask("63,64"), [1 << 63, 1]);
        assert_eq!(mask("5,5-6,0005"), [0x60]);
        assert_eq!(mask("1024").len(), 17);
        assert_eq!(mask("0-65535"), Cpus::all().0);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (list, error) in [
            ("", r#""": not a number or a range"#),
            ("1,", r#""": not a number or a range"#),
            ("a", r#""a": not a number or a range"#),
            ("0, 1", r#"" 1": not a number or a range"#),
            ("+1", r#""+1": not a number or a range"#),
            ("1-2-3", r#""1-2-3": not a number or a range"#),
            ("3-2", r#""3-2": ends before it begins"#),
            ("65536", r#""65536": beyond 65535"#),
            (
                "99999999999999999999",
                r#""99999999999999999999": beyond 65535"#,
            ),
        ] {
            assert_eq!(Cpus::parse(list).unwrap_err().to_string(), error, "{list}");
        }
    }

    proptest! {
        #[test]
        fn every_member_is_in_the_mask_and_nothing_else(
            members in prop::collection::btree_set(0..2000usize, 1..40),
        ) {
            let list: Vec<_> = members.iter().map(usize::to_string).collect();
            let cpus = Cpus::parse(&list.join(",")).unwrap();
            let bit = |cpu: usize| cpus.mask().get(cpu / 64).is_some_and(|w| w & 1 << (cpu % 64) != 0);
            for cpu in 0..2100 {
                prop_assert_eq!(bit(cpu), members.contains(&cpu));
            }
        }

        #[test]
        fn any_text_is_answered(list in ".*") {
            let _ = Cpus::parse(&list);
        }
    }
}
