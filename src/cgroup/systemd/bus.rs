//! A connection to a systemd manager: through its private socket, or else through the message bus.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::wire::{self, BusMessage, ERROR, FIXED, Method, RETURN, Reader, SIGNAL, Writer};

/// How long one answer, or one job, may take. Ten seconds have been seen on a host under load.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// An open connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    /// Bytes that have been received beyond those that were asked for.
    received: VecDeque<u8>,
    serial: u32,
    /// The manager's name on a message bus; None on its private socket, where there is nobody else.
    destination: Option<&'static str>,
    /// Signals that arrived before an answer.
    signals: VecDeque<BusMessage>,
}

/// An error with which the manager answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.text.is_empty() {
            &self.name
        } else {
            &self.text
        })
    }
}

impl std::error::Error for Refusal {}

impl Bus {
    /// Connects to the system's manager, or to that of the calling user.
    pub(super) fn connect(user: bool) -> Result<Self> {
        let (private, bus) = if user {
            user_addresses()?
        } else {
            system_addresses()
        };
        if let Some(Ok(stream)) = private.map(UnixStream::connect) {
            return Self::greet(stream, None);
        }
        let who = if user {
            "the user's D-Bus"
        } else {
            "the system's D-Bus"
        };
        let stream = bus
            .connect()
            .with_context(|| format!("{who}: {}", bus.text))?;
        let mut bus = Self::greet(stream, Some(MANAGER)).context(who)?;
        bus.subscribe().context(who)?;
        Ok(bus)
    }

