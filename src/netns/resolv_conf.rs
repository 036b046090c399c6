//! `/etc/resolv.conf`: reads the host's, and writes a container's.

use std::fs;
use std::net::IpAddr;

/// Returns the addresses of the name servers in this host's `/etc/resolv.conf`.
pub(super) fn host_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    servers_in(&text)
}

fn servers_in(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    };
    text.lines().filter_map(server).collect()
}

/// Returns the text of a container's `/etc/resolv.conf`.
pub(super) fn text(servers: &[IpAddr], search: &[String], options: &[String]) -> String {
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for (word, list) in [("search", search), ("options", options)] {
        if !list.is_empty() {
            text += &format!("{word} {}\n", list.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_from_resolv_conf() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.1\n nameserver fd00::1 \nnameserver fe80::1%eth0\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(servers_in(text), expected);
    }
}
