//! A client of the coordinator that waits for what it asked for.

use std::path::Path;
use std::time::{Duration, Instant};

use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::card::ModelCard;
use shardproof_common::ids::RunId;
use shardproof_common::tensor::{FloatTensor, Tensor, encode_boundary};
use shardproof_proto::convert;
use shardproof_proto::transport::artifacts::TransferError;
use shardproof_proto::transport::{self, Channel, Party, Transport};
use shardproof_proto::v1::runs_client::RunsClient;
use shardproof_proto::v1::{
    BundleRequest, ProveRequest, Run, RunState, StatusRequest, StatusResponse, SubmitRequest, WatchRequest,
};
use tonic::Status;

use crate::error::BenchError;
use crate::processes::Cluster;

/// How often the coordinator is asked whether it serves; far below what setup takes.
const POLL: Duration = Duration::from_millis(5);
/// What a program needs to end once nobody can reach it any more.
const ENDING: Duration = Duration::from_millis(500);
const SETUP: Duration = Duration::from_secs(4 * 3600);

/// When a cluster came to what.
#[derive(Clone, Debug)]
pub struct Serving {
    /// When the coordinator had all keys and published its card.
    pub served: Instant,
    /// When every shard was loaded by its worker.
    pub ready: Instant,
    /// The card.
    pub card: ModelCard,
    /// The shards and workers.
    pub status: StatusResponse,
}

/// A connection to a coordinator.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to `cluster`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(cluster: &Cluster) -> Result<Self, BenchError> {
        Self::connect_to(cluster.address()).await
    }

    /// Connects to the coordinator at `address`, `host:port`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect_to(address: &str) -> Result<Self, BenchError> {
        Ok(Self { channel: Transport::plaintext().connect(address, Party::Coordinator).await? })
    }

    /// Waits until the model is set up and every shard has a worker that is ready.
    ///
    /// # Errors
    /// When setup fails, a program ends, or it takes hours.
    pub async fn wait_until_ready(&self, cluster: &mut Cluster) -> Result<Serving, BenchError> {
        let started = Instant::now();
        let mut served = None;
        while started.elapsed() < SETUP {
            let status = match self.runs().status(StatusRequest {}).await {
                Ok(status) => status.into_inner(),
                Err(status) => {
                    // A program that is ending says why in its log.
                    tokio::time::sleep(ENDING).await;
                    cluster.check_alive()?;
                    return Err(status.into());
                }
            };
            let now = Instant::now();
            if !status.failure.is_empty() {
                return Err(BenchError::Setup(status.failure));
            }
            if !status.card.is_empty() {
                let since = *served.get_or_insert(now);
                if !status.shards.is_empty() && status.shards.iter().all(|shard| shard.ready) {
                    let card = ModelCard::parse(&status.card)?;
                    return Ok(Serving { served: since, ready: now, card, status });
                }
            }
            cluster.check_alive()?;
            tokio::time::sleep(POLL).await;
        }
        Err(BenchError::Late { what: "setup".to_owned(), seconds: SETUP.as_secs() })
    }

    /// Runs the model on `input`.
    ///
    /// # Errors
    /// When the run does not end with an answer.
    pub async fn infer(&self, input: &[FloatTensor]) -> Result<Run, BenchError> {
        let tensors: Vec<Tensor> = input.iter().cloned().map(Tensor::Float).collect();
        let stored = transport::artifacts::store(self.channel.clone(), encode_boundary(&tensors).into()).await?;
        let request = SubmitRequest { input: convert::digest_bytes(stored.digest), ..SubmitRequest::default() };
        let run = self.runs().submit(request).await?.into_inner();
        self.until(run, RunState::Answered, "answered").await
    }

    /// Has every shard of `run` proven and verified.
    ///
    /// # Errors
    /// When the run does not end as verified.
    pub async fn prove(&self, run: &Run) -> Result<Run, BenchError> {
        let request = ProveRequest { run: run.run.clone(), ..ProveRequest::default() };
        let run = self.runs().prove(request).await?.into_inner();
        self.until(run, RunState::Verified, "verified").await
    }

    /// Has one shard of `run` proven and verified, after which the run is `expected`, in words `name`.
    ///
    /// # Errors
    /// When the run ends otherwise.
    pub async fn prove_shard(
        &self,
        run: &Run,
        shard: usize,
        expected: RunState,
        name: &'static str,
    ) -> Result<Run, BenchError> {
        let shards = vec![u32::try_from(shard).unwrap_or(u32::MAX)];
        let request = ProveRequest { run: run.run.clone(), shards, ..ProveRequest::default() };
        let run = self.runs().prove(request).await?.into_inner();
        self.until(run, expected, name).await
    }

    /// Fetches the bundle of the run with this id into the file at `path` and returns its size, bytes.
    ///
    /// # Errors
    /// When there is none, or the transfer fails.
    pub async fn fetch_bundle(&self, run: &str, path: &Path) -> Result<u64, BenchError> {
        let id: RunId = run.parse().map_err(|_| Status::invalid_argument(format!("`{run}` is no run's id")))?;
        let reference = self.runs().bundle(BundleRequest { run: convert::run_bytes(id) }).await?.into_inner();
        let artifact = convert::artifact(Some(&reference))?;
        let transfer = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
        let store = ArtifactStore::open(transfer.path()).map_err(TransferError::Store)?;
        let fetched = transport::artifacts::fetch(self.channel.clone(), &store, artifact).await?;
        std::fs::copy(fetched, path).map_err(BenchError::io(path.display().to_string()))
    }

    /// A run's id as text.
    ///
    /// # Errors
    /// When the coordinator sent none.
    pub fn id(run: &Run) -> Result<String, BenchError> {
        Ok(convert::run_id(&run.run)?.to_string())
    }

    /// Follows a run until nothing is under way; it must end as `expected`.
    async fn until(&self, run: Run, expected: RunState, name: &'static str) -> Result<Run, BenchError> {
        let mut updates = self.runs().watch(WatchRequest { run: run.run.clone() }).await?.into_inner();
        let mut last = run;
        while let Some(update) = updates.message().await? {
            last = update;
        }
        if last.state() == expected {
            if let Some(answer) = last.answer_artifact.as_ref().filter(|_| last.answer.is_empty()) {
                let artifact = convert::artifact(Some(answer))?;
                last.answer = transport::artifacts::read(self.channel.clone(), artifact).await?;
            }
            return Ok(last);
        }
        let id = convert::run_id(&last.run)?;
        let state = format!("{:?}", last.state()).to_lowercase();
        Err(BenchError::Run { run: id.to_string(), state, expected: name, reason: last.reason })
    }

    fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone()).max_decoding_message_size(transport::MAX_MESSAGE_BYTES)
    }
}
