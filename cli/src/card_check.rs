//! `shardproof card check`: whoever has the model recomputes what its card states, and so need not take the owner's word
//! that the registered circuits are the model.
//!
//! Recomputed are the digests of model, architecture and plan with every shard, and the verifying keys under the registered
//! settings; the settings are compared with the plan. A verifying key fixes the circuit with its weights where they are
//! `fixed`; where they are `hashed`, the hashes are recomputed too; where they are `private`, nothing binds them, and the
//! check says so.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use shardproof_common::backend::{Job, Registered};
use shardproof_common::card::{EzklKeys, ModelCard, ShardKeys};
use shardproof_common::plan::{BackendOptions, ParameterVisibility, Plan};
use shardproof_ezkl::steps::Steps;
use shardproof_ezkl::{EzklBackend, EzklConfig};
use shardproof_models::{BoundaryModes, Split, SplitRequest, Strategy};

use crate::backends::EzklChoice;
use crate::model::{self, ChosenModel};
use crate::output::{Outcome, Output};
use crate::plan_options::load_options;
use crate::{card, job};

/// Recomputes from the model what its card states: plan, shards, verifying keys. Exits 3 when they differ.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Zoo model (mlp, cnn, mlp2, attention, testing) or path of an .onnx file.
    model: String,
    /// The card.
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Size of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N")]
    dims: Vec<String>,
    /// SRS file under which the keys were made [default: the cached test SRS].
    #[arg(long, value_name = "FILE")]
    srs: Option<PathBuf>,
    #[command(flatten)]
    ezkl: EzklChoice,
}

/// What became of each thing that the card states.
#[derive(Debug, Serialize)]
struct CheckReport {
    model: String,
    card: String,
    agrees: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Debug, Serialize)]
#[serde(tag = "finding", content = "reason", rename_all = "kebab-case")]
enum Finding {
    Same,
    Differs(String),
    /// There is nothing to compare; never counted as the same.
    Unbound(String),
}

/// `shardproof card check`.
pub(crate) async fn run(args: CheckArgs, output: Output) -> Result<Outcome> {
    let card = match card::read(&args.card)? {
        Ok(card) => card,
        Err(reason) => {
            output.say(&format!("rejected: {reason}"));
            return Ok(Outcome::Rejected);
        }
    };
    let chosen = ChosenModel::load(&args.model, &load_options(&args.dims)?)?;
    let mut config = args.ezkl.config();
    config.srs = args.srs;
    let report = job::run("recomputing the card", output, move |job| check(&chosen, &card, &config, job)).await?;
    output.data(&report, CheckReport::render)?;
    Ok(if report.agrees { Outcome::Success } else { Outcome::Rejected })
}

fn check(chosen: &ChosenModel, card: &ModelCard, config: &EzklConfig, job: &Job<'_>) -> Result<CheckReport> {
    let plan = &card.body.plan;
    let mut lines = vec![
        same("model file", &plan.model, &chosen.model.digest()),
        same("architecture", &plan.architecture, &chosen.model.architecture()),
    ];
    let split = split_as(chosen, plan).filter(|_| lines.iter().all(Line::is_same));
    match split {
        None => lines.push(Line {
            what: "plan".to_owned(),
            finding: Finding::Differs("no way of cutting this model gives the card's plan".to_owned()),
        }),
        Some(split) => {
            lines.push(same("plan", &plan.digest(), &split.plan.digest()));
            for index in 0..plan.shards.len() {
                (job.progress)(&format!("shard {} of {}", index + 1, plan.shards.len()));
                lines.extend(check_shard(index, chosen, &split, card, config, job)?);
            }
        }
    }
    Ok(CheckReport {
        model: plan.model.to_string(),
        card: card.digest().to_string(),
        agrees: lines.iter().all(Line::is_same),
        lines,
    })
}

/// Cuts the model as the plan says, by whichever strategy the owner used.
fn split_as(chosen: &ChosenModel, plan: &Plan) -> Option<Split> {
    let first = plan.boundaries.first()?.mode;
    let last = plan.boundaries.last()?.mode;
    let inner = plan.boundaries.get(1).filter(|_| plan.shards.len() > 1).map_or(last, |boundary| boundary.mode);
    let modes = BoundaryModes { input: first, inner, output: last };
    [Strategy::Balanced, Strategy::Layers].into_iter().find_map(|strategy| {
        let backend = |shard: shardproof_common::ids::ShardIndex| {
            plan.shard(shard).map_or(BackendOptions::Float, |shard| shard.backend.clone())
        };
        let request = SplitRequest { shards: plan.shards.len(), strategy, backend: &backend, modes };
        chosen.model.split(&request).ok().filter(|split| split.plan == *plan)
    })
}

