//! What listens where, and what that exposes.
//!
//! Without TLS whoever is on the network reads the activations and speaks for anyone. So a program without it listens on this
//! machine's own addresses only, unless it is told in so many words that the network may be trusted.

use std::net::IpAddr;

use thiserror::Error;

/// Whether `host` is this machine for everyone who asks for it: a loopback address, or the name that stands for one.
pub fn is_loopback_host(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How far a program is open.
#[derive(Clone, Copy, Debug)]
pub struct Exposure {
    /// The address that it listens on.
    pub address: IpAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it was told that the network may be trusted.
    pub insecure: bool,
    /// Whether it takes clients' tokens.
    pub tokens: bool,
}

impl Exposure {
    /// Checks that the program may listen there, and warns, once, where only its being told so allows it.
    ///
    /// # Errors
    /// [`Exposed`] where it may not.
    pub fn check(self) -> Result<(), Exposed> {
        let Self { address, tls, insecure, tokens } = self;
        if tls || address.is_loopback() {
            return Ok(());
        }
        if tokens {
            return Err(Exposed::Tokens { address });
        }
        if !insecure {
            return Err(Exposed::InTheClear { address });
        }
        tracing::warn!(
            "INSECURE: listening on {address} without TLS. Whoever is on this network reads every activation, can take part as \
             a worker or client, and can change what others send. Give --tls DIR unless nobody else is on it"
        );
        Ok(())
    }
}

/// Why a program does not listen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Exposed {
    /// Beyond this machine without TLS.
    #[error(
        "{address} can be reached from other machines, and without TLS whoever is on the network reads and changes what is \
         sent: give --tls DIR, or --insecure where nobody else is on it"
    )]
    InTheClear {
        /// Where it would listen.
        address: IpAddr,
    },
    /// Tokens would travel in the clear.
    #[error(
        "{address} can be reached from other machines, and --tokens in the clear would give them away: give --tls DIR"
    )]
    Tokens {
        /// Where it would listen.
        address: IpAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for here in ["localhost", "127.0.0.1", "127.8.9.10", "::1", "[::1]"] {
            assert!(is_loopback_host(here), "{here}");
        }
        for there in ["0.0.0.0", "::", "10.0.0.1", "localhost.", "localhost.evil.org", "127.0.0.1.evil.org", "", "[::1"]
        {
            assert!(!is_loopback_host(there), "{there}");
        }
    }

    #[test]
    fn each_way_out_is_told() {
        let address = IpAddr::from([0, 0, 0, 0]);
        let far = Exposure { address, tls: false, insecure: false, tokens: false };
        let refused = far.check().unwrap_err();
        assert_eq!(refused, Exposed::InTheClear { address });
        assert!(refused.to_string().contains("--tls") && refused.to_string().contains("--insecure"));
        Exposure { tls: true, ..far }.check().unwrap();
        Exposure { insecure: true, ..far }.check().unwrap();
        Exposure { address: IpAddr::from([127, 0, 0, 1]), ..far }.check().unwrap();
        assert_eq!(Exposure { insecure: true, tokens: true, ..far }.check(), Err(Exposed::Tokens { address }));
        Exposure { tls: true, tokens: true, ..far }.check().unwrap();
    }
}
