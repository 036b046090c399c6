//! How much of the helper process one client or one container may have. Pure.
//!
//! Each [`WorkKind`] has a budget of its own, so that idle connections leave room for questions.
//! Within a kind every client has a share, and so has every container that the work is for. New
//! work beyond a client's share ends the work of that client that has been quiet for longest.
//! Beyond a container's share, and if the whole budget is spent, it ends the quietest work of the
//! client that has most there. So a client with little always gets in, and only clients that have
//! much lose anything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::{ClientAddress, KINDS, WorkKind};

/// The highest number of descriptors for clients, who get two of five that the process may have.
const CLIENTS_MAX: usize = 32 * 1024;
/// Descriptors for neither clients nor ports: for commands, the resolver's sockets and files.
const SPARE: usize = 64;
/// A connection that has carried something within this time is not ended to make room for another
/// one of the same client.
const QUIET: Duration = Duration::from_secs(30);
/// The shortest time between two updates of a source's place: what it carries in between does not
/// change which source has been quiet for longest.
const GRAIN: Duration = Duration::from_millis(500);

/// Where a client has its share: in all work of a kind, or in the work for one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Container(Rc<str>),
}

/// Names the work of one kind that one client has in a scope.
type Account = (WorkKind, Scope, ClientAddress);

/// An account's place among the accounts of its scope: by how much it has, then by how long its
/// quietest work has been quiet. The account to take from comes last.
type Rank = (WorkKind, Scope, usize, Reverse<u64>, ClientAddress);

#[derive(Debug)]
struct Charge {
    kind: WorkKind,
    client: ClientAddress,
    container: Option<Rc<str>>,
    /// Its place among all charges: the charge that was in use last has the highest.
    stamp: u64,
    used: Instant,
}

impl Charge {
    fn accounts(&self) -> impl Iterator<Item = Account> {
        let container = self.container.clone().map(Scope::Container);
        let (kind, client) = (self.kind, self.client.clone());
        let scopes = std::iter::once(Scope::All).chain(container);
        scopes.map(move |scope| (kind, scope, client.clone()))
    }
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// There is room once the source with this number has ended.
    Instead(u64),
    None,
}

/// What all clients have. Sources are known by their numbers.
#[derive(Debug)]
pub(super) struct Budgets {
    /// How many descriptors are for clients, and how many for ports.
    clients: usize,
    ports: usize,
    charges: BTreeMap<u64, Charge>,
    /// Numbers by stamp; the first has been quiet for longest.
    accounts: BTreeMap<Account, BTreeMap<u64, u64>>,
    ranks: BTreeSet<Rank>,
    counts: BTreeMap<(WorkKind, Scope), usize>,
    stamp: u64,
}

impl Budgets {
    /// Returns the budgets of a process that may have that many descriptors.
    pub(super) fn new(descriptors: usize) -> Self {
        let clients = (descriptors / 5 * 2).min(CLIENTS_MAX);
        Self {
            clients,
            ports: descriptors.saturating_sub(clients + SPARE),
            charges: BTreeMap::new(),
            accounts: BTreeMap::new(),
            ranks: BTreeSet::new(),
            counts: BTreeMap::new(),
            stamp: 0,
        }
    }

    /// Returns how many published ports can be held.
    pub(super) fn ports(&self) -> usize {
        self.ports
    }

    /// Returns how many sources of the kind there may be at once. Together they need as many
    /// descriptors as there are for clients: connections take two, the rest one.
    fn total(&self, kind: WorkKind) -> usize {
        match kind {
            WorkKind::UdpQuery
            | WorkKind::TcpQuery
            | WorkKind::FirstDatagrams
            | WorkKind::UdpFlow => (self.clients / 8).max(8),
            WorkKind::Relay => (self.clients / 16 * 3).max(8),
        }
    }

    fn count(&self, kind: WorkKind, scope: Scope) -> usize {
        self.counts.get(&(kind, scope)).copied().unwrap_or(0)
    }

