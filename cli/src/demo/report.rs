//! What a demo found, for programs (the keys are stable) and for newcomers.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::Report;
use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::plan::BackendKind;
use shardproof_proto::v1::StatusResponse;

use crate::output::Outcome;
use crate::run_view::{Rejection, RunView};
use crate::table::{self, Table};

/// The demo's result. Field names and their meaning are a contract with programs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DemoReport {
    run_id: String,
    model: String,
    backend: String,
    boundary_mode: String,
    weights: String,
    shards: usize,
    outputs: Vec<f64>,
    float_outputs: Vec<f64>,
    max_abs_error: Option<f64>,
    verified: bool,
    rejected: Option<Rejection>,
    per_shard: Vec<ShardReport>,
    prove_ms_sum: f64,
    prove_ms_wall: u64,
    verify_ms: f64,
    proof_bytes: u64,
    bundle: Option<PathBuf>,
    card: PathBuf,
    #[serde(skip)]
    layers: Vec<u32>,
    #[serde(skip)]
    backends: Vec<BackendKind>,
}

#[derive(Clone, Debug, Serialize)]
struct ShardReport {
    shard: u32,
    role: &'static str,
    parameters: u64,
    setup_ms: f64,
    witness_ms: f64,
    prove_ms: f64,
    verify_ms: f64,
    proof_bytes: u64,
    proving_key_bytes: u64,
    verifying_key_bytes: u64,
    peak_rss_bytes: u64,
}

/// What the demo gathered on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered<'a> {
    /// The model as the user named it.
    pub(super) model: &'a str,
    /// The run after the last verdict.
    pub(super) run: &'a RunView,
    /// The coordinator's status after setup.
    pub(super) status: &'a StatusResponse,
    /// The card.
    pub(super) card: &'a ModelCard,
    /// The whole model's answer in floats.
    pub(super) float_outputs: &'a [f64],
    /// The offline verifier's result and how long it took, ms; none in float mode.
    pub(super) verification: Option<(&'a Report, f64)>,
    /// Where the bundle is, if there is one.
    pub(super) bundle: Option<&'a Path>,
    /// Where the card is.
    pub(super) card_path: &'a Path,
}

impl DemoReport {
    pub(super) fn of(gathered: Gathered<'_>) -> Self {
        let Gathered { model, run, status, card, float_outputs, verification, bundle, card_path } = gathered;
        let plan = &card.body.plan;
        let count = plan.shards.len();
        let outputs = run.outputs.clone().unwrap_or_default();
        let per_shard: Vec<ShardReport> = (0..count).map(|index| ShardReport::of(index, count, run, status)).collect();
        let verified = run.state == "verified" && verification.is_some_and(|(report, _)| report.is_verified());
        Self {
            run_id: run.run.clone(),
            model: model.to_owned(),
            backend: plan.backends(),
            boundary_mode: match plan.boundaries.as_slice() {
                [_, inner @ .., _] if !inner.is_empty() => {
                    crate::card::words(inner.iter().map(|boundary| boundary.mode.as_str()))
                }
                // With one shard there is no inner boundary, and the ends are shown.
                _ => "public".to_owned(),
            },
            weights: crate::card::weights(card),
            shards: count,
            max_abs_error: max_abs_error(&outputs, float_outputs),
            outputs,
            float_outputs: float_outputs.to_vec(),
            verified,
            rejected: rejection(run, verification.map(|(report, _)| report)),
            prove_ms_sum: per_shard.iter().map(|shard| shard.prove_ms).sum(),
            prove_ms_wall: run.prove_ms_wall,
            verify_ms: verification.map_or(0.0, |(_, ms)| ms),
            proof_bytes: per_shard.iter().map(|shard| shard.proof_bytes).sum(),
            per_shard,
            bundle: bundle.map(Path::to_owned),
            card: card_path.to_owned(),
            layers: plan.shards.iter().map(|shard| shard.layers).collect(),
            backends: distinct(plan.shards.iter().map(|shard| shard.backend.kind())),
        }
    }

    /// Whether nothing is proven.
    fn unproven(&self) -> bool {
        self.backends.iter().all(|&kind| kind == BackendKind::Float)
    }

    /// How the demo exits: a float run is a success although nothing is verified.
    pub(super) fn outcome(&self) -> Outcome {
        let unproven = self.unproven() && self.rejected.is_none();
        if self.verified || unproven { Outcome::Success } else { Outcome::Rejected }
    }

