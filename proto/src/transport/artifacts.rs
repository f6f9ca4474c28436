//! Artifacts over the wire: fetched with resume, stored with their digest checked.

use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::Stream;
use prost::bytes::Bytes;
use shardproof_common::artifacts::{Artifact, ArtifactError, ArtifactStore, Backing, Outgoing};
use shardproof_common::ids::Digest;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{CHUNK_BYTES, Caller, Channel, Uploads};
use crate::convert;
use crate::v1::artifacts_client::ArtifactsClient;
use crate::v1::artifacts_server::Artifacts;
use crate::v1::{Chunk, FetchRequest, Stored};

/// How long an upload may bring nothing: its file and its place among the caller's are for those that go on. The largest message that
/// is taken by default comes within it at 35 KB/s.
const IDLE: Duration = Duration::from_secs(120);

/// Fetches an artifact into `store` and returns its path. One that is there is read through first: what a disk lost would else
/// never be fetched again. A transfer that breaks off is taken up where it ended, a few times.
///
/// # Errors
/// When the source does not have it, its content is another, or the transfer keeps breaking off.
pub async fn fetch(channel: Channel, store: &ArtifactStore, artifact: Artifact) -> Result<PathBuf, TransferError> {
    let kept = store.clone();
    if spawn_blocking(move || kept.is_whole(artifact)).await.map_err(TransferError::Task)?? {
        return Ok(store.path(artifact.digest));
    }
    let attempt = || fetch_rest(channel.clone(), store, artifact);
    let policy = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(5);
    attempt
        .retry(policy)
        .when(|error: &TransferError| error.is_transient())
        .notify(|error, _| tracing::warn!(artifact = %artifact.digest.short(), %error, "transfer broke off, resuming"))
        .await?;
    let store = store.clone();
    let path = spawn_blocking(move || store.complete(artifact.digest)).await.map_err(TransferError::Task)??;
    Ok(path)
}

/// Fetches an artifact into memory.
///
/// # Errors
/// When the source does not have it, its content is another, or the transfer breaks off.
pub async fn read(channel: Channel, artifact: Artifact) -> Result<Bytes, TransferError> {
    let request = FetchRequest { digest: convert::digest_bytes(artifact.digest), offset: 0 };
    let mut stream = client(channel).fetch(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await? {
        let found = (bytes.len() + chunk.data.len()) as u64;
        if found > artifact.size {
            return Err(TransferError::Size { expected: artifact.size, found });
        }
        bytes.extend_from_slice(&chunk.data);
    }
    let found = Digest::of(&bytes);
    if found == artifact.digest {
        return Ok(bytes.into());
    }
    Err(ArtifactError::Damaged { expected: artifact.digest, found }.into())
}

async fn fetch_rest(channel: Channel, store: &ArtifactStore, artifact: Artifact) -> Result<(), TransferError> {
    let partial = store.partial(artifact.digest);
    let io = |source| TransferError::Store(ArtifactError::Io { path: partial.clone(), source });
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&partial).map_err(io)?;
    let mut offset = file.metadata().map_err(io)?.len();
    if offset > artifact.size {
        file.set_len(0).map_err(io)?;
        offset = 0;
    }
    let request = FetchRequest { digest: convert::digest_bytes(artifact.digest), offset };
    let mut stream = client(channel).fetch(request).await?.into_inner();
    loop {
        let chunk = match stream.message().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(status) => {
                if status.code() == Code::DataLoss {
                    // What has come is not the artifact.
                    file.set_len(0).map_err(io)?;
                }
                return Err(status.into());
            }
        };
        offset += chunk.data.len() as u64;
        if offset > artifact.size {
            return Err(TransferError::Size { expected: artifact.size, found: offset });
        }
        file.write_all(&chunk.data).map_err(io)?;
    }
    if offset == artifact.size { Ok(()) } else { Err(TransferError::Size { expected: artifact.size, found: offset }) }
}