    /// Authenticates with SASL EXTERNAL without a name: the peer knows the user from the socket,
    /// also in a user namespace.
    fn greet(stream: UnixStream, destination: Option<&'static str>) -> Result<Self> {
        let (received, signals) = (VecDeque::new(), VecDeque::new());
        let mut bus = Self {
            stream,
            received,
            serial: 0,
            destination,
            signals,
        };
        let deadline = Instant::now() + PATIENCE;
        // Everything is sent at once, as systemd's own clients do. Bytes that arrive together with
        // BEGIN stay in the manager's buffer until more arrive (seen with systemd 252), so a call
        // must not be sent along.
        bus.stream
            .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let asked = bus.line(deadline)?;
        let answer = if asked == "DATA" {
            bus.line(deadline)?
        } else {
            asked
        };
        match answer.starts_with("OK ") {
            true => Ok(bus),
            false => bail!("authentication: {answer}"),
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > 4096 {
                bail!("authentication: unexpected answer");
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Gets a name on the bus, and subscribes to the manager's signals.
    fn subscribe(&mut self) -> Result<()> {
        let method = |member, signature| Method {
            destination: Some(BUS),
            path: "/org/freedesktop/DBus",
            interface: BUS,
            member,
            signature,
        };
        self.call(method("Hello", ""), &Writer::default())?;
        let mut rule = Writer::default();
        rule.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
        self.call(method("AddMatch", "s"), &rule)?;
        self.manager("Subscribe", "", &Writer::default()).map(drop)
    }

    /// Calls a method of the manager.
    pub(super) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<u8>> {
        let (path, interface) = (MANAGER_PATH, MANAGER_INTERFACE);
        let method = Method {
            destination: self.destination,
            path,
            interface,
            member,
            signature,
        };
        self.call(method, body)
    }

    /// Returns a property of the manager that is a string.
    pub(super) fn manager_text(&mut self, name: &str) -> Result<String> {
        let mut body = Writer::default();
        body.text(MANAGER_INTERFACE);
        body.text(name);
        let method = Method {
            destination: self.destination,
            path: MANAGER_PATH,
            interface: PROPERTIES,
            member: "Get",
            signature: "ss",
        };
        let reply = self.call(method, &body)?;
        let mut reader = Reader::new(&reply);
        let text = reader.signature().filter(|signature| *signature == "s");
        text.and_then(|_| reader.text())
            .map(str::to_owned)
            .with_context(|| unexpected(name))
    }

    fn call(&mut self, method: Method<'_>, body: &Writer) -> Result<Vec<u8>> {
        self.serial += 1;
        let bytes = wire::call(self.serial, method, &body.0);
        let deadline = Instant::now() + PATIENCE;
        self.stream
            .write_all(&bytes)
            .context(method.member.to_owned())?;
        loop {
            let message = self.receive(deadline).context(method.member.to_owned())?;
            match message.kind {
                RETURN if message.reply_to == self.serial => return Ok(message.body),
                ERROR if message.reply_to == self.serial => {
                    let text = Reader::new(&message.body)
                        .text()
                        .unwrap_or_default()
                        .to_owned();
                    let refusal = Refusal {
                        name: message.error,
                        text,
                    };
                    return Err(Error::new(refusal).context(method.member.to_owned()));
                }
                SIGNAL => self.signals.push_back(message),
                // Calls to this client are ignored.
                _ => {}
            }
        }
    }

    /// Waits until the job with the path `job` has ended. Returns its result, `done` on success.
    pub(super) fn wait(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline)?,
            };
            if message.kind != SIGNAL || message.member != "JobRemoved" {
                continue;
            }
            // id, job, unit, result
            let mut reader = Reader::new(&message.body);
            let _ = reader.u32();
            if reader.text() == Some(job) {
                let _ = reader.text();
                return reader
                    .text()
                    .map(str::to_owned)
                    .with_context(|| unexpected("JobRemoved"));
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<BusMessage> {
        let mut fixed = [0; FIXED];
        self.read(&mut fixed, deadline)?;
        let length = wire::length(&fixed).with_context(|| unexpected("message"))?;
        let mut bytes = fixed.to_vec();
        bytes.resize(length, 0);
        self.read(&mut bytes[FIXED..], deadline)?;
        wire::message(&bytes).with_context(|| unexpected("message"))
    }

    /// Fills `buffer`, or fails at the deadline.
    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while self.received.len() < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no answer in {} s", PATIENCE.as_secs());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("connection closed"),
                Ok(length) => self.received.extend(&chunk[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let length = buffer.len();
        for (to, from) in buffer.iter_mut().zip(self.received.drain(..length)) {
            *to = from;
        }
        Ok(())
    }
}

fn unexpected(what: &str) -> Error {
    anyhow!("{what}: unexpected answer")
}

/// The address of a message bus.
struct BusAddress {
    text: String,
    path: Vec<u8>,
    /// Whether the name is an abstract one, outside of the file system.
    is_abstract: bool,
}

impl BusAddress {
    fn of_path(path: &str) -> Self {
        Self {
            text: path.to_owned(),
            path: path.into(),
            is_abstract: false,
        }
    }

    /// Returns the first unix socket of a list in the format "Server Addresses" of the D-Bus
    /// specification.
    fn parse(text: &str) -> Option<Self> {
        text.split(';').find_map(|address| {
            let pairs = address.strip_prefix("unix:")?;
            pairs.split(',').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                let is_abstract = match key {
                    "path" => false,
                    "abstract" => true,
                    _ => return None,
                };
                Some(Self {
                    text: text.to_owned(),
                    path: unescape(value)?,
                    is_abstract,
                })
            })
        })
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        let address = match self.is_abstract {
            true => SocketAddr::from_abstract_name(&self.path)?,
            false => {
                let path = PathBuf::from(std::ffi::OsString::from_vec(self.path.clone()));
                SocketAddr::from_pathname(path)?
            }
        };
        UnixStream::connect_addr(&address)
    }
}

/// Replaces each `%2f` or the like by its byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

/// Returns the addresses of the system's manager. Its private socket is for root alone, and faster
/// than the message bus because no third process is involved.
fn system_addresses() -> (Option<PathBuf>, BusAddress) {
    let bus = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
    let bus = bus.and_then(|address| BusAddress::parse(&address));
    let bus = bus.unwrap_or_else(|| BusAddress::of_path("/run/dbus/system_bus_socket"));
    (Some("/run/systemd/private".into()), bus)
}

fn user_addresses() -> Result<(Option<PathBuf>, BusAddress)> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let runtime = variable("XDG_RUNTIME_DIR");
    let private = runtime
        .as_ref()
        .map(|dir| PathBuf::from(dir).join("systemd/private"));
    let bus = variable("DBUS_SESSION_BUS_ADDRESS").and_then(|address| BusAddress::parse(&address));
    let bus = bus.or_else(|| runtime.map(|dir| BusAddress::of_path(&format!("{dir}/bus"))));
    match bus {
        Some(bus) => Ok((private, bus)),
        None => bail!(
            "the user's D-Bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set \
             (a login session with dbus-user-session sets them)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = BusAddress::parse("tcp:host=x;unix:guid=1,path=/run/a%20b").unwrap();
        assert_eq!(
            (&*address.path, address.is_abstract),
            (&b"/run/a b"[..], false)
        );
        assert!(
            BusAddress::parse("unix:abstract=/tmp/x")
                .unwrap()
                .is_abstract
        );
        assert!(BusAddress::parse("unix:path=%2").is_none());
        assert!(BusAddress::parse("tcp:host=x").is_none());
    }
}
