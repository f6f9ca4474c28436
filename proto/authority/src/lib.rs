//! A development authority: certificates for the parties of a service, without anything but this program.
//!
//! **What.** An [`Authority`] is a key and the certificate that everyone trusts. It issues certificates that name their holder's
//! role and, for those who are connected to, the hosts that they answer for.
//!
//! **When to use.** For a service whose machines are one operator's. Whoever runs an authority already has it issue
//! certificates of the same shape: the role as the URI `shardproof://ROLE/NAME` among the subject alternative names.
//!
//! **Key types.** [`Authority`], [`Leaf`], [`Issued`].
//!
//! An authority is named after its key. Nothing but the key has to be read to issue a certificate, and the certificates of two
//! authorities cannot be taken for each other's by their names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use shardproof_common::files;
use shardproof_proto::transport::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Subject};
use thiserror::Error;
use time::OffsetDateTime;

/// The authority's key, beside its certificate, and nowhere else.
pub const AUTHORITY_KEY_FILE: &str = "ca.key";
/// How long an authority's certificate is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * DAY);
/// Clocks differ: what is issued now is valid a little earlier.
const BACKDATED: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 3600;

/// A key that certificates are signed with.
pub struct Authority {
    key: KeyPair,
    certificate: String,
}

/// What a certificate is issued for.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Who holds it.
    pub subject: Subject,
    /// Host names and IP addresses that its holder is connected to at; clients need none.
    pub hosts: Vec<String>,
    /// When it becomes valid.
    pub not_before: OffsetDateTime,
    /// When it ceases to be.
    pub not_after: OffsetDateTime,
}

impl Leaf {
    /// Valid from now on.
    pub fn new(subject: Subject, hosts: Vec<String>, validity: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { subject, hosts, not_before: now - BACKDATED, not_after: now + validity }
    }
}

/// A certificate with its key, PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    authority: String,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = params(&key);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { key, certificate })
    }

    /// Makes one and writes its certificate and key into `directory`. An authority that is there already is not replaced: every
    /// certificate that it issued would be worthless.
    ///
    /// # Errors
    /// When there is one, or the files cannot be written.
    pub fn create(directory: &Path) -> Result<Self, AuthorityError> {
        let authority = Self::generate()?;
        make_directory(directory)?;
        write_secret(&directory.join(AUTHORITY_KEY_FILE), &authority.key.serialize_pem())?;
        write_new(&directory.join(AUTHORITY_FILE), &authority.certificate)?;
        Ok(authority)
    }

    /// The one in `directory`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| AuthorityError::Missing { path, source })
        };
        let (key, certificate) = (read(AUTHORITY_KEY_FILE)?, read(AUTHORITY_FILE)?);
        let key = KeyPair::from_pem(&key)
            .map_err(|source| AuthorityError::Key { path: directory.join(AUTHORITY_KEY_FILE), source })?;
        Ok(Self { key, certificate })
    }

    /// The certificate that everyone trusts, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate with a key of its own.
    ///
    /// # Errors
    /// When a host is none.
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, AuthorityError> {
        let mut issued = CertificateParams::new(leaf.hosts.clone())
            .map_err(|source| AuthorityError::Host { hosts: leaf.hosts.join(", "), source })?;
        let uri = leaf.subject.uri().try_into().map_err(AuthorityError::Make)?;
        issued.subject_alt_names.push(SanType::URI(uri));
        issued.distinguished_name = rcgen::DistinguishedName::new();
        issued.distinguished_name.push(DnType::CommonName, leaf.subject.name.as_str());
        issued.distinguished_name.push(DnType::OrganizationalUnitName, leaf.subject.party.as_str());
        issued.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Workers and the coordinator are connected to and connect to others.
        issued.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        issued.use_authority_key_identifier_extension = true;
        (issued.not_before, issued.not_after) = (leaf.not_before, leaf.not_after);
        let key = KeyPair::generate()?;
        let certificate = issued.signed_by(&key, &Issuer::new(params(&self.key), &self.key))?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem(), authority: self.certificate.clone() })
    }
}

impl Issued {
    /// Writes `ca.pem`, `cert.pem` and `key.pem`, which only their owner can read, into `directory`. Nothing is replaced.
    ///
    /// # Errors
    /// When one of them is there, or cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), AuthorityError> {
        make_directory(directory)?;
        for name in [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE] {
            let path = directory.join(name);
            if path.exists() {
                return Err(AuthorityError::Exists { path });
            }
        }
        write_secret(&directory.join(KEY_FILE), &self.key)?;
        write_new(&directory.join(CERTIFICATE_FILE), &self.certificate)?;
        write_new(&directory.join(AUTHORITY_FILE), &self.authority)
    }
}

