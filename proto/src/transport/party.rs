//! Who somebody is, as a certificate or a token says it.
//!
//! A certificate names its holder in one URI among its subject alternative names, `shardproof://PARTY/NAME`. A URI can neither
//! be mistaken for a host name, which the same extension holds, nor be chosen by the holder: the authority signs it. The
//! price is that an authority has to be told what it issues a certificate for; one that was made for something else names no
//! party and opens nothing here.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// The scheme of the URI that names the holder of a certificate.
const SCHEME: &str = "shardproof://";
/// Longest name, characters.
const LONGEST_NAME: usize = 64;

/// What somebody is in a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// Acts for the model's owner.
    Coordinator,
    /// Holds a shard.
    Worker,
    /// Asks for runs, proofs and bundles.
    Client,
    /// A client that may also decide who works here and what is kept.
    Admin,
}

impl Party {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::Worker, Self::Client, Self::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Party {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let found = Self::ALL.into_iter().find(|party| party.as_str() == text);
        found.ok_or_else(|| SubjectError::Party(text.chars().take(LONGEST_NAME).collect()))
    }
}

/// Several parties, any of which will do, in words.
pub(super) fn words(parties: &[Party]) -> String {
    parties.iter().map(|party| party.as_str()).collect::<Vec<_>>().join(" or ")
}

/// The name of a holder: 1 to 64 letters, digits, dots, hyphens and underscores, so that it can stand in a log line, in a file
/// with a line for each, and in a URI as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SubjectError::Name)
        }
    }
}

/// The holder of a certificate or token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// What it is.
    pub party: Party,
    /// Which one.
    pub name: Name,
}

impl Subject {
    /// How a certificate names it.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.party, self.name)
    }

    /// The holder of a certificate that has been verified.
    ///
    /// # Errors
    /// When it names no holder, several, or one that is none of ours.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, SubjectError> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| SubjectError::Certificate)?;
        let mut named = certificate.valid_uri_names().filter(|uri| uri.starts_with(SCHEME));
        let uri = named.next().ok_or(SubjectError::Nobody)?;
        if named.next().is_some() {
            return Err(SubjectError::Several);
        }
        uri.parse()
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(uri: &str) -> Result<Self, SubjectError> {
        let rest = uri.strip_prefix(SCHEME).ok_or(SubjectError::Nobody)?;
        let (party, name) = rest.split_once('/').ok_or(SubjectError::Name)?;
        Ok(Self { party: party.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.party, self.name)
    }
}

/// Why a certificate or token names no holder.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubjectError {
    /// The certificate does not parse.
    #[error("the certificate cannot be read")]
    Certificate,
    /// It was made for something else.
    #[error("the certificate names no role: issue one with `shardproof cert issue --role ROLE`")]
    Nobody,
    /// It names more than one holder, and there is no telling which is meant.
    #[error("the certificate names several roles: issue one with a single role")]
    Several,
    /// Not one of the parties.
    #[error("expected coordinator, worker, client or admin, found `{0}`")]
    Party(String),
    /// Not a name.
    #[error("a name has 1 to {LONGEST_NAME} letters, digits, dots, hyphens and underscores")]
    Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for party in Party::ALL {
            let subject = Subject { party, name: "a-1.b_c".parse().unwrap() };
            assert_eq!(subject.uri().parse::<Subject>().unwrap(), subject);
        }
    }

    #[test]
    fn what_is_no_subject_is_refused_for_what_it_is() {
        let refused = |text: &str| text.parse::<Subject>().unwrap_err();
        assert_eq!(refused("https://worker/a"), SubjectError::Nobody);
        assert_eq!(refused("shardproof://worker"), SubjectError::Name);
        assert_eq!(refused("shardproof://owner/a"), SubjectError::Party("owner".to_owned()));
        assert_eq!(refused("shardproof://Worker/a"), SubjectError::Party("Worker".to_owned()));
        for name in ["", "a/b", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(refused(&format!("shardproof://worker/{name}")), SubjectError::Name, "{name:?}");
        }
    }
}
