//! `shardproof demo`: everything on this machine, real processes, one command.
//!
//! The demo plays all parts: it starts a coordinator and one worker per shard, sends an input as a client would, requests
//! proofs, and then verifies the bundle as somebody would who trusts none of them. What it leaves behind is what such a
//! verifier needs (bundle, card, model, input, answer) and the logs; no process outlives it.

mod certificates;
mod children;
mod directory;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::Report;
use shardproof_common::files;
use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::plan::BackendKind;
use shardproof_common::tensor::Tensor;
use shardproof_coordinator::PlanArgs;
use shardproof_proto::transport::{Party, Transport};
use shardproof_proto::v1::StatusResponse;
use shardproof_worker::TIMINGS_HEADER;

use crate::backends::EzklChoice;
use crate::client::Client;
use crate::model::{self, ChosenInput, ChosenModel};
use crate::output::{Outcome, Output};
use crate::progress::Phase;
use crate::run_view::RunView;
use crate::verify::Verification;
use crate::{answer, card, job, runs};

use certificates::Certificates;
use children::{Service, Services};
use directory::DemoDirectory;
use report::{DemoReport, Gathered};

/// How often the coordinator is asked where its setup is.
const POLL: Duration = Duration::from_millis(150);

/// Runs a model in shards on this machine, proves every shard, and verifies the proofs: real processes, one command.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Zoo model (mlp, cnn, mlp2, attention, testing) or path of an .onnx file.
    #[arg(default_value = "mlp")]
    model: String,
    /// Number of shards, one worker process each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    shards: u32,
    #[command(flatten)]
    plan: PlanArgs,
    /// The model's input: .npy, or JSON as ezkl's users have it [default: a sample that ships with the model].
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where bundle, card and logs go [default: a new temporary directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// gkr: write where each proof's time went here, CSV with one row for each step and layer.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
    /// Keep the data of coordinator and workers (proving keys take much room).
    #[arg(long)]
    keep: bool,
    /// Have all of them speak TLS, with certificates of an authority that is made for this demo alone.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    ezkl: EzklChoice,
    /// Delay every proof, to see proofs of different shards overlap.
    #[arg(long, value_name = "MS", hide = true)]
    worker_delay_ms: Option<u64>,
}

/// What setup gave.
struct Served {
    client: Client,
    status: StatusResponse,
    card: ModelCard,
}

/// `shardproof demo`.
pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<Outcome> {
    if args.shards == 0 {
        return Err(crate::cli::Usage("--shards: at least one".to_owned()).into());
    }
    // All that can be wrong with model and input is said before anything starts.
    let model = ChosenModel::load(&args.model, &args.plan.load_options())?;
    let possible = model.model.max_shards();
    if args.shards as usize > possible {
        bail!(
            "{} can be cut into at most {possible} shards, not {}: give --shards {possible} or less",
            args.model,
            args.shards
        );
    }
    let input = model.choose_input(args.input.as_deref())?;
    model.check_samples(args.plan.samples.as_deref())?;
    let float_outputs = model.float_answer(&input.tensors)?;
    // A plan that cannot be is refused here as well, where it can be said at once.
    args.plan.split(&model.model, args.shards as usize)?;
    if let Some(path) = &args.timings {
        files::write_whole(path, TIMINGS_HEADER.as_bytes())
            .with_context(|| format!("{}: cannot write the timings", path.display()))?;
    }
    let directory = DemoDirectory::create(args.out.as_deref(), args.keep)?;
    output.say(&format!("demo of {} in {}", args.model, directory.path().display()));
    output.say(&format!("input: {}", input.described));

    let mut services = Services::default();
    let body = body(&args, &model, &input, &float_outputs, &directory, &mut services, output);
    let result = tokio::select! {
        result = body => result.map_err(Failed::Work),
        interrupted = job::interruption() => Err(Failed::Interrupted(interrupted)),
    };
    let result = match result {
        Ok(outcome) => Ok(outcome),
        Err(Failed::Work(error)) => Err(services.explain(error).await),
        Err(Failed::Interrupted(error)) => Err(error),
    };
    services.stop().await;
    result.with_context(|| format!("the demo failed; its logs are in {}", directory.path().display()))
}

/// Why a demo has no outcome.
enum Failed {
    Work(anyhow::Error),
    Interrupted(anyhow::Error),
}

async fn body(
    args: &DemoArgs,
    model: &ChosenModel,
    input: &ChosenInput,
    float_outputs: &[f64],
    directory: &DemoDirectory,
    services: &mut Services,
    output: Output,
) -> Result<Outcome> {
    announce_first_use(args, output);
    directory.write_model(&model.source)?;
    model::write_input(&directory.input(), &input.tensors)?;
    let served = serve(args, directory, services, output).await?;
    let card = directory.card();
    files::write_whole(&card, served.card.to_json().as_bytes())
        .with_context(|| format!("{}: cannot write the card", card.display()))?;

    let run = infer_and_prove(args, &served, input, services, output).await?;
    if let Some(outputs) = &run.outputs {
        answer::write(&directory.answer(), outputs)?;
    }
    let verification = verify(args, &served, &run, input, directory, output).await?;
    let report = DemoReport::of(Gathered {
        model: &args.model,
        run: &run,
        status: &served.status,
        card: &served.card,
        float_outputs,
        verification: verification.as_ref().map(|(report, ms)| (report, *ms)),
        bundle: verification.as_ref().map(|_| directory.bundle()).as_deref(),
        card_path: &directory.card(),
    });
    output
        .data(&report, |report| report.render() + &directory.next_steps(args, &served.card, verification.is_some()))?;
    Ok(report.outcome())
}

