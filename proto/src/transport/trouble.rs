//! What a failed connection means, and what to do about it.
//!
//! A handshake that fails says why deep in a chain of causes that begins with "transport error". What this side found wrong
//! with the server's certificate is there as a value. What the server found wrong with ours comes as an alert after our side
//! has taken the handshake for done, and HTTP/2 keeps only its text: that one is looked for by its words, which are the
//! library's.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError};

use super::tls::WrongServer;

/// What is wrong with a connection, as far as what the two sides speak is the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server's certificate is not valid at this time.
    ServerExpired,
    /// The server's certificate is for other hosts.
    ServerName {
        /// The host that was asked for.
        expected: String,
        /// The hosts that it is for.
        presented: Vec<String>,
    },
    /// The server's certificate is from another authority.
    ServerForeign,
    /// The server is another party, or none.
    ServerParty(String),
    /// Something else about the server's certificate.
    Server(String),
    /// The server says that our certificate is not valid at this time.
    OwnExpired,
    /// The server says that our certificate is from another authority.
    OwnForeign,
    /// The server refuses our certificate for another reason.
    Own(String),
    /// The server does not speak TLS.
    ServerInClear,
    /// The server does not speak HTTP/2 in the clear.
    OtherProtocol,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ISSUE: &str = "`shardproof cert issue`";
        match self {
            Self::ServerExpired => write!(f, "the server's certificate is not valid now: issue a new one there with {ISSUE}"),
            Self::ServerName { expected, presented } => write!(
                f,
                "the server's certificate is for {}, not for {expected}: use one of those names, or issue one there with \
                 {ISSUE} --host {expected}",
                if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") }
            ),
            Self::ServerForeign => f.write_str(
                "the server's certificate is from another authority: both sides need certificates of the same one, and its \
                 ca.pem",
            ),
            Self::ServerParty(found) => write!(f, "{found}: check the address, or issue the right certificate there"),
            Self::Server(reason) => write!(f, "the server's certificate is refused ({reason})"),
            Self::OwnExpired => {
                write!(f, "the server says that our certificate is not valid now: issue a new one with {ISSUE}")
            }
            Self::OwnForeign => f.write_str(
                "the server does not know the authority of our certificate: both sides need certificates of the same one",
            ),
            Self::Own(reason) => write!(f, "the server refuses our certificate ({reason})"),
            Self::ServerInClear => {
                f.write_str("the server does not speak TLS: start it with --tls, or leave --tls out here")
            }
            Self::OtherProtocol => f.write_str(
                "what listens there does not speak with us in the clear: it may speak TLS, so give --tls DIR, or be another \
                 program, so check the address",
            ),
        }
    }
}

/// What both sides speak, if that is the reason why a connection or call failed.
pub fn trouble(error: &(dyn Error + 'static)) -> Option<Trouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        let text = error.to_string();
        if let Some(found) = tls.and_then(of_tls).or_else(|| of_alert(&text)).or_else(|| of_frame(&text)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn of_tls(error: &rustls::Error) -> Option<Trouble> {
    match error {
        rustls::Error::InvalidCertificate(error) => Some(of_certificate(error)),
        rustls::Error::AlertReceived(alert) => of_alert(&format!("{ALERT}{alert:?}")),
        rustls::Error::InvalidMessage(_) => Some(Trouble::ServerInClear),
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> Trouble {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Trouble::ServerExpired,
        CertificateError::NotValidForNameContext { expected, presented } => Trouble::ServerName {
            expected: expected.to_str().into_owned(),
            // As the library shows them: DnsName("localhost"), IpAddress(127.0.0.1), and URIs, which are no hosts.
            presented: presented.iter().filter_map(|name| host(name)).collect(),
        },
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Trouble::ServerForeign,
        CertificateError::Other(other) => match other.0.downcast_ref::<WrongServer>() {
            Some(wrong) => Trouble::ServerParty(wrong.to_string()),
            None => Trouble::Server(other.to_string()),
        },
        other => Trouble::Server(other.to_string()),
    }
}

fn host(presented: &str) -> Option<String> {
    let inner = presented.strip_prefix("DnsName(").or_else(|| presented.strip_prefix("IpAddress("))?;
    Some(inner.trim_end_matches(')').trim_matches('"').to_owned())
}

/// How the library begins the message of an alert that the other side sent.
const ALERT: &str = "received fatal alert: ";

fn of_alert(text: &str) -> Option<Trouble> {
    let (_, alert) = text.split_once(ALERT)?;
    let is = |known: AlertDescription| alert.starts_with(&format!("{known:?}"));
    Some(match () {
        () if is(AlertDescription::CertificateExpired) => Trouble::OwnExpired,
        () if is(AlertDescription::UnknownCA) || is(AlertDescription::DecryptError) => Trouble::OwnForeign,
        () => Trouble::Own(alert.split_whitespace().next().unwrap_or_default().to_owned()),
    })
}

/// What HTTP/2 says of an answer that is none. The first bytes of a TLS alert, or of text as HTTP/1.1 and SSH begin with, announce
/// a frame of a megabyte or more, where 16 KiB are allowed.
const NO_FRAME: &str = "connection error detected: frame with invalid size";

fn of_frame(text: &str) -> Option<Trouble> {
    (text == NO_FRAME).then_some(Trouble::OtherProtocol)
}

/// The cause that says most: what TLS has to say, or the innermost one, since connection errors come wrapped several times.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    if let Some(trouble) = trouble(error) {
        return trouble.to_string();
    }
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Wrapped(#[source] io::Error);

    fn found(error: rustls::Error) -> Option<Trouble> {
        trouble(&Wrapped(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn causes_are_found_below_what_wraps_them() {
        let certificate = |error| found(rustls::Error::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::Expired), Some(Trouble::ServerExpired));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Some(Trouble::ServerForeign));
        let alert = |alert| found(rustls::Error::AlertReceived(alert));
        assert_eq!(alert(AlertDescription::CertificateExpired), Some(Trouble::OwnExpired));
        assert_eq!(alert(AlertDescription::UnknownCA), Some(Trouble::OwnForeign));
        assert!(matches!(alert(AlertDescription::BadCertificate), Some(Trouble::Own(_))));
    }

    #[test]
    fn an_alert_is_found_by_its_words_where_only_they_are_left() {
        let error = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        let text = format!("h2 protocol error: {error}");
        assert_eq!(trouble(&io::Error::other(text)), Some(Trouble::OwnExpired));
        assert_eq!(trouble(&io::Error::other("connection refused")), None);
    }

    #[test]
    fn what_is_no_tls_trouble_is_told_by_its_innermost_cause() {
        let error = Wrapped(io::Error::new(io::ErrorKind::ConnectionRefused, "refused"));
        assert_eq!(explain(&error), "refused");
    }
}
