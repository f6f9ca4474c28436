//! The coordinator as a client sees it. Every failure says what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use shardproof_common::address;
use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::audit::{Nonce, NonceCommitment};
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::receipt::PublicKey;
use shardproof_common::tensor::{Tensor, encode_boundary};
use shardproof_proto::convert;
use shardproof_proto::transport::artifacts::TransferError;
use shardproof_proto::transport::{self, Channel, ChannelError, ConnectArgs, Party, Transport, explain, trouble};
use shardproof_proto::v1::admin_client::AdminClient;
use shardproof_proto::v1::runs_client::RunsClient;
use shardproof_proto::v1::{
    AdmitWorkerRequest, ArtifactRef, BundleRequest, CancelRequest, CollectRequest, CollectResponse, EvidenceRequest,
    GetRequest, ListRequest, ListWorkersRequest, ListWorkersResponse, ProveRequest, RevealRequest, RevokeWorkerRequest,
    Run, StatusRequest, StatusResponse, SubmitRequest, WatchRequest, WorkerRecord,
};
use tonic::{Code, Status, Streaming};

/// How often a coordinator that is not there yet is tried again.
const RETRY: Duration = Duration::from_millis(300);

/// The coordinator that is meant where none is named.
const DEFAULT_COORDINATOR: &str = "localhost:8000";

