//! Questions over UDP that wait for their turn. All containers share one socket, which is emptied
//! at once. Then they are served in turn, so that a container that asks more waits longer. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

/// How many questions of one container wait. More are lost, which clients of UDP have to expect.
const EACH_MAX: usize = 64;
/// When so many wait in all, one question of each container still may.
const ALL_MAX: usize = 8192;

/// The container that asks; `None` for an address that no member of the network has.
pub(super) type Asker = Option<Rc<str>>;

/// A question that has arrived.
#[derive(Debug)]
pub(super) struct InboxQuestion {
    pub(super) query: Vec<u8>,
    pub(super) from: SocketAddr,
    /// The source at which it has arrived.
    pub(super) via: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: BTreeMap<Asker, VecDeque<InboxQuestion>>,
    /// The askers with waiting questions, each once, in the order of their turns.
    turns: VecDeque<Asker>,
    count: usize,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lets a question wait; if there is no room it is lost.
    pub(super) fn push(&mut self, asker: &Asker, asked: impl FnOnce() -> InboxQuestion) {
        let waiting = self.waiting.entry(asker.clone()).or_default();
        if waiting.len() >= EACH_MAX || (self.count >= ALL_MAX && !waiting.is_empty()) {
            return;
        }
        if waiting.is_empty() {
            self.turns.push_back(asker.clone());
        }
        waiting.push_back(asked());
        self.count += 1;
    }

    /// Takes the next question of the container whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(Asker, InboxQuestion)> {
        let asker = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&asker)?;
        let asked = waiting.pop_front()?;
        self.count -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&asker);
        } else {
            self.turns.push_back(asker.clone());
        }
        Some((asker, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(n: u8) -> InboxQuestion {
        InboxQuestion {
            query: vec![n],
            from: "192.0.2.1:1".parse().unwrap(),
            via: 1,
        }
    }

    #[test]
    fn who_asks_most_waits_most() {
        let mut inbox = Inbox::default();
        let (loud, calm, stranger): (Asker, Asker, Asker) =
            (Some("loud".into()), Some("calm".into()), None);
        for n in 0..200 {
            inbox.push(&loud, || asked(n));
            inbox.push(&stranger, || asked(n));
        }
        inbox.push(&calm, || asked(7));
        let first: Vec<_> = (0..3)
            .filter_map(|_| inbox.pop())
            .map(|(asker, _)| asker)
            .collect();
        assert_eq!(first, [loud, stranger, calm]);
        let mut rest = 0;
        while inbox.pop().is_some() {
            rest += 1;
        }
        assert_eq!(rest, 2 * (EACH_MAX - 1));
        assert!(inbox.is_empty() && inbox.waiting.is_empty() && inbox.turns.is_empty());
    }
}
