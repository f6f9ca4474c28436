//! A gkr worker that knows the protocol's library, and proves what a backend would refuse to prove.
//!
//! Its proofs are true of what it executed; what it does not say is that this is not what the statement says. Provers that lie
//! inside the protocol are the protocol's own tests.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use shardproof_common::backend::ShardFiles;
use shardproof_common::plan::{BackendOptions, BoundaryMode, WeightVisibility};
use shardproof_common::statement::Statement;
use shardproof_common::tensor::{IntegerTensor, Tensor};
use shardproof_gkr::{CommittedBoundaries, ProvingKey, Timings, Visibility, commit_tensor, pcs};
use shardproof_integer::{Executor, Graph, Trace};

/// The weights with which the worker runs the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// The registered ones.
    Registered,
    /// Those of the last layer with their signs turned.
    Others,
}

struct Worker {
    key: ProvingKey,
    trace: Trace,
    inputs: Vec<Vec<i64>>,
    outputs: Vec<Vec<i64>>,
}

impl Worker {
    fn execute(files: &ShardFiles, input: &[Tensor], weights: Weights) -> Result<Self> {
        let file = |name: &str| -> Result<Vec<u8>> {
            let path = files.files.get(name).ok_or_else(|| anyhow!("the shard has no file {name}"))?;
            std::fs::read(path).with_context(|| path.display().to_string())
        };
        let graph = Graph::from_bytes(&file("gkr.graph")?)?.check()?;
        let mut values = shardproof_integer::Weights::from_bytes(&file("gkr.weights")?, &graph)?;
        if weights == Weights::Others {
            let tensor = values.0.last_mut().context("the shard has no weights")?;
            tensor.iter_mut().for_each(|value| *value = -*value);
        }
        let executor = Executor::new(Arc::new(graph.clone()), &values)?;
        let inputs: Vec<Vec<i64>> = input
            .iter()
            .map(|tensor| Ok(tensor.as_integer().context("gkr takes integers")?.values.clone()))
            .collect::<Result<_>>()?;
        let trace = executor.run(&inputs, 1)?;
        let outputs = graph.graph().outputs.iter().map(|&output| trace.tensor(output).to_vec()).collect();
        let BackendOptions::Gkr(options) = &files.options else { return Err(anyhow!("not a shard of gkr")) };
        let visibility = match options.weights {
            WeightVisibility::Committed => Visibility::Committed,
            WeightVisibility::Public => Visibility::Public,
        };
        Ok(Self { key: ProvingKey::new(graph, values, visibility)?, trace, inputs, outputs })
    }
}

/// What the shard puts out with other weights.
pub(crate) fn run(files: &ShardFiles, input: &[Tensor]) -> Result<Vec<Tensor>> {
    let worker = Worker::execute(files, input, Weights::Others)?;
    let tensors = worker.outputs.into_iter().zip(&files.card.output);
    let tensor = |(values, spec): (Vec<i64>, &shardproof_common::tensor::TensorSpec)| {
        Tensor::Integer(IntegerTensor { shape: spec.shape.clone(), scale: spec.scale, values })
    };
    Ok(tensors.map(tensor).collect())
}

/// Proves what the shard does to `input`, bound to `statement`, whatever that says of the output.
pub(crate) fn prove(files: &ShardFiles, input: &[Tensor], statement: &Statement, weights: Weights) -> Result<Vec<u8>> {
    let worker = Worker::execute(files, input, weights)?;
    let commit = |tensors: &[Vec<i64>], mode| -> Result<Vec<Vec<pcs::Committed>>> {
        if mode == BoundaryMode::Public {
            return Ok(Vec::new());
        }
        tensors.iter().map(|values| Ok(vec![commit_tensor(values)?])).collect()
    };
    let committed = [commit(&worker.inputs, files.input_mode)?, commit(&worker.outputs, files.output_mode)?];
    let commitments = committed.each_ref().map(|tensors| -> Vec<Vec<pcs::Commitment>> {
        tensors.iter().map(|runs| runs.iter().map(|run| run.commitment().clone()).collect()).collect()
    });
    let whole = [&worker.inputs, &worker.outputs];
    let boundary = |side: usize, mode| match mode {
        BoundaryMode::Public => shardproof_gkr::Boundary::Public(whole[side]),
        _ => shardproof_gkr::Boundary::Committed(&commitments[side]),
    };
    let context = statement.digest();
    let claimed = shardproof_gkr::Statement {
        context: context.as_bytes(),
        runs: 1,
        input: boundary(0, files.input_mode),
        output: boundary(1, files.output_mode),
    };
    let both = CommittedBoundaries { input: &committed[0], output: &committed[1] };
    let proof = worker.key.prove(&claimed, &worker.trace, both, &mut Timings::default())?;
    Ok(proof.to_bytes())
}
