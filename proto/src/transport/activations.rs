//! A boundary on its way from one shard to the next: a header, then chunks of the canonical encoding.

use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::bytes::Bytes;
use shardproof_common::ids::Digest;
use tonic::{Code, Request, Status, Streaming};

use super::Channel;
use super::artifacts::chunks_of;
use crate::v1::activation::Part;
use crate::v1::activations_client::ActivationsClient;
use crate::v1::{Activation, ActivationHeader};

/// Sends a boundary and waits until the receiver has spooled it. `header.size` and `header.digest` are set here.
///
/// # Errors
/// The receiver's refusal, or `DEADLINE_EXCEEDED` when it does not take the boundary within `deadline`.
pub async fn deliver(
    channel: Channel,
    mut header: ActivationHeader,
    encoding: Bytes,
    deadline: Duration,
) -> Result<(), Status> {
    header.size = encoding.len() as u64;
    header.digest = crate::convert::digest_bytes(Digest::of(&encoding));
    header.deadline_ms = deadline.as_millis() as u64;
    let first = Activation { part: Some(Part::Header(header)) };
    let chunks = chunks_of(encoding).map(|chunk| Activation { part: Some(Part::Chunk(chunk)) });
    let parts: Vec<_> = std::iter::once(first).chain(chunks).collect();
    let mut request = Request::new(futures::stream::iter(parts));
    request.set_timeout(deadline);
    ActivationsClient::new(channel).deliver(request).await?;
    Ok(())
}

/// Whether `code` says no more than that nobody was there, or that the connection broke.
pub fn nobody_there(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::Aborted)
}

/// Whether what was refused with `code` may be taken later: nobody was there, or the one who was there did not know its shard or
/// its neighbours yet.
pub fn may_pass(code: Code) -> bool {
    nobody_there(code) || matches!(code, Code::PermissionDenied | Code::FailedPrecondition)
}

/// Receives the header of a boundary.
///
/// # Errors
/// `INVALID_ARGUMENT` when the stream does not begin with one, `RESOURCE_EXHAUSTED` when it announces more than `limit`
/// bytes.
pub async fn receive_header(stream: &mut Streaming<Activation>, limit: u64) -> Result<ActivationHeader, Status> {
    let Some(Activation { part: Some(Part::Header(header)) }) = stream.message().await? else {
        return Err(Status::invalid_argument("activation: expected a header first"));
    };
    if header.size > limit {
        return Err(Status::resource_exhausted(format!("activation: {} bytes, {limit} allowed", header.size)));
    }
    Ok(header)
}

/// The same stream, which ends with `ABORTED` where nothing comes for as long as `idle`. The run may be sent again.
pub fn while_it_flows<S>(stream: S, idle: Duration) -> impl Stream<Item = Result<Activation, Status>> + Unpin
where
    S: Stream<Item = Result<Activation, Status>>,
{
    let late = move |_| Err(Status::aborted(format!("activation: nothing came for {} s", idle.as_secs())));
    Box::pin(tokio_stream::StreamExt::timeout(stream, idle).map(move |part| part.unwrap_or_else(late)))
}

/// Receives the encoding that `header` announced.
///
/// # Errors
/// When size or digest are not the announced ones, or a chunk brings nothing.
pub async fn receive_encoding(
    stream: &mut (impl Stream<Item = Result<Activation, Status>> + Unpin),
    header: &ActivationHeader,
) -> Result<Vec<u8>, Status> {
    let expected = crate::convert::digest("digest", &header.digest)?;
    let mut encoding = Vec::new();
    while let Some(message) = stream.next().await {
        let Some(Part::Chunk(chunk)) = message?.part else {
            return Err(Status::invalid_argument("activation: expected chunks after the header"));
        };
        if chunk.is_empty() {
            return Err(Status::invalid_argument("activation: an empty chunk"));
        }
        if (encoding.len() + chunk.len()) as u64 > header.size {
            return Err(Status::invalid_argument(format!("activation: more than the {} bytes announced", header.size)));
        }
        encoding.extend_from_slice(&chunk);
    }
    if encoding.len() as u64 != header.size || Digest::of(&encoding) != expected {
        return Err(Status::data_loss("activation: the content is not the one announced"));
    }
    Ok(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_does_not_flow_ends() {
        let encoding = Bytes::from_static(b"encoding");
        let header = ActivationHeader {
            size: 8,
            digest: crate::convert::digest_bytes(Digest::of(&encoding)),
            ..Default::default()
        };
        let chunks = chunks_of(encoding).map(|chunk| Ok(Activation { part: Some(Part::Chunk(chunk)) }));
        let whole: Vec<Result<Activation, Status>> = chunks.collect();
        let idle = Duration::from_millis(20);
        let mut stalled = while_it_flows(futures::stream::iter(whole.clone()).chain(futures::stream::pending()), idle);
        let refused = receive_encoding(&mut stalled, &header).await.unwrap_err();
        assert!(refused.code() == Code::Aborted && may_pass(refused.code()), "{refused:?}");
        let nothing = futures::stream::repeat_with(|| Ok(Activation { part: Some(Part::Chunk(Bytes::new())) }));
        let refused = receive_encoding(&mut while_it_flows(nothing, idle), &header).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let mut flowing = while_it_flows(futures::stream::iter(whole), idle);
        assert_eq!(receive_encoding(&mut flowing, &header).await.unwrap(), b"encoding");
    }
}
