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
use shardproof_gkr::soundness::{self, Account, NoAccount};
use shardproof_gkr::{Boundary, ProvingKey, Statement, VerifyingKey};
use shardproof_integer::{Executor, Graph, Weights};

use crate::batch;
use crate::boundary::check_tensors;
use crate::key_file::KeyFile;
use crate::setup::{failed, gkr_options, read, visibility};

/// Name of the file of the integer graph.
pub const GRAPH: &str = "gkr.graph";
/// Name of the file of the weights.
pub const WEIGHTS: &str = "gkr.weights";
/// Shards that stay loaded; a worker serves one or two.
const KEPT: usize = 4;

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
        let key = ProvingKey::new(graph, weights, visibility(options.weights)).map_err(|error| refuse(&error))?;
        let key_file = KeyFile::encode(key.verifying(), key.weights()).map_err(|error| refuse(&error))?;
        let found = Digest::of(&key_file);
        if found != registered {
            return Err(refuse(&format!("the files give key {found}, the card registers {registered}")));
        }
        // It keeps each node's weights in the form that the node takes, however many nodes share one: an accuser's graph could
        // have no end of them.
        let graph = Arc::new(key.verifying().graph().clone());
        let executor = Executor::new(graph, key.weights()).map_err(|error| refuse(&error))?;
        Ok(Self { key, executor })
    }

    /// Most runs that one proof may cover: as many as leave it the bits of soundness that the protocol asks for (each
    /// committed boundary of each run is opened, and costs some), and fit into memory.
    pub(crate) fn batch_limit(&self, shard: &ShardFiles) -> usize {
        let key = self.key.verifying();
        let counts: Vec<usize> = (2..=batch::most_runs(key.graph())).collect();
        let is_accepted =
            |runs| account(key, [shard.input_mode, shard.output_mode], runs).is_ok_and(|account| account.suffices());
        1 + counts.partition_point(|&runs| is_accepted(runs))
    }
}

/// The account of a proof of so many runs, which depends on the kinds of its boundaries and not on their content.
///
/// # Errors
/// When no verifier takes such a proof.
pub(crate) fn account(key: &VerifyingKey, modes: [BoundaryMode; 2], runs: usize) -> Result<Account, NoAccount> {
    let [input, output] = modes.map(|mode| match mode {
        BoundaryMode::Public => Boundary::Public(&[]),
        BoundaryMode::Committed | BoundaryMode::Hashed | BoundaryMode::Polycommit => Boundary::Committed(&[]),
    });
    soundness::proof(key, &Statement { context: &[], runs, input, output })
}