    /// Returns the source to end in the scope: the quietest one of the client that has most.
    fn to_take(&self, kind: WorkKind, scope: Scope) -> Option<u64> {
        let least = ClientAddress::Member("".into());
        let end = (kind, scope.clone(), usize::MAX, Reverse(0), least);
        let (_, _, _, _, most) = self
            .ranks
            .range(..end)
            .next_back()
            .filter(|rank| (rank.0, &rank.1) == (kind, &scope))?;
        let (_, number) = self
            .accounts
            .get(&(kind, scope, most.clone()))?
            .first_key_value()?;
        Some(*number)
    }

    /// Whether `client` may have one more source of the kind, for `container` if that is given.
    pub(super) fn room(
        &self,
        kind: WorkKind,
        client: &ClientAddress,
        container: Option<&Rc<str>>,
    ) -> Room {
        let total = self.total(kind);
        let instead = |number: Option<u64>| number.map_or(Room::None, Room::Instead);
        if let Some(own) = self.accounts.get(&(kind, Scope::All, client.clone()))
            && own.len() >= total / 4
        {
            let quietest = own.first_key_value().map(|(_, number)| *number);
            let is_quiet = |number: &u64| {
                kind != WorkKind::Relay
                    || self
                        .charges
                        .get(number)
                        .is_none_or(|charge| charge.used.elapsed() > QUIET)
            };
            return instead(quietest.filter(is_quiet));
        }
        if let Some(scope) = container.cloned().map(Scope::Container)
            && self.count(kind, scope.clone()) >= total / 2
        {
            return instead(self.to_take(kind, scope));
        }
        if self.count(kind, Scope::All) < total {
            return Room::Free;
        }
        instead(self.to_take(kind, Scope::All))
    }

    /// Charges the source to the client, and to the container if there is one.
    pub(super) fn charge(
        &mut self,
        number: u64,
        kind: WorkKind,
        client: ClientAddress,
        container: Option<Rc<str>>,
    ) {
        self.release(number);
        self.stamp += 1;
        let charge = Charge {
            kind,
            client,
            container,
            stamp: self.stamp,
            used: Instant::now(),
        };
        for account in charge.accounts() {
            *self.counts.entry((kind, account.1.clone())).or_default() += 1;
            self.book(account, |entries| {
                entries.insert(charge.stamp, number);
            });
        }
        self.charges.insert(number, charge);
    }

    /// Changes an account and its rank.
    fn book(&mut self, account: Account, change: impl FnOnce(&mut BTreeMap<u64, u64>)) {
        let rank = |entries: &BTreeMap<u64, u64>| {
            let (first, _) = entries.first_key_value()?;
            let (kind, scope, client) = account.clone();
            Some((kind, scope, entries.len(), Reverse(*first), client))
        };
        let entries = self.accounts.entry(account.clone()).or_default();
        let before = rank(entries);
        change(entries);
        let after = rank(entries);
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        if let Some(after) = after {
            self.ranks.insert(after);
        } else {
            self.accounts.remove(&account);
        }
    }

