//! TLS between the parties: who is believed to be whom, and what is said when nobody is.
//!
//! A directory holds all that a party needs: `ca.pem`, the authority that everyone trusts, `cert.pem` and `key.pem`. Both sides
//! of a connection are verified against that one authority. A client also compares the role in the server's certificate with
//! the one that it means to talk to: a worker whose machine shares a host name with the coordinator must not pass for it. A
//! server takes connections without a certificate as well, because a client may have a token instead and a health check has
//! neither; what such a peer may call, the [gate](super::gate) decides. A certificate that is shown and does not verify ends
//! the connection.
//!
//! Own certificates are verified when they are loaded: most of what can be wrong with them shows where it can be mended, and
//! not at the other end of the network. There are no revocation lists: certificates are short-lived, and a key that is lost
//! means a new authority.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, SignatureScheme};
use thiserror::Error;
use tonic::transport::{ClientTlsConfig, Identity};

use super::party::{Party, Subject, SubjectError, words};

/// The authority's certificate.
pub const AUTHORITY_FILE: &str = "ca.pem";
/// A party's certificate.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// The key of a party's certificate.
pub const KEY_FILE: &str = "key.pem";
/// What HTTP/2 is called when protocols are negotiated.
const ALPN_HTTP2: &[u8] = b"h2";

/// What a party has for TLS.
pub struct Tls {
    directory: PathBuf,
    roots: Arc<RootCertStore>,
    own: Option<Own>,
    provider: Arc<CryptoProvider>,
}

/// A certificate with its key.
struct Own {
    subject: Subject,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The same once more, as the client side takes it.
    identity: Identity,
}

impl Tls {
    /// Reads a directory with `ca.pem`, `cert.pem` and `key.pem`. The last two may be missing together: a client that has a token
    /// needs no certificate.
    ///
    /// # Errors
    /// When a file cannot be read, or the certificate is not one of this authority's that is valid now.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = directory.join(AUTHORITY_FILE);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&authority)? {
            roots.add(certificate).map_err(|error| TlsError::authority(&authority, &error))?;
        }
        let roots = Arc::new(roots);
        let own = Own::load(directory, &roots, &provider)?;
        Ok(Self { directory: directory.to_owned(), roots, own, provider })
    }

    /// The holder of the own certificate, if there is one.
    pub fn subject(&self) -> Option<&Subject> {
        self.own.as_ref().map(|own| &own.subject)
    }

    /// Checks that the own certificate is one for `expected`; for a client there may be none.
    ///
    /// # Errors
    /// When it is missing or another party's.
    pub fn check_party(&self, expected: &[Party]) -> Result<(), TlsError> {
        match self.subject() {
            Some(subject) if expected.contains(&subject.party) => Ok(()),
            None if expected.contains(&Party::Client) => Ok(()),
            None => Err(TlsError::NoCertificate { directory: self.directory.clone(), expected: words(expected) }),
            Some(found) => Err(TlsError::OtherParty {
                path: self.directory.join(CERTIFICATE_FILE),
                found: found.clone(),
                expected: words(expected),
            }),
        }
    }

    /// What a server needs. Peers without a certificate get in here and no further than the gate lets them.
    ///
    /// # Errors
    /// When there is no own certificate, or its key is another's.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let own = self.own.as_ref().ok_or_else(|| TlsError::NoCertificate {
            directory: self.directory.clone(),
            expected: "coordinator or worker".to_owned(),
        })?;
        let peers = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| TlsError::authority(&self.directory.join(AUTHORITY_FILE), &error))?;
        let unusable = |source| TlsError::Unusable { path: self.directory.join(KEY_FILE), source };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(peers)
            .with_single_cert(own.chain.clone(), own.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols.push(ALPN_HTTP2.to_vec());
        Ok(Arc::new(config))
    }

    /// What a client needs, with the check that the server is the `expected` party.
    ///
    /// # Errors
    /// When the authority's certificate is of no use.
    pub(super) fn client(&self, expected: Party) -> Result<(ClientTlsConfig, Arc<dyn ServerCertVerifier>), TlsError> {
        let chain = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(|error| TlsError::authority(&self.directory.join(AUTHORITY_FILE), &error))?;
        let config = match &self.own {
            Some(own) => ClientTlsConfig::new().identity(own.identity.clone()),
            None => ClientTlsConfig::new(),
        };
        Ok((config, Arc::new(ServerOfParty { chain, expected })))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("directory", &self.directory)
            .field("subject", &self.subject())
            .finish_non_exhaustive()
    }
}