/// Stores bytes at the other side.
///
/// # Errors
/// When the transfer fails or the other side stored something else.
pub async fn store(channel: Channel, bytes: Bytes) -> Result<Artifact, TransferError> {
    let digest = Digest::of(&bytes);
    let size = bytes.len() as u64;
    let chunks: Vec<Chunk> = chunks_of(bytes).map(|data| Chunk { data }).collect();
    let stored = client(channel).store(futures::stream::iter(chunks)).await?.into_inner();
    let found = Digest::try_from(stored.digest.as_ref()).ok();
    if found == Some(digest) { Ok(Artifact { digest, size }) } else { Err(TransferError::Stored { expected: digest }) }
}

/// Cuts bytes into chunks without copying them.
pub(super) fn chunks_of(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    let count = bytes.len().div_ceil(CHUNK_BYTES);
    (0..count).map(move |i| bytes.slice(i * CHUNK_BYTES..((i + 1) * CHUNK_BYTES).min(bytes.len())))
}

fn client(channel: Channel) -> ArtifactsClient<Channel> {
    ArtifactsClient::new(channel).max_decoding_message_size(super::MAX_MESSAGE_BYTES)
}

/// The artifact service over one directory and what is behind it.
#[derive(Clone)]
pub struct ArtifactService {
    store: ArtifactStore,
    backing: Arc<dyn Backing>,
    max_upload_bytes: u64,
    uploads: Uploads,
    idle: Duration,
}

impl ArtifactService {
    /// Serves `store`, which takes uploads of at most `max_upload_bytes`, for as long as `uploads` has room for them.
    pub fn new(store: ArtifactStore, max_upload_bytes: u64, uploads: Uploads) -> Self {
        Self { backing: Arc::new(store.clone()), store, max_upload_bytes, uploads, idle: IDLE }
    }

    /// Fetches what is not in the directory from `backing`, and acknowledges uploads once they are there.
    #[must_use]
    pub fn backed_by(self, backing: Arc<dyn Backing>) -> Self {
        Self { backing, ..self }
    }
}

#[tonic::async_trait]
impl Artifacts for ArtifactService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let digest = convert::digest("digest", &request.digest)?;
        let found = self.backing.bring(digest).await.map_err(|error| store_status(&error))?;
        let artifact = found.ok_or_else(|| Status::not_found(format!("artifact {digest} is not here")))?;
        if request.offset > artifact.size {
            return Err(Status::out_of_range(format!("offset {} of {} bytes", request.offset, artifact.size)));
        }
        let outgoing =
            self.store.send(artifact, request.offset).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Box::pin(futures::stream::try_unfold(outgoing, next_chunk))))
    }

    async fn store(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Stored>, Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::internal("an upload that passed no gate"))?.counted();
        let mut charge = self.uploads.begin(caller);
        let mut stream = request.into_inner();
        let mut incoming = self.store.receive().map_err(|error| store_status(&error))?;
        let late = |_| Status::aborted(format!("an upload of which nothing came for {} s", self.idle.as_secs()));
        while let Some(chunk) = tokio::time::timeout(self.idle, stream.message()).await.map_err(late)?? {
            if incoming.size() + chunk.data.len() as u64 > self.max_upload_bytes {
                return Err(Status::resource_exhausted(format!(
                    "an upload may have {} bytes (--max-upload)",
                    self.max_upload_bytes
                )));
            }
            charge.grow(chunk.data.len() as u64)?;
            incoming.write(&chunk.data).map_err(|error| store_status(&error))?;
        }
        match self.store.find(incoming.digest()) {
            None => charge.keep(incoming.digest()),
            Some(_) => charge.renew(incoming.digest()),
        }
        let artifact = self.store.publish(incoming).map_err(|error| store_status(&error))?;
        self.backing.keep(artifact).await.map_err(|error| store_status(&error))?;
        Ok(Response::new(Stored { digest: convert::digest_bytes(artifact.digest), size: artifact.size }))
    }
}