fn announce_first_use(args: &DemoArgs, output: Output) {
    if args.plan.backend.include(BackendKind::Ezkl)
        && let Some(message) = args.ezkl.first_use()
    {
        output.say(&message);
    }
}

/// Starts coordinator and workers and waits until they serve.
async fn serve(args: &DemoArgs, directory: &DemoDirectory, services: &mut Services, output: Output) -> Result<Served> {
    let mut phase = Phase::begin("starting the coordinator and the workers", output.verbose());
    let certificates = args.tls.then(|| Certificates::make(directory)).transpose()?;
    let tls_args = |party, name: &str| match &certificates {
        Some(certificates) => certificates.issue(party, name),
        None => Ok(Vec::new()),
    };
    let mut coordinator_args: Vec<String> =
        ["coordinator", "127.0.0.1", "0", &args.shards.to_string(), &args.model].map(str::to_owned).to_vec();
    coordinator_args.extend(args.plan.to_args());
    coordinator_args.extend(args.ezkl.to_args());
    coordinator_args.extend(directory.data_dir_args("coordinator")?);
    coordinator_args.extend(tls_args(Party::Coordinator, "coordinator")?);
    let (coordinator, address) = Service::start("coordinator", &coordinator_args, directory.path()).await?;
    services.push(coordinator);
    let (host, port) = address.rsplit_once(':').context("the coordinator's address has no port")?;
    for shard in 0..args.shards {
        let role = Role::of(ShardIndex(shard), args.shards as usize);
        let name = format!("worker-{shard}");
        let mut worker_args: Vec<String> =
            ["worker", "127.0.0.1", "0", host, port, role.as_str()].map(str::to_owned).to_vec();
        worker_args.extend(args.ezkl.to_args());
        worker_args.extend(directory.data_dir_args(&name)?);
        worker_args.extend(tls_args(Party::Worker, &name)?);
        if let Some(path) = &args.timings {
            worker_args.push(format!("--timings={}", path.display()));
        }
        if let Some(delay) = args.worker_delay_ms {
            worker_args.extend(["--prove-delay-ms".to_owned(), delay.to_string()]);
        }
        services.push(Service::start(&name, &worker_args, directory.path()).await?.0);
    }
    output.detail(&format!("coordinator and workers: processes {:?}", services.ids()));

    let transport = match &certificates {
        Some(certificates) => certificates.client()?,
        None => Transport::plaintext(),
    };
    let client = Client::connect_by(&transport, &address).await?;
    loop {
        services.check_alive()?;
        let status = client.status().await?;
        if !status.failure.is_empty() {
            bail!("the model could not be set up: {}", status.failure);
        }
        let set_up = !status.card.is_empty();
        if set_up && status.shards.len() == args.shards as usize && status.shards.iter().all(|shard| shard.ready) {
            let card = ModelCard::parse(&status.card).context("the coordinator's card")?;
            drop(phase);
            if card::insecure_test_srs(&card) {
                output.warn(
                    "this demo uses an INSECURE TEST SRS, made on this machine: whoever made it can forge proofs, so these \
                     convince nobody. Real use takes the file of a trusted ceremony (coordinator --srs FILE).",
                );
            }
            return Ok(Served { client, status, card });
        }
        phase.step(&if set_up { "handing the shards to the workers".to_owned() } else { status.stage });
        tokio::time::sleep(POLL).await;
    }
}

/// Runs the input and, unless in float mode, proves every shard.
async fn infer_and_prove(
    args: &DemoArgs,
    served: &Served,
    input: &ChosenInput,
    services: &mut Services,
    output: Output,
) -> Result<RunView> {
    let tensors: Vec<Tensor> = input.tensors.iter().cloned().map(Tensor::Float).collect();
    let accepted = served.client.submit(&tensors, None).await?;
    let run = RunView::read(&accepted)?.run.parse()?;
    let answered = runs::follow(&served.client, run, "running the input through all shards", output).await?;
    if let Some(failure) = &answered.failure {
        services.check_alive()?;
        bail!("the run failed: {failure}");
    }
    if args.plan.backend.prove_nothing() || answered.state == "rejected" {
        return Ok(answered);
    }
    served.client.prove(&[run], &[]).await?;
    runs::follow(&served.client, run, "proving every shard", output).await
}

/// Fetches the bundle and verifies it offline, with everything supplied that can be compared. Returns the verifier's report
/// and how long it took, ms; nothing in float mode and for runs that are rejected without a bundle.
async fn verify(
    args: &DemoArgs,
    served: &Served,
    run: &RunView,
    input: &ChosenInput,
    directory: &DemoDirectory,
    output: Output,
) -> Result<Option<(Report, f64)>> {
    if args.plan.backend.prove_nothing() {
        return Ok(None);
    }
    let path = directory.bundle();
    match served.client.fetch_bundle(run.run.parse()?, &path).await {
        Ok(_) => {}
        Err(error) if run.outcome() == Outcome::Success => return Err(error),
        Err(error) => {
            output.detail(&format!("no bundle: {error:#}"));
            return Ok(None);
        }
    }
    let verification = Verification {
        bundle: std::fs::read(&path).with_context(|| format!("{}: cannot read the bundle", path.display()))?,
        card: served.card.clone(),
        owner_key: directory.owner_key()?,
        model: Some(directory.model_digest()?),
        input: Some(input.tensors.clone()),
        output: run.outputs.clone(),
        allow_test_srs: card::insecure_test_srs(&served.card),
        ezkl: args.ezkl.clone(),
    };
    let started = Instant::now();
    let report = verification.run(output).await?;
    Ok(Some((report, started.elapsed().as_secs_f64() * 1e3)))
}
