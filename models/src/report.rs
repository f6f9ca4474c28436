//! The plan as `shardproof plan` shows it: for programs as JSON, for people as a table.

use std::fmt;

use serde::{Deserialize, Serialize};
use shardproof_common::ids::{Digest, Role, ShardIndex};
use shardproof_common::plan::{BackendKind, BoundaryMode, BoundaryTensor, Plan};

use crate::cost::{Operations, Prediction};
use crate::model::OnnxModel;
use crate::split::{Shard, Strategy};

/// A plan with the figures that it was chosen by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The model's name.
    pub model: String,
    /// Digest of the model's file.
    pub model_digest: Digest,
    /// Digest of the graph without weights.
    pub architecture: Digest,
    /// Digest of the plan.
    pub plan_digest: Digest,
    /// Trained values of the whole model.
    pub parameters: u64,
    /// Layers of the whole model.
    pub layers: usize,
    /// Most shards that are possible.
    pub max_shards: usize,
    /// How the cuts were chosen.
    pub strategy: Strategy,
    /// The shards, in order.
    pub shards: Vec<ShardReport>,
    /// The boundaries, in order, one more than shards.
    pub boundaries: Vec<BoundaryReport>,
}

/// One shard of a [`PlanReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    /// Position in the plan.
    pub index: u32,
    /// The role of the worker that runs it.
    pub role: Role,
    /// The proof system.
    pub backend: BackendKind,
    /// First and last node by name.
    pub first_node: String,
    /// See `first_node`.
    pub last_node: String,
    /// Nodes in it.
    pub nodes: usize,
    /// Layers that begin in it.
    pub layers: u32,
    /// Trained values in it.
    pub parameters: u64,
    /// Size of its ONNX file, bytes.
    pub onnx_bytes: u64,
    /// Operations that it computes.
    pub operations: Operations,
    /// What it is predicted to cost.
    #[serde(flatten)]
    pub prediction: Prediction,
}

/// One boundary of a [`PlanReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundaryReport {
    /// Position: boundary i is the input of shard i.
    pub index: usize,
    /// Shown or committed to.
    pub mode: BoundaryMode,
    /// Sum of the tensors' elements.
    pub elements: u64,
    /// What crosses.
    pub tensors: Vec<BoundaryTensor>,
}

impl PlanReport {
    pub(crate) fn new(model: &OnnxModel, strategy: Strategy, plan: &Plan, shards: &[Shard]) -> Self {
        let shard_report =
            |(index, (planned, shard)): (usize, (&shardproof_common::plan::ShardPlan, &Shard))| ShardReport {
                index: index as u32,
                role: Role::of(ShardIndex(index as u32), plan.shards.len()),
                backend: planned.backend.kind(),
                first_node: planned.first_node.clone(),
                last_node: planned.last_node.clone(),
                nodes: shard.nodes,
                layers: planned.layers,
                parameters: planned.parameters,
                onnx_bytes: shard.onnx.len() as u64,
                operations: shard.operations,
                prediction: shard.prediction,
            };
        let boundary_report = |(index, boundary): (usize, &shardproof_common::plan::BoundaryPlan)| BoundaryReport {
            index,
            mode: boundary.mode,
            elements: boundary.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum(),
            tensors: boundary.tensors.clone(),
        };
        Self {
            model: model.name().to_owned(),
            model_digest: model.digest(),
            architecture: model.architecture(),
            plan_digest: plan.digest(),
            parameters: model.parameters(),
            layers: model.layers(),
            max_shards: model.max_shards(),
            strategy,
            shards: plan.shards.iter().zip(shards).enumerate().map(shard_report).collect(),
            boundaries: plan.boundaries.iter().enumerate().map(boundary_report).collect(),
        }
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model {}  {}", self.model, self.model_digest)?;
        writeln!(
            f,
            "plan  {}  {} of at most {} shards, {}, {} parameters, {} layers",
            self.plan_digest.short(),
            self.shards.len(),
            self.max_shards,
            self.strategy,
            self.parameters,
            self.layers
        )?;
        writeln!(f)?;
        write_table(f, &self.shard_rows())?;
        writeln!(f)?;
        write_table(f, &self.boundary_rows())?;
        let (ezkl, gkr) = (self.proves_with(BackendKind::Ezkl), self.proves_with(BackendKind::Gkr));
        match (ezkl, gkr) {
            (true, false) => writeln!(f, "\nRows, log2 rows, key and memory are estimates; a demo measures them."),
            (_, true) => writeln!(f, "\nValues, proof, key and memory are estimates; a demo measures them."),
            (false, false) => Ok(()),
        }
    }
}

impl PlanReport {
    fn proves_with(&self, backend: BackendKind) -> bool {
        self.shards.iter().any(|shard| shard.backend == backend)
    }

    /// What is predicted for shards of the backends in the plan, under these titles.
    fn prediction_titles(&self) -> Vec<&'static str> {
        match (self.proves_with(BackendKind::Ezkl), self.proves_with(BackendKind::Gkr)) {
            (false, false) => vec!["operations"],
            (true, false) => vec!["rows", "log2", "key", "memory"],
            (false, true) => vec!["values", "proof", "memory"],
            (true, true) => vec!["rows", "log2", "key", "values", "proof", "memory"],
        }
    }

    fn shard_rows(&self) -> Vec<Vec<String>> {
        let titles = self.prediction_titles();
        let mut header = vec!["shard", "role", "backend", "first node", "last node", "layers", "parameters"];
        header.extend(&titles);
        let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        for shard in &self.shards {
            let mut row = vec![shard.index.to_string(), shard.role.to_string(), shard.backend.to_string()];
            row.extend([shard.first_node.clone(), shard.last_node.clone()]);
            row.extend([shard.layers.to_string(), shard.parameters.to_string()]);
            row.extend(
                titles.iter().map(|title| predicted(&shard.prediction, title).unwrap_or_else(|| "-".to_owned())),
            );
            rows.push(row);
        }
        rows
    }

    fn boundary_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["boundary", "mode", "elements", "tensors"].map(str::to_owned).to_vec()];
        for boundary in &self.boundaries {
            let tensor = |tensor: &BoundaryTensor| format!("{} {:?}", tensor.name, tensor.shape);
            let tensors: Vec<String> = boundary.tensors.iter().map(tensor).collect();
            let mode = boundary.mode.to_string();
            rows.push(vec![boundary.index.to_string(), mode, boundary.elements.to_string(), tensors.join(", ")]);
        }
        rows
    }
}

/// The figure that belongs under a title, where the shard's backend has one.
fn predicted(prediction: &Prediction, title: &str) -> Option<String> {
    match title {
        "operations" => Some(prediction.cost.to_string()),
        "rows" => prediction.ezkl.map(|ezkl| ezkl.rows.to_string()),
        "log2" => prediction.ezkl.map(|ezkl| ezkl.logrows.to_string()),
        "key" => prediction.ezkl.map(|ezkl| bytes(ezkl.proving_key_bytes)),
        "values" => prediction.gkr.map(|gkr| gkr.witness_values.to_string()),
        "proof" => prediction.gkr.map(|gkr| bytes(gkr.proof_bytes)),
        _ => prediction.peak_memory_bytes().map(bytes),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A size for people, in units of 1000.
fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}