    /// Takes off the charge of a source that has ended.
    pub(super) fn release(&mut self, number: u64) {
        let Some(charge) = self.charges.remove(&number) else {
            return;
        };
        for account in charge.accounts() {
            let scope = (charge.kind, account.1.clone());
            if let Some(count) = self.counts.get_mut(&scope) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&scope);
                }
            }
            self.book(account, |entries| {
                entries.remove(&charge.stamp);
            });
        }
    }

    /// Changes the kind of a source's charge; the client and the container stay the same.
    pub(super) fn change(&mut self, number: u64, kind: WorkKind) {
        if let Some(charge) = self.charges.get(&number) {
            let (client, container) = (charge.client.clone(), charge.container.clone());
            self.charge(number, kind, client, container);
        }
    }

    /// Returns the kind, the client and the container that a source is charged to.
    pub(super) fn charged(
        &self,
        number: u64,
    ) -> Option<(WorkKind, ClientAddress, Option<Rc<str>>)> {
        let charge = self.charges.get(&number)?;
        Some((charge.kind, charge.client.clone(), charge.container.clone()))
    }

    /// Notes that the source has carried something.
    pub(super) fn touch(&mut self, number: u64) {
        let Some(charge) = self.charges.get_mut(&number) else {
            return;
        };
        if charge.used.elapsed() < GRAIN {
            return;
        }
        self.stamp += 1;
        let old = std::mem::replace(&mut charge.stamp, self.stamp);
        charge.used = Instant::now();
        let new = self.stamp;
        for account in charge.accounts().collect::<Vec<_>>() {
            self.book(account, |entries| {
                entries.remove(&old);
                entries.insert(new, number);
            });
        }
    }

    /// Whether there is a source of a kind for which `is_meant` is true.
    pub(super) fn has(&self, is_meant: impl Fn(WorkKind) -> bool) -> bool {
        KINDS
            .iter()
            .any(|kind| is_meant(*kind) && self.count(*kind, Scope::All) > 0)
    }

    /// Returns the sources that have been quiet for longer than `limit` has for their kind.
    pub(super) fn late(&self, limit: impl Fn(WorkKind) -> Option<Duration>) -> Vec<u64> {
        let is_late =
            |charge: &Charge| limit(charge.kind).is_some_and(|limit| charge.used.elapsed() > limit);
        let late = self.charges.iter().filter(|(_, charge)| is_late(charge));
        late.map(|(number, _)| *number).collect()
    }

    /// Returns the sources whose work is for this container.
    pub(super) fn of_container(&self, id: &str) -> Vec<u64> {
        let is_its = |charge: &Charge| charge.container.as_deref() == Some(id);
        let all = self.charges.iter().filter(|(_, charge)| is_its(charge));
        all.map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn client(n: u16) -> ClientAddress {
        ClientAddress::at(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 1).into())
    }

    /// Adds a source; returns the one that ended to make room, if any.
    fn one_more(
        budgets: &mut Budgets,
        number: u64,
        kind: WorkKind,
        client: &ClientAddress,
    ) -> Option<u64> {
        let instead = match budgets.room(kind, client, None) {
            Room::Free => None,
            Room::Instead(other) => Some(other),
            Room::None => panic!("{kind:?}: no room for {number}"),
        };
        instead.iter().for_each(|other| budgets.release(*other));
        budgets.charge(number, kind, client.clone(), None);
        instead
    }

    #[test]
    fn one_client_has_a_share_and_loses_its_own() {
        for kind in [
            WorkKind::UdpQuery,
            WorkKind::TcpQuery,
            WorkKind::FirstDatagrams,
            WorkKind::UdpFlow,
        ] {
            let mut budgets = Budgets::new(20_000);
            let share = (budgets.total(kind) / 4) as u64;
            for n in 0..5_000 {
                let ended = one_more(&mut budgets, n, kind, &client(0));
                assert_eq!(ended, n.checked_sub(share), "{kind:?}");
            }
            for n in 1..100 {
                let ended = one_more(&mut budgets, 10_000 + u64::from(n), kind, &client(n));
                assert_eq!(ended, None, "{kind:?}");
            }
        }
    }

    #[test]
    fn many_clients_take_from_the_one_that_has_most() {
        let mut budgets = Budgets::new(20_000);
        let kind = WorkKind::UdpQuery;
        let (total, share) = (budgets.total(kind) as u64, budgets.total(kind) as u64 / 4);
        for n in 0..share {
            one_more(&mut budgets, n, kind, &client(0));
        }
        for n in share..total {
            assert_eq!(one_more(&mut budgets, n, kind, &client(n as u16)), None);
        }
        for n in 0..10 {
            let ended = one_more(&mut budgets, total + n, kind, &client(5_000 + n as u16));
            assert_eq!(ended, Some(n), "the oldest of the largest");
        }
    }

    #[test]
    fn a_kind_takes_nothing_from_another() {
        let mut budgets = Budgets::new(1024);
        for n in 0..1_000 {
            one_more(&mut budgets, n, WorkKind::FirstDatagrams, &client(n as u16));
        }
        for kind in [
            WorkKind::UdpQuery,
            WorkKind::TcpQuery,
            WorkKind::UdpFlow,
            WorkKind::Relay,
        ] {
            assert_eq!(budgets.room(kind, &client(0), None), Room::Free);
        }
    }

    #[test]
    fn connections_in_use_are_not_ended_for_those_of_the_same_client() {
        let mut budgets = Budgets::new(20_000);
        let share = budgets.total(WorkKind::Relay) as u64 / 4;
        for n in 0..share {
            one_more(&mut budgets, n, WorkKind::Relay, &client(0));
        }
        assert_eq!(budgets.room(WorkKind::Relay, &client(0), None), Room::None);
        assert_eq!(budgets.room(WorkKind::Relay, &client(1), None), Room::Free);
    }

    #[test]
    fn a_container_has_no_more_than_half_of_what_is_relayed() {
        let mut budgets = Budgets::new(20_000);
        let (popular, other): (Rc<str>, Rc<str>) = ("popular".into(), "other".into());
        let half = budgets.total(WorkKind::Relay) as u64 / 2;
        for n in 0..half {
            budgets.charge(
                n,
                WorkKind::Relay,
                client(n as u16),
                Some(Rc::clone(&popular)),
            );
        }
        let new = client(9_999);
        assert_eq!(
            budgets.room(WorkKind::Relay, &new, Some(&popular)),
            Room::Instead(0)
        );
        assert_eq!(
            budgets.room(WorkKind::Relay, &new, Some(&other)),
            Room::Free
        );
        // Of those with one each it is the one that has been quiet for longest.
        budgets.release(0);
        assert_eq!(
            budgets.room(WorkKind::Relay, &new, Some(&popular)),
            Room::Free
        );
        budgets.charge(half, WorkKind::Relay, client(3), Some(Rc::clone(&popular)));
        assert_eq!(
            budgets.room(WorkKind::Relay, &new, Some(&popular)),
            Room::Instead(3)
        );
        assert_eq!(budgets.of_container("popular").len() as u64, half);
        assert!(budgets.of_container("other").is_empty());
    }

    #[test]
    fn all_kinds_and_the_ports_fit_into_the_descriptors() {
        for descriptors in [1_024, 4_096, 20_000, 524_288, 1 << 30] {
            let budgets = Budgets::new(descriptors);
            let of_kind = |kind: &WorkKind| {
                let each = if matches!(kind, WorkKind::TcpQuery | WorkKind::Relay) {
                    2
                } else {
                    1
                };
                each * budgets.total(*kind)
            };
            let clients: usize = KINDS.iter().map(of_kind).sum();
            assert!(
                clients + budgets.ports() + SPARE <= descriptors,
                "{descriptors}"
            );
        }
        assert!(Budgets::new(20_000).ports() >= 10_000);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut budgets = Budgets::new(20_000);
        budgets.charge(1, WorkKind::FirstDatagrams, client(0), Some("a".into()));
        budgets.change(1, WorkKind::UdpFlow);
        assert_eq!(
            budgets.charged(1).map(|(kind, ..)| kind),
            Some(WorkKind::UdpFlow)
        );
        assert!(budgets.has(|kind| kind == WorkKind::UdpFlow));
        assert!(!budgets.has(|kind| kind == WorkKind::FirstDatagrams));
        budgets.touch(1);
        budgets.release(1);
        budgets.release(1);
        assert!(!budgets.has(|_| true));
        assert!(
            budgets.accounts.is_empty() && budgets.ranks.is_empty() && budgets.counts.is_empty()
        );
        assert!(budgets.late(|_| Some(Duration::ZERO)).is_empty());
    }
}