/// What an authority's certificate says; all of it follows from the key, except since when it is valid.
fn params(key: &KeyPair) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = blake3::hash(key.public_key_raw()).to_hex();
    params.distinguished_name.push(DnType::CommonName, format!("shardproof authority {}", &name[..16]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATED, now + AUTHORITY_VALIDITY);
    params
}

fn make_directory(directory: &Path) -> Result<(), AuthorityError> {
    fs::create_dir_all(directory).map_err(|source| AuthorityError::Write { path: directory.to_owned(), source })
}

fn write_secret(path: &Path, text: &str) -> Result<(), AuthorityError> {
    files::create_secret(path, text.as_bytes()).map_err(|source| AuthorityError::of_write(path, source))
}

fn write_new(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let written = fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = written.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| AuthorityError::of_write(path, source))
}

/// What an authority cannot do.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file is there already.
    #[error("{path} is there already and is not replaced: choose another directory, or remove it first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no authority.
    #[error("{path}: {source}: make an authority with `shardproof cert init DIR`")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's key is none.
    #[error("{path}: not a private key in PEM: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A host is none.
    #[error("{hosts}: expected host names and IP addresses: {source}")]
    Host {
        /// What was given.
        hosts: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate cannot be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl AuthorityError {
    fn of_write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::Write { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use shardproof_proto::transport::{Party, Tls};

    use super::*;

    fn leaf(hosts: &[&str]) -> Leaf {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        Leaf::new("shardproof://worker/w1".parse().unwrap(), hosts, Duration::from_secs(DAY))
    }

    #[test]
    fn what_is_issued_loads_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let (home, out) = (directory.path().join("ca"), directory.path().join("w1"));
        Authority::create(&home).unwrap();
        // As another process would.
        let authority = Authority::open(&home).unwrap();
        authority.issue(&leaf(&["localhost", "127.0.0.1", "::1"])).unwrap().write(&out).unwrap();
        let tls = Tls::load(&out).unwrap();
        assert_eq!(tls.subject().unwrap(), &leaf(&[]).subject);
        tls.check_party(&[Party::Worker]).unwrap();
        let refused = tls.check_party(&[Party::Coordinator]).unwrap_err().to_string();
        assert!(refused.contains("worker `w1`") && refused.contains("coordinator"), "{refused}");
        for secret in [home.join(AUTHORITY_KEY_FILE), out.join(KEY_FILE)] {
            assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600, "{secret:?}");
        }
    }

    #[test]
    fn nothing_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path()).unwrap();
        assert!(matches!(Authority::create(directory.path()), Err(AuthorityError::Exists { .. })));
        let out = directory.path().join("out");
        let issued = authority.issue(&leaf(&[])).unwrap();
        issued.write(&out).unwrap();
        let before = fs::read(out.join(KEY_FILE)).unwrap();
        let again = authority.issue(&leaf(&[])).unwrap().write(&out).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(fs::read(out.join(KEY_FILE)).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_issued_is_named() {
        let authority = Authority::generate().unwrap();
        assert!(matches!(authority.issue(&leaf(&["ä"])), Err(AuthorityError::Host { .. })));
        let directory = tempfile::tempdir().unwrap();
        let missing = Authority::open(directory.path()).err().unwrap().to_string();
        assert!(missing.contains("shardproof cert init"), "{missing}");
    }

    #[test]
    fn own_certificates_are_checked_before_they_are_used() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Authority::generate().unwrap(), Authority::generate().unwrap());
        let load = |name: &str, issued: Issued, ca: &Authority| {
            let out = directory.path().join(name);
            issued.write(&out).unwrap();
            fs::write(out.join(AUTHORITY_FILE), ca.certificate()).unwrap();
            Tls::load(&out).map(|_| ()).unwrap_err().to_string()
        };
        let now = OffsetDateTime::now_utc();
        let past = Leaf { not_after: now - Duration::from_secs(60), ..leaf(&[]) };
        let expired = load("expired", ours.issue(&past).unwrap(), &ours);
        assert!(expired.contains("is not valid now") && expired.contains("cert issue"), "{expired}");
        let future = Leaf { not_before: now + Duration::from_secs(600), ..leaf(&[]) };
        assert!(load("early", ours.issue(&future).unwrap(), &ours).contains("is not valid now"));
        let foreign = load("foreign", theirs.issue(&leaf(&[])).unwrap(), &ours);
        assert!(foreign.contains("is not from the authority"), "{foreign}");
    }
}