async fn next_chunk(mut outgoing: Outgoing) -> Result<Option<(Chunk, Outgoing)>, Status> {
    let read = spawn_blocking(move || outgoing.read(CHUNK_BYTES).map(|data| data.map(|data| (data, outgoing)))).await;
    match read.map_err(|error| Status::internal(error.to_string()))? {
        Ok(read) => Ok(read.map(|(data, outgoing)| (Chunk { data: data.into() }, outgoing))),
        Err(error @ ArtifactError::Damaged { .. }) => {
            tracing::error!(%error, "removed what this machine's disk has not kept");
            Err(store_status(&error))
        }
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// What a caller is told of a failure of the store.
pub fn store_status(error: &ArtifactError) -> Status {
    match error {
        ArtifactError::Missing { .. } => Status::not_found(error.to_string()),
        ArtifactError::TooLarge { .. } | ArtifactError::Io { .. } => Status::resource_exhausted(error.to_string()),
        ArtifactError::Remote { .. } => Status::unavailable(error.to_string()),
        ArtifactError::Damaged { .. } => Status::data_loss(error.to_string()),
    }
}

/// Why a transfer failed.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The other side, or the way there, failed.
    #[error("{}: {}", .0.code(), .0.message())]
    Remote(#[from] Status),
    /// This side's store failed.
    #[error(transparent)]
    Store(#[from] ArtifactError),
    /// Another number of bytes than announced.
    #[error("expected {expected} bytes, found {found}")]
    Size {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The other side stored something else.
    #[error("the other side did not store {expected}")]
    Stored {
        /// What was sent.
        expected: Digest,
    },
    /// A helper task died.
    #[error("{0}")]
    Task(tokio::task::JoinError),
}

impl TransferError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Remote(status) => !matches!(
                status.code(),
                Code::NotFound | Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
            ),
            Self::Size { expected, found } => found < expected,
            Self::Store(_) | Self::Stored { .. } | Self::Task(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use shardproof_common::artifacts::Pending;

    use super::*;
    use crate::transport::traffic::Traffic;
    use crate::transport::{ClientLimits, Gate, Listening, Party, Transport};

    #[test]
    fn chunks_cover_the_bytes() {
        let bytes = Bytes::from(vec![7u8; CHUNK_BYTES * 2 + 3]);
        let lengths: Vec<_> = chunks_of(bytes).map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, [CHUNK_BYTES, CHUNK_BYTES, 3]);
        assert_eq!(chunks_of(Bytes::new()).count(), 0);
    }

    #[tokio::test]
    async fn fetch_resumes_where_a_transfer_ended() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path().join("theirs")).unwrap();
        let ours = ArtifactStore::open(directory.path().join("ours")).unwrap();
        let content: Vec<u8> = (0..CHUNK_BYTES * 2 + 5).map(|i| (i * 31 % 251) as u8).collect();
        let artifact = theirs.put(&content).unwrap();
        std::fs::write(ours.partial(artifact.digest), &content[..1000]).unwrap();

        let channel = serve(ArtifactService::new(theirs.clone(), 1 << 20, unlimited())).await;
        let path = fetch(channel.clone(), &ours, artifact).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);

        let absent = Artifact { digest: Digest::of(b"absent"), size: 1 };
        assert!(matches!(fetch(channel, &ours, absent).await, Err(TransferError::Remote(_))));
    }

    #[tokio::test]
    async fn what_a_disk_lost_is_fetched_again() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path().join("theirs")).unwrap();
        let ours = ArtifactStore::open(directory.path().join("ours")).unwrap();
        let artifact = theirs.put(b"content").unwrap();
        let channel = serve(ArtifactService::new(theirs, 1 << 20, unlimited())).await;
        let path = fetch(channel.clone(), &ours, artifact).await.unwrap();
        for damaged in ["", "contend"] {
            std::fs::write(&path, damaged).unwrap();
            fetch(channel.clone(), &ours, artifact).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"content");
        }
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path()).unwrap();
        let content = vec![7; CHUNK_BYTES + 1];
        let artifact = theirs.put(&content).unwrap();
        let channel = serve(ArtifactService::new(theirs.clone(), 1, unlimited())).await;
        assert_eq!(read(channel.clone(), artifact).await.unwrap(), content);
        let short = read(channel.clone(), Artifact { size: 5, ..artifact }).await;
        assert!(matches!(short, Err(TransferError::Size { expected: 5, .. })));
        let artifact = theirs.put(b"one").unwrap();
        std::fs::write(theirs.path(artifact.digest), b"other").unwrap();
        let damaged = read(channel.clone(), Artifact { size: 5, ..artifact }).await;
        assert!(matches!(damaged, Err(TransferError::Remote(status)) if status.code() == Code::DataLoss));
    }

    /// Where a directory's artifacts are a second time.
    struct Elsewhere {
        here: ArtifactStore,
        there: ArtifactStore,
    }

    impl Backing for Elsewhere {
        fn bring(&self, digest: Digest) -> Pending<'_, Option<Artifact>> {
            let kept = || self.there.read(digest, u64::MAX).ok().map(|bytes| self.here.put(&bytes)).transpose();
            let found = self.here.find(digest).map_or_else(kept, |found| Ok(Some(found)));
            Box::pin(std::future::ready(found))
        }

        fn keep(&self, _: Artifact) -> Pending<'_, ()> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    #[tokio::test]
    async fn what_a_disk_damaged_is_brought_again_when_a_reader_has_had_it_whole() {
        let directory = tempfile::tempdir().unwrap();
        let [here, there, ours] =
            ["here", "there", "ours"].map(|name| ArtifactStore::open(directory.path().join(name)).unwrap());
        let content = vec![7; CHUNK_BYTES + 1];
        let artifact = there.put(&content).unwrap();
        here.put(&content).unwrap();
        std::fs::write(here.path(artifact.digest), vec![8; CHUNK_BYTES + 1]).unwrap();
        let backing = Arc::new(Elsewhere { here: here.clone(), there });
        let channel = serve(ArtifactService::new(here, 1, unlimited()).backed_by(backing)).await;
        let path = fetch(channel, &ours, artifact).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);
    }

    #[tokio::test]
    async fn uploads_are_named_by_content_and_capped() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path()).unwrap();
        let channel = serve(ArtifactService::new(theirs.clone(), 100, unlimited())).await;
        let artifact = store(channel.clone(), Bytes::from_static(b"upload")).await.unwrap();
        assert_eq!(theirs.read(artifact.digest, 100).unwrap(), b"upload");
        let refused = store(channel, Bytes::from(vec![0; 101])).await;
        assert!(
            matches!(refused, Err(TransferError::Remote(status)) if status.code() == tonic::Code::ResourceExhausted)
        );
    }

    fn unlimited() -> Uploads {
        Uploads::new(None, Duration::ZERO)
    }

    #[tokio::test]
    async fn an_upload_that_stands_still_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path()).unwrap();
        let service = ArtifactService::new(theirs, 100, unlimited());
        let channel = serve(ArtifactService { idle: Duration::from_millis(50), ..service }).await;
        let begun = futures::stream::iter([Chunk { data: Bytes::from_static(b"begun") }]);
        let refused = client(channel).store(begun.chain(futures::stream::pending())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
        let half = std::fs::read_dir(directory.path().join("partial")).unwrap().count();
        assert_eq!(half, 0, "what came is gone");
    }

    #[tokio::test]
    async fn what_nothing_uses_is_capped_and_not_stored_beyond() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = ArtifactStore::open(directory.path()).unwrap();
        let uploads = Uploads::new(Some(1 << 20), Duration::from_secs(3600));
        let channel = serve(ArtifactService::new(theirs.clone(), 4 << 20, uploads.clone())).await;
        let content = |byte| Bytes::from(vec![byte; 1 << 20]);
        let first = store(channel.clone(), content(1)).await.unwrap();
        let refused = store(channel.clone(), content(2)).await.unwrap_err();
        assert!(matches!(&refused, TransferError::Remote(status) if status.message().contains("--max-unused")));
        assert!(theirs.find(Digest::of(&content(2))).is_none());
        uploads.used(first.digest);
        store(channel.clone(), content(2)).await.unwrap();
        // What was there before takes no more room, so it leaves none less.
        uploads.used(Digest::of(&content(2)));
        store(channel.clone(), content(1)).await.unwrap();
        store(channel, content(3)).await.unwrap();
    }

    async fn serve(service: ArtifactService) -> Channel {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = crate::v1::artifacts_server::ArtifactsServer::new(service).max_decoding_message_size(2 << 20);
        let transport = Transport::plaintext();
        let listening = Listening { listener, traffic: Traffic::default(), max_connections: 8 };
        let gate = Gate::new(None, ClientLimits::default());
        let incoming = listening.connections(&transport).unwrap();
        tokio::spawn(super::super::server(gate, 100).add_service(service).serve_with_incoming(incoming));
        transport.lazy_channel(&address.to_string(), Party::Coordinator).unwrap()
    }
}
