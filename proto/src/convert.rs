//! Between the bytes of the contracts and the types of the system. What does not fit is the sender's error, which the
//! status names.

use prost::bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::receipt::PublicKey;
use tonic::Status;

use crate::v1;

/// A digest field.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, Status> {
    Digest::try_from(bytes).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

/// A run id field.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field.
pub fn run_id(bytes: &[u8]) -> Result<RunId, Status> {
    let bytes = <[u8; 16]>::try_from(bytes)
        .map_err(|_| Status::invalid_argument(format!("run: expected an id of 16 bytes, found {}", bytes.len())))?;
    Ok(RunId::from_bytes(bytes))
}

/// A public key field.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field.
pub fn public_key(bytes: &[u8]) -> Result<PublicKey, Status> {
    let bytes = <[u8; 32]>::try_from(bytes)
        .map_err(|_| Status::invalid_argument(format!("key: expected 32 bytes, found {}", bytes.len())))?;
    Ok(PublicKey::from_bytes(bytes))
}

/// An artifact reference.
///
/// # Errors
/// `INVALID_ARGUMENT` where it is missing or has no digest.
pub fn artifact(reference: Option<&v1::ArtifactRef>) -> Result<Artifact, Status> {
    let reference = reference.ok_or_else(|| Status::invalid_argument("artifact: missing"))?;
    Ok(Artifact { digest: digest("artifact", &reference.digest)?, size: reference.size })
}

/// The reference to an artifact.
pub fn artifact_ref(artifact: Artifact) -> v1::ArtifactRef {
    v1::ArtifactRef { digest: Bytes::copy_from_slice(artifact.digest.as_bytes()), size: artifact.size }
}

/// The bytes of a run id.
pub fn run_bytes(run: RunId) -> Bytes {
    Bytes::copy_from_slice(run.as_bytes())
}

/// The bytes of a digest.
pub fn digest_bytes(digest: Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

/// A value of the system inside a message.
pub fn pack<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value).expect("postcard encodes every type whose sequences know their length").into()
}

/// Reads what [`pack`] wrote, the whole of it.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field.
pub fn unpack<T: DeserializeOwned>(field: &'static str, bytes: &[u8]) -> Result<T, Status> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Status::invalid_argument(format!("{field}: {} bytes too many", rest.len()))),
        Err(error) => Err(Status::invalid_argument(format!("{field}: {error}"))),
    }
}
