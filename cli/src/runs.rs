//! The commands that talk to a coordinator about runs: `infer`, `prove`, `watch`, `cancel`, `runs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use shardproof_common::card::ModelCard;
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::plan::BackendKind;
use shardproof_common::tensor::Tensor;
use shardproof_models::input;
use shardproof_proto::v1::Run;

use crate::audit::{self, AuditView, Followed};
use crate::cli::describe;
use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};
use crate::progress::Phase;
use crate::run_view::RunView;
use crate::table::{self, Table};

/// Runs the model on an input, through all shards.
///
/// Where the coordinator audits, takes part in the draw and checks it: exits 3 when the draw is not the right one.
#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// The model's input: a .npy file, or JSON as ezkl's users have it: {"input_data": [[...], ...]}.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Wait for a coordinator that is not there yet or still setting up.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Requests proofs of earlier runs, watches them, and fetches the bundles.
///
/// Several runs are proven together where the backend can, for less than as many proofs. Whoever is given the bundle of one of
/// them can then read the public boundaries of the others, their inputs and answers.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// The run's id; several to prove them together.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<RunId>,
    /// Prove only this shard; may be given several times.
    #[arg(long = "shard", value_name = "INDEX")]
    shards: Vec<u32>,
    /// Where the bundle goes, a file or a directory for RUN.bundle; for several runs the directory that their bundles go to
    /// [default: RUN.bundle here].
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Follows a run until nothing is under way; with --json one object a line.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The run's id.
    run: RunId,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Ends a run that has no answer yet, or stops the proofs of one that are still being made.
///
/// For the model's owner: with an admin's certificate or token or, without them, on the coordinator's machine. What an audit drew
/// is proven all the same. An answered run stays answered, and can be proven later.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The run's id.
    run: RunId,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Lists the latest runs.
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

#[derive(Serialize)]
struct Inferred {
    #[serde(flatten)]
    run: RunView,
    /// One for each shard, with commas, where they differ.
    backend: String,
    proven: bool,
    /// What is wrong with the coordinator's draw.
    wrong_draw: Option<String>,
}

#[derive(Serialize)]
struct Proved {
    #[serde(flatten)]
    run: RunView,
    bundle: Option<PathBuf>,
}

/// `shardproof infer`.
pub(crate) async fn infer(args: InferArgs, output: Output) -> Result<Outcome> {
    // A file that is not there is reported before anything waits.
    std::fs::File::open(&args.input).with_context(|| format!("{}: cannot read the input", args.input.display()))?;
    let client = if args.wait {
        let waiting =
            || output.say(&format!("no coordinator at {} yet: waiting for one", args.coordinator.coordinator));
        Client::connect_when_there(&args.coordinator, waiting).await?
    } else {
        Client::connect(&args.coordinator).await?
    };
    if args.wait {
        wait_until_serving(&client, output).await?;
    }
    let card = ModelCard::parse(&client.card().await?)?;
    let tensors = input::read_input(&args.input, &card.body.plan.boundaries[0].tensors).context("the input")?;
    let tensors: Vec<Tensor> = tensors.into_iter().map(Tensor::Float).collect();
    let Followed { view, wrong_draw, refused_nonce } = audit::submit_and_follow(&client, &tensors, output).await?;
    let mut outcome = view.outcome();
    if let Some(reason) = &refused_nonce {
        output.say(&format!("error: the coordinator did not take the nonce, so the run is not audited: {reason}"));
        outcome = outcome.worse(Outcome::Failure);
    }
    if let Some(reason) = &wrong_draw {
        output.say(&format!("error: the coordinator's draw is not the right one: {reason}"));
        outcome = Outcome::Rejected;
    }
    let backend = card.body.plan.backends();
    let inferred = Inferred { proven: view.state == "verified", run: view, backend, wrong_draw };
    output.data(&inferred, render_inferred)?;
    Ok(outcome)
}

fn render_inferred(inferred: &Inferred) -> String {
    let note = match (inferred.run.state, inferred.backend == BackendKind::Float.as_str()) {
        ("answered", true) => "\nThe answer is unproven: float mode proves nothing.\n".to_owned(),
        ("answered", false) => {
            format!("\nThe answer is not proven yet. Prove it with: shardproof prove {}\n", inferred.run.run)
        }
        _ => String::new(),
    };
    format!("backend {}\n{}{note}", inferred.backend, inferred.run.render())
}