fn check_shard(
    index: usize,
    chosen: &ChosenModel,
    split: &Split,
    card: &ModelCard,
    config: &EzklConfig,
    job: &Job<'_>,
) -> Result<Vec<Line>> {
    let shard = &card.body.shards[index];
    let options = &card.body.plan.shards[index].backend;
    let (ShardKeys::Ezkl(keys), BackendOptions::Ezkl(ezkl)) = (&shard.keys, options) else {
        return Ok(Vec::new());
    };
    let (input, output) = (&card.body.plan.boundaries[index], &card.body.plan.boundaries[index + 1]);
    let registered = Registered { options, input_mode: input.mode, output_mode: output.mode };
    let verifiers = EzklChoice::verifiers_of(config);
    let settings = verifiers.iter().filter(|verifier| verifier.kind() == shard.backend.kind);
    let settings = settings.map(|verifier| verifier.check_settings(shard, &registered)).collect::<Result<Vec<()>, _>>();
    let mut lines = vec![Line::of(index, "settings", settings.map_or_else(Finding::Differs, |_| Finding::Same))];

    let model = job.directory.join(format!("shard-{index}.onnx"));
    std::fs::write(&model, &split.shards[index].onnx)
        .with_context(|| format!("{}: cannot write the shard", model.display()))?;
    let found = EzklBackend::new(config.clone()).verifying_key(&model, &keys.settings, &keys.srs, job)?;
    lines.push(Line::of(index, "verifying key", compare(&keys.verifying_key, &found)));
    lines.push(Line::of(
        index,
        "weights",
        match ezkl.parameters {
            // The key just compared was made from them.
            ParameterVisibility::Fixed => compare(&keys.verifying_key, &found),
            ParameterVisibility::Hashed => {
                let found = parameter_hashes(&model, keys, chosen, &split.shards[..index], config, job)?;
                compare(&keys.parameter_hashes.join(" "), &found.join(" "))
            }
            ParameterVisibility::Private => Finding::Unbound("private weights are bound by nothing".to_owned()),
        },
    ));
    Ok(lines)
}

/// The hashes of a shard's weights, out of a witness for some input: they do not depend on which.
fn parameter_hashes(
    model: &Path,
    keys: &EzklKeys,
    chosen: &ChosenModel,
    before: &[shardproof_models::Shard],
    config: &EzklConfig,
    job: &Job<'_>,
) -> Result<Vec<String>> {
    let steps = Steps::new(config.clone());
    let file = |name: &str| job.directory.join(name);
    let (settings, circuit, data, witness) =
        (file("settings.json"), file("circuit"), file("data.json"), file("witness.json"));
    std::fs::write(&settings, &keys.settings).with_context(|| format!("{}: cannot write", settings.display()))?;
    let mut tensors = chosen.choose_input(None)?.tensors;
    for shard in before {
        tensors = shardproof_models::FloatShard::load(&shard.onnx)?.run(&tensors)?;
    }
    model::write_input(&data, &tensors)?;
    steps.compile(model, &settings, &circuit, job)?;
    steps.witness(&data, &circuit, &witness, None, job)?;
    let text = std::fs::read(&witness).with_context(|| format!("{}: cannot read", witness.display()))?;
    let made: serde_json::Value = serde_json::from_slice(&text).context("ezkl's witness is not JSON")?;
    let hashes = made["processed_params"]["poseidon_hash"].as_array();
    let hashes = hashes.context("ezkl's witness has no hash of the weights")?;
    hashes.iter().map(|hash| Ok(hash.as_str().context("a hash in ezkl's witness is not text")?.to_owned())).collect()
}

fn same<T: PartialEq + std::fmt::Display>(what: &str, stated: &T, found: &T) -> Line {
    Line { what: what.to_owned(), finding: compare(stated, found) }
}

fn compare<T: PartialEq + std::fmt::Display>(stated: &T, found: &T) -> Finding {
    if stated == found {
        Finding::Same
    } else {
        Finding::Differs(format!("the card states {stated}, the model gives {found}"))
    }
}

impl Line {
    fn of(shard: usize, what: &str, finding: Finding) -> Self {
        Self { what: format!("shard {shard}: {what}"), finding }
    }

    const fn is_same(&self) -> bool {
        matches!(self.finding, Finding::Same)
    }
}

impl CheckReport {
    fn render(&self) -> String {
        let mut out = String::new();
        for Line { what, finding } in &self.lines {
            let words = match finding {
                Finding::Same => "same".to_owned(),
                Finding::Differs(reason) => format!("DIFFERS  {reason}"),
                Finding::Unbound(reason) => format!("UNBOUND  {reason}"),
            };
            out.push_str(&format!("{what:<24} {words}\n"));
        }
        out.push_str(match self.agrees {
            true => "\nThe card is this model's.\n",
            false => "\nREJECTED: the card is not bound to this model, see above.\n",
        });
        out
    }
}
