//! Model cards on the command line: shown and fetched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use shardproof_common::card::{MAX_CARD_BYTES, ModelCard, ShardKeys};
use shardproof_common::files;
use shardproof_common::format::{FormatError, read_capped};
use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::plan::{BackendOptions, BoundaryPlan};

use crate::card_check::{self, CheckArgs};
use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};
use crate::table::{self, Table};
use crate::verify;

#[derive(Debug, Subcommand)]
pub(crate) enum CardCommand {
    Show(ShowArgs),
    Fetch(FetchArgs),
    Check(Box<CheckArgs>),
}

/// Reads a card, checks that it is whole, and shows what it registers.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The card's file.
    card: PathBuf,
}

/// Fetches the card from a coordinator. Whether it is the owner's is for its reader to know: compare the owner's key.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Where the card goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

#[derive(Debug, Serialize)]
struct CardView {
    card: String,
    owner: String,
    name: String,
    model: String,
    plan: String,
    backend: String,
    weights: String,
    insecure_test_srs: bool,
    shards: Vec<ShardView>,
}

#[derive(Debug, Serialize)]
struct ShardView {
    shard: usize,
    role: Role,
    first_node: String,
    last_node: String,
    layers: u32,
    parameters: u64,
    logrows: Option<u32>,
    input: String,
    output: String,
    keys: String,
}

/// Runs a card command.
pub(crate) async fn run(command: CardCommand, output: Output) -> Result<Outcome> {
    match command {
        CardCommand::Show(args) => show(&args, output),
        CardCommand::Fetch(args) => fetch(&args, output).await,
        CardCommand::Check(args) => card_check::run(*args, output).await,
    }
}

/// Reads a card's file.
///
/// # Errors
/// The outer one when the file cannot be read, the inner when it holds no card that is whole.
pub(crate) fn read(path: &Path) -> Result<Result<ModelCard, String>> {
    match read_capped(path, MAX_CARD_BYTES) {
        Ok(bytes) => Ok(ModelCard::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))),
        Err(FormatError::TooLarge { bytes, cap }) => Ok(Err(format!(
            "{}: not a model card: it has {bytes} bytes, more than the {cap} that a card may have",
            path.display()
        ))),
        Err(error) => Err(error.into()),
    }
}

fn show(args: &ShowArgs, output: Output) -> Result<Outcome> {
    let card = match read(&args.card)? {
        Ok(card) => card,
        Err(reason) => return verify::reject_unreadable("card", reason, output),
    };
    output.data(&CardView::of(&card), CardView::render)?;
    Ok(Outcome::Success)
}

async fn fetch(args: &FetchArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let bytes = client.card().await?;
    let card = ModelCard::parse(&bytes).context("the coordinator's card")?;
    files::write_whole(&args.out, &bytes).with_context(|| format!("{}: cannot write the card", args.out.display()))?;
    output.say(&format!("wrote {}", args.out.display()));
    output.data(&CardView::of(&card), CardView::render)?;
    Ok(Outcome::Success)
}

/// How the card's weights are bound, for people: one word where that is the same for the whole plan.
pub(crate) fn weights(card: &ModelCard) -> String {
    words(card.body.plan.shards.iter().map(|shard| match &shard.backend {
        BackendOptions::Ezkl(options) => options.parameters.as_str(),
        BackendOptions::Gkr(options) => options.weights.as_str(),
        BackendOptions::Float => "unproven",
    }))
}

/// Words with commas, or one word where all are the same.
pub(crate) fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [first, rest @ ..] if rest.iter().all(|word| word == first) => (*first).to_owned(),
        words => words.join(","),
    }
}

/// Whether any shard's proofs rest on an SRS that is for tests only.
pub(crate) fn insecure_test_srs(card: &ModelCard) -> bool {
    card.body.shards.iter().any(|shard| shard.keys.insecure_test_srs())
}

impl CardView {
    fn of(card: &ModelCard) -> Self {
        let body = &card.body;
        let count = body.plan.shards.len();
        let shard = |index: usize| {
            let plan = &body.plan.shards[index];
            ShardView {
                shard: index,
                role: Role::of(ShardIndex(index as u32), count),
                first_node: plan.first_node.clone(),
                last_node: plan.last_node.clone(),
                layers: plan.layers,
                parameters: plan.parameters,
                logrows: match &body.shards[index].keys {
                    ShardKeys::Float | ShardKeys::Gkr(_) => None,
                    ShardKeys::Ezkl(keys) => Some(keys.srs.logrows),
                },
                input: describe(&body.plan.boundaries[index]),
                output: describe(&body.plan.boundaries[index + 1]),
                keys: body.shards[index].keys.digest().to_string(),
            }
        };
        let mut backends: Vec<String> = Vec::new();
        for backend in body.shards.iter().map(|shard| &shard.backend) {
            let described = format!("{} {} ({})", backend.kind, backend.version, backend.kind.privacy());
            if !backends.contains(&described) {
                backends.push(described);
            }
        }
        Self {
            card: card.digest().to_string(),
            owner: card.owner.to_string(),
            name: body.name.clone(),
            model: body.plan.model.to_string(),
            plan: body.plan.digest().to_string(),
            backend: backends.join(" and "),
            weights: weights(card),
            insecure_test_srs: insecure_test_srs(card),
            shards: (0..count).map(shard).collect(),
        }
    }

    fn render(&self) -> String {
        let mut out = format!(
            "card     {}\nowner    {}\nname     {}\nmodel    {}\nplan     {}\nbackend  {}\nweights  {}\n",
            self.card, self.owner, self.name, self.model, self.plan, self.backend, self.weights
        );
        if self.insecure_test_srs {
            out.push_str(
                "SRS      INSECURE TEST SRS: proofs under this card convince nobody; they are for trying things out\n",
            );
        }
        let mut table =
            Table::new(&["shard", "role", "nodes", ">layers", ">parameters", ">k", "input", "output", "keys"]);
        for shard in &self.shards {
            table.row([
                shard.shard.to_string(),
                shard.role.to_string(),
                format!("{}..{}", shard.first_node, shard.last_node),
                shard.layers.to_string(),
                table::number(shard.parameters),
                shard.logrows.map_or_else(|| "-".to_owned(), |k| k.to_string()),
                shard.input.clone(),
                shard.output.clone(),
                shard.keys.chars().take(8).collect(),
            ]);
        }
        out + "\n" + &table.render()
    }
}

/// Shapes and mode of a boundary.
pub(crate) fn describe(boundary: &BoundaryPlan) -> String {
    let shapes: Vec<String> = boundary.tensors.iter().map(|tensor| table::shape(&tensor.shape)).collect();
    format!("{} {}", shapes.join(" + "), boundary.mode)
}
