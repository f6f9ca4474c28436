//! A boundary on its way from one shard to the next: a header, then chunks of the canonical encoding.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::bytes::Bytes;
use shardproof_common::ids::Digest;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status, Streaming};

use super::artifacts::chunks_of;
use super::{CONNECTION_WINDOW_BYTES, Channel};
use crate::v1::activation::Part;
use crate::v1::activations_client::ActivationsClient;
use crate::v1::{Activation, ActivationHeader};

/// Longest that a run may take, whatever its header says.
pub const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
/// Bytes on their way over one connection at a time, at most; of one larger boundary all.
const UNDER_WAY_BYTES: u32 = CONNECTION_WINDOW_BYTES / 2;

/// The way to a neighbour, over one connection.
///
/// What the neighbour has no place for yet waits in the connection's window. Once that is full nothing gets through, not even
/// what there is a place for. So no more is sent at a time than the window holds.
#[derive(Clone)]
pub struct Hop {
    address: Arc<str>,
    channel: Channel,
    room: Arc<Semaphore>,
}

impl Hop {
    /// Over a channel to `address` that nothing else uses.
    pub fn new(address: &str, channel: Channel) -> Self {
        Self { address: address.into(), channel, room: Arc::new(Semaphore::new(UNDER_WAY_BYTES as usize)) }
    }

    /// Where the neighbour listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a boundary and waits until the receiver has spooled it. `header.size` and `header.digest` are set here.
    ///
    /// # Errors
    /// The receiver's refusal, or `DEADLINE_EXCEEDED` when it does not take the boundary within `deadline`.
    pub async fn deliver(
        &self,
        mut header: ActivationHeader,
        encoding: Bytes,
        deadline: Duration,
    ) -> Result<(), Status> {
        let until = Instant::now() + deadline;
        let bytes = u32::try_from(encoding.len()).unwrap_or(u32::MAX).min(UNDER_WAY_BYTES);
        let room = timeout_at(until, self.room.acquire_many(bytes)).await;
        let late = |_| Status::deadline_exceeded("activation: what was sent before it was not taken in time");
        let _room = room.map_err(late)?.map_err(|closed| Status::internal(closed.to_string()))?;
        let left = until.saturating_duration_since(Instant::now());
        header.size = encoding.len() as u64;
        header.digest = crate::convert::digest_bytes(Digest::of(&encoding));
        header.deadline_ms = left.as_millis() as u64;
        let first = Activation { part: Some(Part::Header(header)) };
        let chunks = chunks_of(encoding).map(|chunk| Activation { part: Some(Part::Chunk(chunk)) });
        let parts: Vec<_> = std::iter::once(first).chain(chunks).collect();
        let mut request = Request::new(futures::stream::iter(parts));
        request.set_timeout(left);
        ActivationsClient::new(self.channel.clone()).deliver(request).await?;
        Ok(())
    }
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
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic::{Response, async_trait};

    use super::*;
    use crate::transport::{Party, STREAM_WINDOW_BYTES, Transport};
    use crate::v1::Delivered;
    use crate::v1::activations_server::{Activations, ActivationsServer};

    /// Takes boundaries one after the other.
    struct OnePlace(Semaphore);

    #[async_trait]
    impl Activations for OnePlace {
        async fn deliver(&self, request: Request<Streaming<Activation>>) -> Result<Response<Delivered>, Status> {
            let mut stream = request.into_inner();
            let header = receive_header(&mut stream, u64::MAX).await?;
            let _place = self.0.acquire().await.unwrap();
            receive_encoding(&mut while_it_flows(stream, Duration::from_secs(5)), &header).await?;
            Ok(Response::new(Delivered::default()))
        }
    }

    #[tokio::test]
    async fn boundaries_that_wait_for_a_place_do_not_keep_out_the_one_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .add_service(ActivationsServer::new(OnePlace(Semaphore::new(1))).max_decoding_message_size(usize::MAX));
        let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let minute = Duration::from_secs(60);
        let hop = Transport::plaintext().hop(&address, Party::Worker, minute).unwrap();
        // Together more than twice the window, and one that is larger than all that may be under way.
        let sizes = [vec![3 << 20; 24], vec![(UNDER_WAY_BYTES as usize) + 1], vec![0]].concat();
        let delivered = sizes.into_iter().map(|size| {
            let encoding = Bytes::from(vec![7; size]);
            hop.deliver(ActivationHeader::default(), encoding, minute)
        });
        for delivered in futures::future::join_all(delivered).await {
            delivered.unwrap();
        }
        server.abort();
    }

    #[tokio::test]
    async fn what_is_sent_before_is_waited_for_no_longer_than_the_deadline() {
        let address = "127.0.0.1:1";
        let hop = Hop::new(address, Transport::plaintext().lazy_channel(address, Party::Worker).unwrap());
        let _all = hop.room.acquire_many(UNDER_WAY_BYTES).await.unwrap();
        let late = hop.deliver(ActivationHeader::default(), Bytes::from_static(b"e"), Duration::from_millis(20)).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    }

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