/// Waits through the coordinator's setup and until every shard has a worker.
pub(crate) async fn wait_until_serving(client: &Client, output: Output) -> Result<()> {
    let mut phase: Option<Phase> = None;
    loop {
        let status = client.status().await?;
        if !status.failure.is_empty() {
            bail!("the coordinator could not set the model up: {}", status.failure);
        }
        let vacant: Vec<String> =
            status.shards.iter().filter(|shard| !shard.ready).map(|shard| shard.shard.to_string()).collect();
        let set_up = !status.card.is_empty();
        if set_up && vacant.is_empty() {
            return Ok(());
        }
        let step = if set_up { format!("waiting for workers for shards {}", vacant.join(", ")) } else { status.stage };
        let phase = phase.get_or_insert_with(|| Phase::begin("waiting for the coordinator to serve", output.verbose()));
        phase.step(&step);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Follows a run, showing where it is, until nothing is under way.
pub(crate) async fn follow(client: &Client, run: RunId, title: &str, output: Output) -> Result<RunView> {
    let mut phase = Phase::begin(title, output.verbose());
    let seen = |update: &Run| {
        phase.step(&RunView::read(update)?.progress());
        Ok(())
    };
    RunView::read(&client.watch(run, seen).await?)
}

/// `shardproof prove`.
pub(crate) async fn prove(args: ProveArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let shards: Vec<ShardIndex> = args.shards.iter().copied().map(ShardIndex).collect();
    let bundles = bundle_paths(&args.runs, args.out)?;
    client.prove(&args.runs, &shards).await?;
    if let [(run, path)] = bundles.as_slice() {
        let proved = conclude(&client, *run, path.clone(), output).await?;
        output.data(&proved, render_proved)?;
        return Ok(proved.run.outcome());
    }
    let (mut proved, mut outcome) = (Vec::new(), Outcome::Success);
    for (run, path) in bundles {
        match conclude(&client, run, path, output).await {
            Ok(one) => {
                outcome = outcome.worse(one.run.outcome());
                proved.push(one);
            }
            // The others have proofs all the same.
            Err(error) => {
                outcome = outcome.worse(Outcome::Failure);
                output.say(&format!("error: {}", describe(&error)));
            }
        }
    }
    output.data(&proved, |proved| proved.iter().map(render_proved).collect::<Vec<_>>().join("\n"))?;
    Ok(outcome)
}

/// Where the bundle of each run goes, which is seen to before anything is proven.
fn bundle_paths(runs: &[RunId], out: Option<PathBuf>) -> Result<Vec<(RunId, PathBuf)>> {
    let name = |run: &RunId| format!("{run}.bundle");
    let paths: Vec<(RunId, PathBuf)> = match (runs, out) {
        (&[run], Some(file)) if !file.is_dir() => vec![(run, file)],
        (runs, directory) => {
            let directory = directory.unwrap_or_default();
            if runs.len() > 1 && !directory.as_os_str().is_empty() {
                std::fs::create_dir_all(&directory)
                    .with_context(|| format!("--out {}: cannot make the directory", directory.display()))?;
            }
            runs.iter().map(|run| (*run, directory.join(name(run)))).collect()
        }
    };
    for (_, path) in &paths {
        anyhow::ensure!(!path.is_dir(), "{} is a directory: name another place with --out", path.display());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::tempfile_in(parent)
            .with_context(|| format!("{}: cannot write here: name another place with --out", parent.display()))?;
    }
    Ok(paths)
}

/// Follows a run to its verdict and fetches its bundle.
async fn conclude(client: &Client, run: RunId, path: PathBuf, output: Output) -> Result<Proved> {
    let view = follow(client, run, &format!("proving run {run}"), output).await?;
    anyhow::ensure!(view.state != "answered", "the proofs of run {run} were cancelled");
    // A rejected run has a bundle only where enough of it arrived; the verdict stands without it.
    let bundle = match (client.fetch_bundle(run, &path).await, view.outcome()) {
        (Ok(_), _) => Some(path),
        (Err(error), Outcome::Success) => {
            return Err(error).with_context(|| format!("the proofs of run {run} are there, but not their bundle"));
        }
        (Err(error), _) => {
            output.detail(&format!("no bundle: {error:#}"));
            None
        }
    };
    Ok(Proved { run: view, bundle })
}

fn render_proved(proved: &Proved) -> String {
    let next = match &proved.bundle {
        Some(path) if proved.run.outcome() == Outcome::Success => format!(
            "\nbundle  {0}\nVerify it yourself: shardproof card fetch --out card.json && shardproof verify {0} --card card.json\n",
            path.display()
        ),
        _ => String::new(),
    };
    proved.run.render() + &next
}

/// `shardproof watch`.
pub(crate) async fn watch(args: WatchArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let mut said = String::new();
    let last = client
        .watch(args.run, |update| {
            let view = RunView::read(update)?;
            let line = format!("{}  {}", view.state, view.progress());
            if output.json() || line != said {
                output.event(&view, |_| line.clone())?;
            }
            said = line;
            Ok(())
        })
        .await?;
    let view = RunView::read(&last)?;
    if !output.json() {
        output.data(&view, |view| format!("\n{}", view.render()))?;
    }
    Ok(view.outcome())
}

/// `shardproof cancel`.
pub(crate) async fn cancel(args: CancelArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let view = RunView::read(&client.cancel(args.run).await?)?;
    output.data(&view, |view| match view.state {
        "failed" => format!("run {} was cancelled\n", view.run),
        state => format!("the proofs of run {} were cancelled; it is {state}\n", view.run),
    })?;
    Ok(Outcome::Success)
}

/// `shardproof runs`.
pub(crate) async fn list(args: RunsArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let runs = client.list(args.limit).await?.iter().map(RunView::read).collect::<Result<Vec<_>>>()?;
    output.data(&runs, |runs| render_list(runs))?;
    let any_rejected = runs.iter().any(|run| run.outcome() == Outcome::Rejected);
    Ok(if any_rejected { Outcome::Rejected } else { Outcome::Success })
}

fn render_list(runs: &[RunView]) -> String {
    if runs.is_empty() {
        return "no runs yet\n".to_owned();
    }
    let mut table = Table::new(&["run", "state", ">proven", "audit", ">answer", "reason"]);
    for run in runs {
        let proven = run.shards.iter().filter(|shard| shard.proof == "verified").count();
        let reason = run.rejected.as_ref().map(|rejected| rejected.describe()).or_else(|| run.failure.clone());
        let answer = run.answer_bytes.map_or_else(String::new, table::bytes);
        table.row([
            run.run.clone(),
            run.state.to_owned(),
            format!("{proven} of {}", run.shards.len()),
            run.audit.as_ref().and_then(AuditView::describe).unwrap_or_default(),
            answer,
            reason.unwrap_or_default(),
        ]);
    }
    table.render()
}