impl Own {
    fn load(
        directory: &Path,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Self>, TlsError> {
        let (path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        if !path.exists() && !key_path.exists() {
            return Ok(None);
        }
        let (pem, key_pem) = (read(&path)?, read(&key_path)?);
        let chain = certificates(&path)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| TlsError::Pem { path: key_path.clone(), expected: "a private key" })?;
        let [leaf, between @ ..] = chain.as_slice() else {
            return Err(TlsError::Pem { path, expected: "a certificate" });
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| TlsError::authority(&directory.join(AUTHORITY_FILE), &error))?;
        let now = UnixTime::now();
        verifier.verify_client_cert(leaf, between, now).map_err(|source| TlsError::own(&path, source))?;
        let subject = Subject::of(leaf).map_err(|source| TlsError::Subject { path: path.clone(), source })?;
        provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|source| TlsError::Unusable { path: key_path.clone(), source })?;
        Ok(Some(Self { subject, chain, key, identity: Identity::from_pem(pem, key_pem) }))
    }
}

/// Verifies a server's certificate as usual, and then that it is the party that the client means to talk to.
#[derive(Debug)]
struct ServerOfParty {
    chain: Arc<WebPkiServerVerifier>,
    expected: Party,
}

impl ServerCertVerifier for ServerOfParty {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let found = Subject::of(end_entity);
        if found.as_ref().is_ok_and(|subject| subject.party == self.expected) {
            return Ok(verified);
        }
        let error = WrongServer { expected: self.expected, found };
        Err(CertificateError::Other(OtherError(Arc::new(error))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// A server that is another party than the one that was meant.
#[derive(Clone, Debug, Error)]
#[error("expected a {expected} there, found {}", found.as_ref().map_or_else(ToString::to_string, ToString::to_string))]
pub struct WrongServer {
    /// Who was meant.
    pub expected: Party,
    /// Who answered.
    pub found: Result<Subject, SubjectError>,
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Io { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Pem { path: path.to_owned(), expected: "a certificate" }),
    }
}

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}: `--tls` names a directory that `shardproof cert issue --out` made")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path}: expected {expected} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The authority's certificate is of no use.
    #[error("{path}: not a certificate of an authority: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The own certificate's time is over, or has not come.
    #[error("{path} is not valid now ({reason}): issue a new one with `shardproof cert issue`")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it is.
        reason: String,
    },
    /// The own certificate is from another authority.
    #[error(
        "{path} is not from the authority in {AUTHORITY_FILE} beside it: take both from the same `shardproof cert issue`"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The own certificate or key cannot be used.
    #[error("{path} cannot be used: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The own certificate names no holder.
    #[error("{path}: {source}")]
    Subject {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SubjectError,
    },
    /// There is no own certificate, and one is needed.
    #[error("{directory} has no {CERTIFICATE_FILE}: issue one with `shardproof cert issue --role {expected}`")]
    NoCertificate {
        /// The directory.
        directory: PathBuf,
        /// Whose it should be.
        expected: String,
    },
    /// The own certificate is another party's.
    #[error("{path} is for {found}, and this needs one for a {expected}: issue it with `shardproof cert issue --role`")]
    OtherParty {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Subject,
        /// Whose it should be.
        expected: String,
    },
}

impl TlsError {
    fn authority(path: &Path, reason: &impl ToString) -> Self {
        Self::Authority { path: path.to_owned(), reason: reason.to_string() }
    }

    fn own(path: &Path, source: rustls::Error) -> Self {
        use CertificateError as Certificate;
        let path = path.to_owned();
        match source {
            rustls::Error::InvalidCertificate(
                error @ (Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. }),
            ) => Self::Expired { path, reason: error.to_string() },
            rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
                Self::Foreign { path }
            }
            source => Self::Unusable { path, source },
        }
    }
}