    /// The table and the verdict.
    pub(super) fn render(&self) -> String {
        let mut out = format!("\n{}\n\n{}", self.headline(), self.shard_table().render());
        if !self.unproven() {
            out.push_str(&format!(
                "\nproving took {} of work in {} on the clock, all proofs together have {}\n",
                table::duration(self.prove_ms_sum),
                table::duration(self.prove_ms_wall as f64),
                table::bytes(self.proof_bytes)
            ));
        }
        out.push_str(&self.answers());
        out.push_str(&self.verdict());
        out
    }

    fn headline(&self) -> String {
        let shards = if self.shards == 1 { "one shard".to_owned() } else { format!("{} shards", self.shards) };
        let backends: Vec<String> = self.backends.iter().map(|kind| format!("{kind} ({})", kind.privacy())).collect();
        let backends = backends.join(" and ");
        if self.unproven() {
            return format!("{} in {shards}, {backends}", self.model);
        }
        let Self { model, boundary_mode, weights, .. } = self;
        format!("{model} in {shards}, proven with {backends}, boundaries {boundary_mode}, weights {weights}")
    }

    fn shard_table(&self) -> Table {
        let titles = [
            "shard",
            "role",
            ">layers",
            ">parameters",
            ">setup",
            ">run",
            ">prove",
            ">verify",
            ">proof",
            ">proving key",
            ">verifying key",
            ">memory",
        ];
        let mut table = Table::new(&titles);
        for (shard, layers) in self.per_shard.iter().zip(&self.layers) {
            table.row([
                shard.shard.to_string(),
                shard.role.to_owned(),
                layers.to_string(),
                table::number(shard.parameters),
                table::duration(shard.setup_ms),
                table::duration(shard.witness_ms),
                table::duration(shard.prove_ms),
                table::duration(shard.verify_ms),
                table::bytes(shard.proof_bytes),
                table::bytes(shard.proving_key_bytes),
                table::bytes(shard.verifying_key_bytes),
                table::bytes(shard.peak_rss_bytes),
            ]);
        }
        table
    }

    fn answers(&self) -> String {
        let kind = match (self.unproven(), self.verified) {
            (true, _) => "computed in floats, UNPROVEN",
            (_, true) => "the proven integers, dequantised",
            (_, false) => "the workers' integers, dequantised; NOT verified",
        };
        let error = self.max_abs_error.map_or_else(|| "-".to_owned(), |error| format!("{error:.6}"));
        format!(
            "\nanswer           {}   {kind}\nfloat reference  {}   the whole model in floats on this machine, unproven\n\
             largest error    {error}\n",
            table::values(&self.outputs),
            table::values(&self.float_outputs),
        )
    }

    fn verdict(&self) -> String {
        if let Some(rejected) = &self.rejected {
            return format!("\nREJECTED  {}\n", rejected.describe());
        }
        match (self.verified, self.unproven()) {
            (true, _) => format!(
                "\nVERIFIED  every shard is proven, the proofs chain, and every check passed offline in {}\n",
                table::duration(self.verify_ms)
            ),
            (false, true) => "\nUNPROVEN  float mode proves nothing; --backend gkr does\n".to_owned(),
            (false, false) => "\nNOT VERIFIED  not everything is proven\n".to_owned(),
        }
    }
}

impl ShardReport {
    fn of(index: usize, count: usize, run: &RunView, status: &StatusResponse) -> Self {
        let role = Role::of(ShardIndex(index as u32), count).as_str();
        let measured = run.shards.iter().find(|shard| shard.shard as usize == index);
        let setup = status.shards.iter().find(|shard| shard.shard as usize == index);
        let setup_of = |get: fn(&shardproof_proto::v1::ShardStatus) -> u64| setup.map_or(0, get);
        let run_of = |get: fn(&crate::run_view::ShardView) -> u64| measured.map_or(0, get);
        let time_of = |get: fn(&crate::run_view::ShardView) -> f64| measured.map_or(0.0, get);
        Self {
            shard: index as u32,
            role,
            parameters: setup_of(|shard| shard.parameters),
            setup_ms: table::ms(setup_of(|shard| shard.setup_us)),
            witness_ms: time_of(|shard| shard.witness_ms),
            prove_ms: time_of(|shard| shard.prove_ms),
            verify_ms: time_of(|shard| shard.verify_ms),
            proof_bytes: run_of(|shard| shard.proof_bytes),
            proving_key_bytes: setup_of(|shard| shard.proving_key_bytes),
            verifying_key_bytes: setup_of(|shard| shard.verifying_key_bytes),
            peak_rss_bytes: run_of(|shard| shard.peak_rss_bytes).max(setup_of(|shard| shard.setup_peak_rss_bytes)),
        }
    }
}

/// The backends, each once, in the order in which a run meets them.
fn distinct(kinds: impl Iterator<Item = BackendKind>) -> Vec<BackendKind> {
    kinds.fold(Vec::new(), |mut found, kind| {
        if !found.contains(&kind) {
            found.push(kind);
        }
        found
    })
}