/// Which coordinator a command talks to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CoordinatorAddress {
    /// Where the coordinator listens.
    #[arg(long, value_name = "HOST:PORT", env = "SHARDPROOF_COORDINATOR", default_value = DEFAULT_COORDINATOR)]
    #[arg(value_parser = address::parse)]
    pub(crate) coordinator: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl CoordinatorAddress {
    /// The option of these that the command line gives. What the environment says for every command counts as not given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let usual = variable("SHARDPROOF_COORDINATOR").unwrap_or_else(|| DEFAULT_COORDINATOR.to_owned());
        let usual_tls = variable("SHARDPROOF_TLS").map(PathBuf::from);
        let given = [
            ("--coordinator", self.coordinator != usual),
            ("--tls", self.connect.tls != usual_tls),
            ("--token-file", self.connect.token_file.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}

/// A connection to a coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: String,
    channel: Channel,
}

impl Client {
    /// Connects, or fails at once.
    ///
    /// # Errors
    /// When nobody listens at the address, or it is not the coordinator.
    pub(crate) async fn connect(at: &CoordinatorAddress) -> Result<Self> {
        Self::connect_by(&at.connect.transport()?, &at.coordinator).await
    }

    /// Connects in this way, or fails at once.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_by(transport: &Transport, address: &str) -> Result<Self> {
        let connected = transport.connect(address, Party::Coordinator).await;
        let channel = connected.map_err(|error| match error {
            ChannelError::Connect { reason } => anyhow!(
                "no coordinator at {address} ({reason}); start one with `shardproof coordinator localhost 8000 4 mlp`, \
                 or name another with --coordinator HOST:PORT"
            ),
            ChannelError::Trouble(trouble) => anyhow!("the coordinator at {address}: {trouble}"),
            other => other.into(),
        })?;
        Ok(Self { address: address.to_owned(), channel })
    }

    /// Connects, trying until somebody listens; says so once.
    ///
    /// # Errors
    /// When the address is none, or what is shown to the coordinator cannot be.
    pub(crate) async fn connect_when_there(at: &CoordinatorAddress, waiting: impl FnOnce()) -> Result<Self> {
        let (address, transport) = (at.coordinator.as_str(), at.connect.transport()?);
        let mut waiting = Some(waiting);
        loop {
            match transport.connect(address, Party::Coordinator).await {
                Ok(channel) => return Ok(Self { address: address.to_owned(), channel }),
                Err(ChannelError::Connect { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The model, its shards and the workers.
    pub(crate) async fn status(&self) -> Result<StatusResponse> {
        let response = self.runs().status(StatusRequest {}).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Stores the model's inputs and starts a run on them, with a part in its audit where `commitment` is given.
    pub(crate) async fn submit(&self, input: &[Tensor], commitment: Option<NonceCommitment>) -> Result<Run> {
        let encoding = encode_boundary(input);
        let stored = transport::artifacts::store(self.channel.clone(), encoding.into()).await;
        let artifact = stored.map_err(|error| self.explain_transfer(error, "sending the input"))?;
        let request = SubmitRequest {
            input: convert::digest_bytes(artifact.digest),
            nonce_commitment: commitment.map(|commitment| commitment.as_bytes().to_vec().into()).unwrap_or_default(),
        };
        Ok(self.runs().submit(request).await.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Reveals the nonce that a run was submitted with a commitment to.
    pub(crate) async fn reveal(&self, run: RunId, nonce: Nonce) -> Result<()> {
        let request = RevealRequest { run: convert::run_bytes(run), nonce: nonce.as_bytes().to_vec().into() };
        self.runs().reveal(request).await.map_err(|status| self.explain(&status))?;
        Ok(())
    }

    /// Present state of a run.
    async fn get(&self, run: RunId) -> Result<Run> {
        let response = self.runs().get(GetRequest { run: convert::run_bytes(run) }).await;
        let mut run = response.map_err(|status| self.explain(&status))?.into_inner();
        self.complete(&mut run, None).await?;
        Ok(run)
    }

    /// Cancels a run, or what is under way of its proofs; the run without its answer.
    pub(crate) async fn cancel(&self, run: RunId) -> Result<Run> {
        let response = self.admin().cancel_run(CancelRequest { run: convert::run_bytes(run) }).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Has the coordinator remove what nobody needs.
    pub(crate) async fn collect(&self, request: CollectRequest) -> Result<CollectResponse> {
        let answer = self.admin().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Latest runs first, without their answers.
    pub(crate) async fn list(&self, limit: u32) -> Result<Vec<Run>> {
        let response = self.runs().list(ListRequest { limit }).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner().runs)
    }

    /// Requests proofs of some shards, or of all where none is named, for each of `runs`, which may be proven together.
    pub(crate) async fn prove(&self, runs: &[RunId], shards: &[ShardIndex]) -> Result<Run> {
        let request = ProveRequest {
            runs: runs.iter().map(|&run| convert::run_bytes(run)).collect(),
            shards: shards.iter().map(|shard| shard.0).collect(),
            ..ProveRequest::default()
        };
        Ok(self.runs().prove(request).await.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Follows a run until nothing is under way, and returns its last state.
    pub(crate) async fn watch(&self, run: RunId, mut seen: impl FnMut(&Run) -> Result<()>) -> Result<Run> {
        let mut updates = self.updates(run).await?;
        let mut last = None;
        while let Some(mut update) = updates.message().await.map_err(|status| self.explain(&status))? {
            self.complete(&mut update, last.as_ref()).await?;
            seen(&update)?;
            last = Some(update);
        }
        match last {
            Some(run) => Ok(run),
            None => self.get(run).await,
        }
    }

    /// Fetches the answer where it is too large to come with its run, unless it is known from `before`.
    async fn complete(&self, run: &mut Run, before: Option<&Run>) -> Result<()> {
        let Some(reference) = run.answer_artifact.as_ref().filter(|_| run.answer.is_empty()) else { return Ok(()) };
        if let Some(before) = before.filter(|before| before.answer_artifact.as_ref() == Some(reference)) {
            run.answer = before.answer.clone();
            return Ok(());
        }
        let artifact = convert::artifact(Some(reference)).map_err(|status| self.explain(&status))?;
        let answer = transport::artifacts::read(self.channel.clone(), artifact).await;
        run.answer = answer.map_err(|error| self.explain_transfer(error, "fetching the answer"))?;
        Ok(())
    }

    /// Fetches the bundle of a run into the file at `path`, which appears whole or not at all. Returns its size, bytes.
    pub(crate) async fn fetch_bundle(&self, run: RunId, path: &Path) -> Result<u64> {
        let response = self.runs().bundle(BundleRequest { run: convert::run_bytes(run) }).await;
        let reference = response.map_err(|status| self.explain(&status))?.into_inner();
        self.fetch_file(&reference, &format!("the bundle of run {run}"), path).await
    }

    /// Fetches the evidence that a run left, as [`Client::fetch_bundle`] fetches the bundle.
    pub(crate) async fn fetch_evidence(&self, run: RunId, with_shard: bool, path: &Path) -> Result<u64> {
        let request = EvidenceRequest { run: convert::run_bytes(run) };
        let response = match with_shard {
            true => self.admin().evidence_with_shard(request).await,
            false => self.runs().evidence(request).await,
        };
        let reference = response.map_err(|status| self.explain(&status))?.into_inner();
        self.fetch_file(&reference, &format!("the evidence of run {run}"), path).await
    }

    async fn fetch_file(&self, reference: &ArtifactRef, what: &str, path: &Path) -> Result<u64> {
        let artifact = convert::artifact(Some(reference)).map_err(|status| self.explain(&status))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let transfer = tempfile::Builder::new()
            .prefix(".shardproof-fetch")
            .tempdir_in(parent)
            .with_context(|| format!("{}: cannot write here", parent.display()))?;
        let store = ArtifactStore::open(transfer.path())?;
        let fetched = transport::artifacts::fetch(self.channel.clone(), &store, artifact).await;
        let fetched = fetched.map_err(|error| self.explain_transfer(error, &format!("fetching {what}")))?;
        std::fs::rename(&fetched, path).with_context(|| format!("{}: cannot write {what}", path.display()))?;
        Ok(artifact.size)
    }

    /// All workers with their records; for the owner.
    pub(crate) async fn list_workers(&self) -> Result<ListWorkersResponse> {
        let response = self.admin().list_workers(ListWorkersRequest {}).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Admits a worker's key; an empty name keeps the one it has.
    pub(crate) async fn admit_worker(&self, key: PublicKey, name: &str) -> Result<WorkerRecord> {
        let request = AdmitWorkerRequest { key: key.as_bytes().to_vec().into(), name: name.to_owned() };
        let response = self.admin().admit_worker(request).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// Refuses a worker's key until it is admitted again.
    pub(crate) async fn revoke_worker(&self, key: PublicKey) -> Result<WorkerRecord> {
        let response = self.admin().revoke_worker(RevokeWorkerRequest { key: key.as_bytes().to_vec().into() }).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    /// The coordinator's model card, as the JSON it serves.
    pub(crate) async fn card(&self) -> Result<Vec<u8>> {
        let status = self.status().await?;
        if !status.failure.is_empty() {
            bail!("the coordinator at {} could not set the model up: {}", self.address, status.failure);
        }
        if status.card.is_empty() {
            bail!(
                "the coordinator at {} has no card yet ({}): try again once setup is done",
                self.address,
                status.stage
            );
        }
        Ok(status.card.to_vec())
    }

    async fn updates(&self, run: RunId) -> Result<Streaming<Run>> {
        let response = self.runs().watch(WatchRequest { run: convert::run_bytes(run) }).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner())
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone()).max_decoding_message_size(transport::MAX_MESSAGE_BYTES)
    }

    /// The same of a transfer, with what was being done.
    fn explain_transfer(&self, error: TransferError, doing: &str) -> anyhow::Error {
        match error {
            TransferError::Remote(status) => self.explain(&status).context(doing.to_owned()),
            other => anyhow::Error::new(other).context(format!("{doing} ({})", self.address)),
        }
    }

    /// What the coordinator said, or that it is gone.
    fn explain(&self, status: &Status) -> anyhow::Error {
        let lost = status.code() == Code::Unavailable || std::error::Error::source(status).is_some();
        if lost {
            return match trouble(status) {
                Some(trouble) => anyhow!("the coordinator at {}: {trouble}", self.address),
                None => {
                    let cause = explain(status);
                    anyhow!("the coordinator at {} is gone or cannot be reached ({cause})", self.address)
                }
            };
        }
        match status.message() {
            "" => anyhow!("the coordinator at {} answered {}", self.address, status.code()),
            message => anyhow!("{message}"),
        }
    }
}
