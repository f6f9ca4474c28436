//! Addresses `host:port`, as they are advertised, announced and connected to.
//!
//! An IPv6 address has colons of its own, so it stands in brackets wherever a port follows. Where people give host and port
//! apart they may leave the brackets out; [`host_port`] puts them there, and [`bare`] takes them away for the system, which knows
//! no brackets.

use std::net::Ipv6Addr;

use thiserror::Error;

/// Longest host: that of a domain name.
const LONGEST_HOST: usize = 255;

/// `host:port`, with brackets around an IPv6 address, which `host` may have already.
pub fn host_port(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `host` without the brackets that an IPv6 address may stand in.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether `text` is a host name or an IP address, without brackets, in the characters that those have.
pub fn is_host(text: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = (1..=LONGEST_HOST).contains(&text.len()) && text.chars().all(in_name);
    is_name || text.parse::<Ipv6Addr>().is_ok()
}

/// Checks that `text` is `HOST:PORT`: a host name, an IPv4 address or an IPv6 address in brackets, and a port other than 0.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(text: &str) -> Result<(), AddressError> {
    if text.contains("://") {
        return Err(AddressError::Scheme);
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
    if bare(text).parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressError::Brackets);
    }
    let is_v6 = host.starts_with('[') && bare(host).parse::<Ipv6Addr>().is_ok();
    if !is_v6 && (host.contains(':') || !is_host(host)) {
        return Err(AddressError::Host);
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(AddressError::Port);
    }
    Ok(())
}

/// The text itself, checked as [`check`] does; for options.
///
/// # Errors
/// As [`check`].
pub fn parse(text: &str) -> Result<String, AddressError> {
    check(text).map(|()| text.to_owned())
}

/// Why something is no `HOST:PORT`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// There is a scheme.
    #[error("expected HOST:PORT, without `scheme://`")]
    Scheme,
    /// There is no port.
    #[error("expected HOST:PORT, and there is no port")]
    NoPort,
    /// An IPv6 address, in which nobody can tell where the port begins.
    #[error("expected HOST:PORT, with an IPv6 address in brackets as in [::1]:8000")]
    Brackets,
    /// The host is none.
    #[error("expected HOST:PORT, and the host is neither a name nor an address")]
    Host,
    /// The port is none.
    #[error("expected HOST:PORT, with a port from 1 to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_put_around_ipv6_addresses_alone_and_once() {
        for (host, expected) in [
            ("localhost", "localhost:8000"),
            ("127.0.0.1", "127.0.0.1:8000"),
            ("::1", "[::1]:8000"),
            ("[::1]", "[::1]:8000"),
            ("fe80::1", "[fe80::1]:8000"),
        ] {
            assert_eq!(host_port(host, 8000), expected);
            check(expected).unwrap();
        }
        assert_eq!((bare("[::1]"), bare("::1"), bare("host")), ("::1", "::1", "host"));
        // What is none is shown as it was given.
        assert_eq!(host_port("http://host", 80), "http://host:80");
    }

    #[test]
    fn what_is_no_address_is_refused_for_what_it_is() {
        for right in ["localhost:8001", "10.0.0.7:1", "[::1]:65535", "worker_1.example.org:80"] {
            assert_eq!(parse(right).as_deref(), Ok(right));
        }
        for (wrong, reason) in [
            ("", AddressError::NoPort),
            ("localhost", AddressError::NoPort),
            ("localhost:", AddressError::Port),
            ("localhost:x", AddressError::Port),
            ("localhost:0", AddressError::Port),
            ("localhost:99999", AddressError::Port),
            ("http://localhost:8000", AddressError::Scheme),
            (":80", AddressError::Host),
            ("a b:1", AddressError::Host),
            ("127.0.0.1:9\x1b]0;owned\x07:9", AddressError::Host),
            ("host:80/path:1", AddressError::Host),
            ("[host]:80", AddressError::Host),
            ("::1:18001", AddressError::Brackets),
            ("::1", AddressError::Brackets),
            ("[::1]", AddressError::Brackets),
            ("fe80::1:2:3:4:8000", AddressError::Brackets),
        ] {
            assert_eq!(check(wrong), Err(reason), "{wrong:?}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for right in ["localhost", "10.0.0.1", "::1", "a.b-c"] {
            assert!(is_host(right), "{right}");
        }
        for wrong in ["", "host:80", "[::1]", "a b", "http://host", "ä"] {
            assert!(!is_host(wrong), "{wrong}");
        }
    }
}
