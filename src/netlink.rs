//! Netlink (netlink(7)): messages, and a socket that sends them and reads the answers. The kernel
//! handles a request while it is being sent, so its answers are there at once and nothing waits.

pub mod address;
pub mod link;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};

const HEADER: usize = 16;
const ALIGN: usize = 4;
const NESTED: u16 = 1 << 15;

// <linux/netlink.h>
pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;
pub const REPLACE: u16 = 0x100;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// One message: the header of netlink, the header of its family, and attributes.
#[derive(Clone, Debug)]
pub struct NetlinkMessage(Vec<u8>);

impl NetlinkMessage {
    /// Returns a request of type `kind`; `family` is the family's own header.
    pub fn new(kind: u16, flags: u16, family: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(family);
        pad(&mut bytes);
        Self(bytes)
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0
            .extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// Adds an attribute in the byte order of this machine, which rtnetlink uses.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute in network byte order, which nfnetlink uses.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds an attribute that contains the attributes which `fill` adds.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds the bytes of a header within an attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        pad(&mut self.0);
        self
    }

    /// Returns everything that follows the header of netlink.
    pub fn body(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }

    fn want_ack(&mut self) {
        self.0[6] |= ACK as u8;
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Returns the kind and the value of each attribute in `bytes`.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the value of the attribute `kind` among those in `bytes`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// Returns an attribute's value as a string, up to its end or the first zero.
pub fn text(bytes: &[u8]) -> &str {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A netlink socket in the network namespace in which it was made.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens a socket for rtnetlink(7).
    pub fn route() -> Result<Self> {
        Self::new(SockProtocol::NetlinkRoute)
    }

    /// Opens a socket for nfnetlink: nf_tables and conntrack.
    pub fn netfilter() -> Result<Self> {
        Self::new(SockProtocol::NetlinkNetFilter)
    }

    fn new(protocol: SockProtocol) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self { fd, sequence: 1 })
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
            // The message is larger than the send buffer. Only CAP_NET_ADMIN allows a buffer beyond
            // wmem_max.
            Err(Errno::EMSGSIZE) => {
                setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2 + 4096))?;
                send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Sends a request and returns whether the kernel has done or refused it.
    pub fn request(&mut self, mut message: NetlinkMessage) -> Result<()> {
        message.want_ack();
        self.sequence += 1;
        self.send(message.finish(self.sequence))?;
        self.answers(|_, _| {})
    }

    /// Sends a request and hands the type and the payload of each answer to `each`.
    pub fn query(
        &mut self,
        mut message: NetlinkMessage,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<()> {
        self.sequence += 1;
        self.send(message.finish(self.sequence))?;
        self.answers(each)
    }

    /// Sends `messages` to nf_tables as one batch: the kernel does all of them or none.
    ///
    /// # Errors
    /// The error of the first message that was refused, with its place among `messages`.
    pub fn batch(
        &mut self,
        mut messages: Vec<NetlinkMessage>,
    ) -> std::result::Result<(), (usize, Errno)> {
        const BEGIN: u16 = 0x10;
        const END: u16 = 0x11;
        // <linux/netfilter/nfnetlink.h>: the resource id of a batch is its subsystem, nf_tables.
        let family = [0, 0, 0, 10];
        let first = self.sequence + 2;
        let Some(last) = messages.last_mut() else {
            return Ok(());
        };
        last.want_ack();
        let mut bytes = NetlinkMessage::new(BEGIN, 0, &family)
            .finish(first - 1)
            .to_vec();
        for (at, message) in messages.iter_mut().enumerate() {
            bytes.extend_from_slice(message.finish(first + at as u32));
        }
        let after = first + messages.len() as u32;
        bytes.extend_from_slice(NetlinkMessage::new(END, 0, &family).finish(after));
        self.sequence = after;
        self.send(&bytes).map_err(|errno| (0, errno))?;
        self.batch_answers(first, messages.len())
    }

    fn batch_answers(&self, first: u32, count: usize) -> std::result::Result<(), (usize, Errno)> {
        let mut result = Err((0, Errno::EIO));
        self.receive(|kind, sequence, payload| {
            let errno = payload
                .get(..4)
                .and_then(|_| u32_at(payload, 0))
                .unwrap_or(0) as i32;
            let at = sequence.wrapping_sub(first) as usize;
            if kind == ERROR && (errno != 0 || at == count - 1) && !is_refused(&result) {
                result = match errno {
                    0 => Ok(()),
                    errno => Err((at.min(count), Errno::from_raw(-errno))),
                };
            }
            true
        })
        .map_err(|errno| (0, errno))?;
        result
    }

    fn answers(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let mut result = Ok(());
        let wanted = self.sequence;
        self.receive(|kind, sequence, payload| {
            match kind {
                _ if sequence != wanted => {}
                DONE => return false,
                ERROR => {
                    result = match u32_at(payload, 0).unwrap_or(0) as i32 {
                        0 => Ok(()),
                        errno => Err(Errno::from_raw(-errno)),
                    };
                    return false;
                }
                kind => each(kind, payload),
            }
            true
        })?;
        result
    }

    /// Hands every message that is there to `each`, until it returns `false`.
    fn receive(&self, mut each: impl FnMut(u16, u32, &[u8]) -> bool) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER {
                let length = u32_at(rest, 0).unwrap_or(0) as usize;
                let (Some(payload), Some(kind), Some(sequence)) =
                    (rest.get(HEADER..length), u16_at(rest, 4), u32_at(rest, 8))
                else {
                    return Err(Errno::EBADMSG);
                };
                if !each(kind, sequence, payload) {
                    return Ok(());
                }
                rest = rest
                    .get(length.next_multiple_of(ALIGN)..)
                    .unwrap_or_default();
            }
        }
    }
}

/// Whether `result` is the refusal of a message already. Place 0 with EIO means that no answer has
/// come.
fn is_refused(result: &std::result::Result<(), (usize, Errno)>) -> bool {
    matches!(result, Err(refused) if *refused != (0, Errno::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = NetlinkMessage::new(16, EXCL, &[1, 2]);
        message.string(3, "lo").nest(18, |inner| {
            inner.u32(1, 7);
        });
        let bytes = message.finish(9);
        assert_eq!(u32_at(bytes, 0), Some(bytes.len() as u32));
        let body = &bytes[HEADER + 4..];
        assert_eq!(text(attribute(body, 3).unwrap()), "lo");
        let inner = attribute(body, 18).unwrap();
        assert_eq!(
            attribute(inner, 1).and_then(|value| u32_at(value, 0)),
            Some(7)
        );
        assert!(attribute(body, 4).is_none());
    }

    #[test]
    fn a_cut_off_message_has_no_attributes() {
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
