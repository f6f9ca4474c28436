//! Tokens for clients that have no certificate.
//!
//! A token is 32 random bytes. The coordinator knows its BLAKE3 digest only, so its file gives nobody access, and compares
//! digests in constant time; with that much randomness neither salt nor stretching would add anything. A token is named and
//! is its holder's alone: whoever is to lose access loses a line of the file, and the others keep theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};

use super::party::{Name, Party, Subject};

/// What a token begins with, so that it is known for one wherever it turns up.
const PREFIX: &str = "sp_";
const SCHEME: &str = "Bearer ";
const SECRET_BYTES: usize = 32;

/// A client's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one.
    pub fn generate() -> Self {
        let secret: [u8; SECRET_BYTES] = rand::random();
        Self(format!("{PREFIX}{}", hex::encode(secret)))
    }

    /// The secret itself, to be shown once or sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the coordinator keeps of it.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(blake3::hash(self.0.as_bytes()))
    }

    /// The value of the `authorization` header that shows it.
    pub(super) fn header(&self) -> MetadataValue<Ascii> {
        let header = format!("{SCHEME}{}", self.0).parse::<MetadataValue<Ascii>>();
        let mut header = header.expect("a token is made of ASCII letters and digits");
        header.set_sensitive(true);
        header
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let secret = text.strip_prefix(PREFIX).ok_or(TokenError::NoToken)?;
        let mut bytes = [0; SECRET_BYTES];
        hex::decode_to_slice(secret, &mut bytes).map_err(|_| TokenError::NoToken)?;
        // One spelling only: upper-case digits would have another digest.
        Ok(Self(format!("{PREFIX}{}", hex::encode(bytes))))
    }
}

/// The BLAKE3 digest of a token; comparing two takes the same time whatever they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDigest(blake3::Hash);

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The tokens that a coordinator takes.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<(TokenDigest, Subject)>);

impl Tokens {
    /// Reads a file with a token a line: name, role (client or admin), digest. Empty lines and those that begin with `#` are
    /// skipped.
    ///
    /// # Errors
    /// When it cannot be read, a line is no token, or a name is there twice.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
        let in_line = |number: usize, reason: String| TokenError::Line { path: path.to_owned(), number, reason };
        let mut tokens = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (digest, subject) = parse_line(line).map_err(|reason| in_line(index + 1, reason))?;
            if tokens.0.iter().any(|(_, known)| known.name == subject.name) {
                return Err(in_line(index + 1, format!("a second token named `{}`", subject.name)));
            }
            tokens.0.push((digest, subject));
        }
        Ok(tokens)
    }

    /// The line that a file holds for a token.
    pub fn line(subject: &Subject, digest: TokenDigest) -> String {
        format!("{} {} {digest}", subject.name, subject.party)
    }

    /// Whose token is in an `authorization` header. All are compared, so that the time tells nothing of which one it is.
    pub(super) fn holder(&self, header: &str) -> Option<&Subject> {
        let shown = header.strip_prefix(SCHEME)?.parse::<Token>().ok()?.digest();
        self.0.iter().fold(None, |found, (digest, subject)| if *digest == shown { Some(subject) } else { found })
    }
}

fn parse_line(line: &str) -> Result<(TokenDigest, Subject), String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, party, digest] = fields[..] else {
        return Err("expected a name, a role and a digest: `shardproof token new NAME` prints such a line".to_owned());
    };
    let name: Name = name.parse().map_err(|error| format!("{error}"))?;
    let party = match party.parse() {
        Ok(party @ (Party::Client | Party::Admin)) => party,
        _ => return Err(format!("`{party}`: a token's role is client or admin")),
    };
    let digest = blake3::Hash::from_hex(digest).map_err(|_| "a digest has 64 hexadecimal digits".to_owned())?;
    Ok((TokenDigest(digest), Subject { party, name }))
}

/// What can be wrong with tokens.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Not a token.
    #[error("that is no token: expected {PREFIX} and 64 hexadecimal digits, as `shardproof token new` prints it")]
    NoToken,
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is none.
    #[error("{path}:{number}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Tokens, TokenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        Tokens::read(&path)
    }

    #[test]
    fn a_token_is_its_holders_and_nobody_elses() {
        let (ours, theirs) = (Token::generate(), Token::generate());
        let subject: Subject = "shardproof://admin/ours".parse().unwrap();
        let line = Tokens::line(&subject, ours.digest());
        assert!(!line.contains(ours.reveal()), "the file must not hold the secret");
        let tokens = read(&format!("# tokens\n\n{line}\n")).unwrap();
        let holder = |text: &str| tokens.holder(text);
        assert_eq!(holder(&format!("Bearer {}", ours.reveal())), Some(&subject));
        for wrong in
            [format!("Bearer {}", theirs.reveal()), ours.reveal().to_owned(), format!("Bearer {}", ours.digest())]
        {
            assert_eq!(holder(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lines_that_are_no_tokens_are_named() {
        let digest = Token::generate().digest();
        let cases = [
            ("alice client".to_owned(), ":1: expected a name"),
            (format!("\na/b client {digest}"), ":2: a name has"),
            (format!("alice worker {digest}"), ":1: `worker`"),
            ("alice client 00".to_owned(), ":1: a digest has"),
            (format!("alice client {digest}\nalice admin {digest}"), ":2: a second token"),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!("secret".parse::<Token>(), Err(TokenError::NoToken)));
    }
}
