//! Keys in memory: made once from a shard's files, then kept while the shard is in use.
//!
//! The commitment to the weights is not among the files: making it again takes less time than fetching it. What comes out is
//! compared with the card, so that a damaged file is found before the first run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use shardproof_common::backend::{BackendError, ShardFiles};
use shardproof_common::card::ShardKeys;
use shardproof_common::ids::Digest;
use shardproof_common::plan::{BackendKind, BoundaryMode};
use shardproof_gkr::{Boundary, ProvingKey, Statement, soundness};
use shardproof_integer::{Executor, Graph, TensorId, Weights};

use crate::batch::MAX_MEMBERS;
use crate::boundary::check_tensors;
use crate::key_file::KeyFile;
use crate::setup::{failed, gkr_options, read, visibility};

/// Name of the file of the integer graph.
pub const GRAPH: &str = "gkr.graph";
/// Name of the file of the weights.
pub const WEIGHTS: &str = "gkr.weights";
/// Shards that stay loaded; a worker serves one or two.
const KEPT: usize = 4;

/// Most elements of all tensors over all runs of one proof. Memory grows with them, while what several runs share is done
/// once for any number of them.
const MAX_BATCH_ELEMENTS: usize = 1 << 22;

/// What it takes to run and prove a shard.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) key: ProvingKey,
    pub(crate) executor: Executor,
}

/// Loaded shards by the digest of their verifying key's file, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<VecDeque<(Digest, Arc<Loaded>)>>);

impl Cache {
    /// The shard's keys, loaded at most once while it is in use.
    pub(crate) fn get(&self, shard: &ShardFiles) -> Result<Arc<Loaded>, BackendError> {
        let ShardKeys::Gkr(keys) = &shard.card.keys else {
            let what = format!("was given keys of {}", shard.card.backend.kind);
            return Err(BackendError::Unsupported { backend: BackendKind::Gkr, what });
        };
        // Held while loading, so that two jobs of one shard do not both pay for it.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = kept.iter().position(|(digest, _)| *digest == keys.verifying_key) {
            let entry = kept.remove(position).expect("the position was just found");
            let loaded = entry.1.clone();
            kept.push_back(entry);
            return Ok(loaded);
        }
        let loaded = Arc::new(Loaded::load(shard, keys.verifying_key)?);
        kept.push_back((keys.verifying_key, loaded.clone()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(loaded)
    }
}

impl Loaded {
    fn load(shard: &ShardFiles, registered: Digest) -> Result<Self, BackendError> {
        let file = |name: &str| {
            let missing = || failed("load", shard.shard, format!("the file {name} is missing"));
            read(shard.files.get(name).ok_or_else(missing)?)
        };
        Self::from_bytes(shard, &file(GRAPH)?, &file(WEIGHTS)?, registered)
    }

    /// Makes the keys from the content of the shard's files, and compares them with the card before anything is run: the files
    /// may be an accuser's. What a look at the graph refuses is refused first, because committing to weights takes time and
    /// memory for each of them.
    pub(crate) fn from_bytes(
        shard: &ShardFiles,
        graph: &[u8],
        weights: &[u8],
        registered: Digest,
    ) -> Result<Self, BackendError> {
        let options = gkr_options(&shard.options)?;
        let refuse = |error: &dyn std::fmt::Display| failed("load", shard.shard, error);
        let graph = Graph::from_bytes(graph).map_err(|error| refuse(&error))?;
        let graph = graph.check().map_err(|error| refuse(&error))?;
        check_tensors(&graph, &shard.card).map_err(|error| refuse(&error))?;
        let weights = Weights::from_bytes(weights, &graph).map_err(|error| refuse(&error))?;
        let executor = Executor::new(Arc::new(graph.clone()), &weights).map_err(|error| refuse(&error))?;
        let key = ProvingKey::new(graph, weights, visibility(options.weights)).map_err(|error| refuse(&error))?;
        let key_file = KeyFile::encode(key.verifying(), key.weights()).map_err(|error| refuse(&error))?;
        let found = Digest::of(&key_file);
        if found != registered {
            return Err(refuse(&format!("the files give key {found}, the card registers {registered}")));
        }
        Ok(Self { key, executor })
    }

    /// Most runs that one proof may cover: as many as leave it the bits of soundness that the protocol asks for (each
    /// committed boundary of each run is opened, and costs some), and fit into memory.
    pub(crate) fn batch_limit(&self, shard: &ShardFiles) -> usize {
        let graph = self.key.verifying().graph();
        let elements: usize = (0..graph.tensors() as u32).map(|tensor| graph.elements(TensorId(tensor))).sum();
        let most = (MAX_BATCH_ELEMENTS / elements.max(1)).min(MAX_MEMBERS);
        let counts: Vec<usize> = (2..=most).collect();
        1 + counts.partition_point(|&runs| self.is_sound(shard, runs))
    }

    /// Whether a proof of so many runs is accepted. The account depends on the kinds of the boundaries, not on their content.
    fn is_sound(&self, shard: &ShardFiles, runs: usize) -> bool {
        let boundary = |mode| match mode {
            BoundaryMode::Public => Boundary::Public(&[]),
            BoundaryMode::Committed | BoundaryMode::Hashed | BoundaryMode::Polycommit => Boundary::Committed(&[]),
        };
        let (input, output) = (boundary(shard.input_mode), boundary(shard.output_mode));
        let account = soundness::proof(self.key.verifying(), &Statement { context: &[], runs, input, output });
        account.is_ok_and(|account| account.suffices())
    }
}