/// The coordinator's rejection, or else the offline verifier's.
fn rejection(run: &RunView, report: Option<&Report>) -> Option<Rejection> {
    let offline = || {
        let refusal = report?.refusal()?;
        Some(Rejection {
            shard: refusal.shard.map(|shard| shard.0),
            worker: refusal.worker.map(|worker| worker.to_string()),
            reason: format!("check `{}`: {}", refusal.check, refusal.reason),
        })
    };
    run.rejected.clone().or_else(offline)
}

/// Largest absolute difference; nothing to say where the answers cannot be compared.
fn max_abs_error(outputs: &[f64], reference: &[f64]) -> Option<f64> {
    let comparable = !outputs.is_empty() && outputs.len() == reference.len();
    comparable.then(|| outputs.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(backend: BackendKind, verified: bool) -> DemoReport {
        DemoReport {
            run_id: "id".to_owned(),
            model: "mlp".to_owned(),
            backend: backend.to_string(),
            boundary_mode: "hashed".to_owned(),
            weights: "fixed".to_owned(),
            shards: 1,
            outputs: vec![1.0],
            float_outputs: vec![0.75],
            max_abs_error: max_abs_error(&[1.0], &[0.75]),
            verified,
            rejected: None,
            per_shard: vec![ShardReport {
                shard: 0,
                role: "SOLO",
                parameters: 711,
                setup_ms: 5_000.0,
                witness_ms: 40.0,
                prove_ms: 6_400.0,
                verify_ms: 41.0,
                proof_bytes: 17_100,
                proving_key_bytes: 138_000_000,
                verifying_key_bytes: 1_200,
                peak_rss_bytes: 900_000_000,
            }],
            prove_ms_sum: 6_400.0,
            prove_ms_wall: 6_500,
            verify_ms: 80.0,
            proof_bytes: 17_100,
            bundle: Some("run.bundle".into()),
            card: "card.json".into(),
            layers: vec![12],
            backends: vec![backend],
        }
    }

    #[test]
    fn the_json_has_exactly_the_promised_keys() {
        let json = serde_json::to_value(report(BackendKind::Ezkl, true)).expect("a report is JSON");
        let keys =
            |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let promised = [
            "run_id",
            "model",
            "backend",
            "boundary_mode",
            "weights",
            "shards",
            "outputs",
            "float_outputs",
            "max_abs_error",
            "verified",
            "rejected",
            "per_shard",
            "prove_ms_sum",
            "prove_ms_wall",
            "verify_ms",
            "proof_bytes",
            "bundle",
            "card",
        ];
        assert_eq!(keys(&json), promised);
        let per_shard = [
            "shard",
            "role",
            "parameters",
            "setup_ms",
            "witness_ms",
            "prove_ms",
            "verify_ms",
            "proof_bytes",
            "proving_key_bytes",
            "verifying_key_bytes",
            "peak_rss_bytes",
        ];
        assert_eq!(keys(&json["per_shard"][0]), per_shard);
        assert_eq!(json["rejected"], serde_json::Value::Null);
        assert_eq!(json["backend"], "ezkl");
    }

    #[test]
    fn the_verdict_follows_from_what_was_found() {
        let verified = report(BackendKind::Ezkl, true);
        assert_eq!(verified.outcome(), Outcome::Success);
        assert!(verified.render().contains("VERIFIED  every shard is proven"));
        assert!(verified.render().contains("largest error    0.250000"));

        let unproven = report(BackendKind::Float, false);
        assert_eq!(unproven.outcome(), Outcome::Success);
        assert!(unproven.render().contains("UNPROVEN  float mode"));

        let native = report(BackendKind::Gkr, true).render();
        assert!(native.contains("gkr (succinct, not zero-knowledge)"), "{native}");
        let mixed = DemoReport {
            backends: distinct([BackendKind::Gkr, BackendKind::Ezkl, BackendKind::Gkr].into_iter()),
            ..report(BackendKind::Gkr, true)
        };
        assert!(mixed.render().contains("gkr (succinct, not zero-knowledge) and ezkl (zero-knowledge)"));

        let partial = report(BackendKind::Ezkl, false);
        assert_eq!(partial.outcome(), Outcome::Rejected);
        assert!(partial.render().contains("NOT VERIFIED"));

        let rejected = Rejection { shard: Some(0), worker: None, reason: "no".to_owned() };
        let rejected = DemoReport { rejected: Some(rejected), ..report(BackendKind::Ezkl, false) };
        assert_eq!(rejected.outcome(), Outcome::Rejected);
        assert!(rejected.render().contains("REJECTED  shard 0: no"));
    }
}
