//! A proof system for tests, and honest runs to forge from.
//!
//! The mock binds what ezkl binds and no more: verifying key, public instances, weights. It knows neither run nor worker, so
//! that a check which leaned on the proof for those would show.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use shardproof_common::backend::{BackendError, Job, Limits, ProofVerifier, Registered, VerifyError, VerifyRequest};
use shardproof_common::bundle::{Bundle, ShardProof, ShardRecord};
use shardproof_common::card::{CardBody, EzklKeys, GkrKeys, ModelCard, ShardCard, ShardKeys, Srs};
use shardproof_common::chain::{self, ChainError, Check, Outcome, Report, Status, VerifyOptions};
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, BoundaryPlan, BoundaryTensor, EzklOptions, GkrOptions,
    ParameterVisibility, Plan, ShardPlan, WeightVisibility,
};
use shardproof_common::receipt::{Admission, Identity, Receipt};
use shardproof_common::statement::{BackendId, Binding, Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, TensorSpec, encode_boundary};
use tokio_util::sync::CancellationToken;

pub const VERSION: &str = "mock 1.0";
const SECRET: &[u8; 32] = b"the mock proof system's own key.";

/// Calls `action` with a job that has no limits.
pub fn with_job<T>(action: impl FnOnce(&Job<'_>) -> T) -> T {
    let (cancel, progress) = (CancellationToken::new(), |_: &str| {});
    action(&Job { directory: Path::new("."), limits: Limits::default(), cancel: &cancel, progress: &progress })
}

#[derive(Serialize, Deserialize)]
pub struct MockProof {
    pub instances: Vec<Vec<u8>>,
    pub weights: Vec<String>,
    pub seal: [u8; 32],
}

impl MockProof {
    pub fn make(verifying_key: &[u8], instances: Vec<Vec<u8>>, weights: Vec<String>) -> Self {
        let seal = Self::seal(verifying_key, &instances, &weights);
        Self { instances, weights, seal }
    }

    pub fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap()
    }

    fn seal(verifying_key: &[u8], instances: &[Vec<u8>], weights: &[String]) -> [u8; 32] {
        let sealed = postcard::to_stdvec(&(verifying_key, instances, weights)).unwrap();
        *blake3::keyed_hash(SECRET, &sealed).as_bytes()
    }
}

/// One instance per integer of a public boundary, one per tensor of a committed one.
pub fn instances(boundary: &Boundary, tensors: Option<&[Tensor]>) -> Vec<Vec<u8>> {
    match &boundary.binding {
        Binding::Committed(commitments) => commitments.clone(),
        Binding::Public(_) => {
            let tensors = tensors.expect("the chain verifier hands over the tensors of public boundaries");
            let values = tensors.iter().flat_map(|tensor| &tensor.as_integer().unwrap().values);
            values.map(|value| value.to_le_bytes().to_vec()).collect()
        }
    }
}

/// A commitment to one tensor.
pub fn commit(tensor: &Tensor) -> Vec<u8> {
    blake3::keyed_hash(SECRET, &encode_boundary(std::slice::from_ref(tensor))).as_bytes().to_vec()
}

/// The verifier half of the mock.
pub struct MockVerifier {
    pub kind: BackendKind,
    pub version: &'static str,
    pub broken: bool,
    pub calls: AtomicUsize,
}

impl MockVerifier {
    /// The same for shards that [`Scenario::gkr`] made native.
    pub fn native() -> Self {
        Self { kind: BackendKind::Gkr, ..Self::new() }
    }

    pub fn new() -> Self {
        Self { kind: BackendKind::Ezkl, version: VERSION, broken: false, calls: AtomicUsize::new(0) }
    }
}

impl ProofVerifier for MockVerifier {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn pinned_version(&self) -> &str {
        self.version
    }

    fn check_settings(&self, card: &ShardCard, registered: &Registered<'_>) -> Result<(), String> {
        let ShardKeys::Ezkl(keys) = &card.keys else { return Ok(()) };
        let settings: serde_json::Value = serde_json::from_str(&keys.settings).map_err(|error| error.to_string())?;
        if settings["range_checks"] != true {
            return Err("range checks are off".to_owned());
        }
        for (side, mode) in [("input_mode", registered.input_mode), ("output_mode", registered.output_mode)] {
            if settings[side] != mode.as_str() {
                return Err(format!("{side} is {}, the plan says {mode}", settings[side]));
            }
        }
        Ok(())
    }

    fn check_verifying_key(&self, _card: &ShardCard, verifying_key: &[u8]) -> Result<(), String> {
        if verifying_key.starts_with(b"verifying key ") {
            Ok(())
        } else {
            Err("the key is of another graph".to_owned())
        }
    }

    fn verify(&self, request: &VerifyRequest<'_>, _job: &Job<'_>) -> Result<(), VerifyError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.broken {
            return Err(VerifyError::Unavailable(BackendError::Limit("out of memory".to_owned())));
        }
        let (proof, rest) = postcard::take_from_bytes::<MockProof>(request.proof)
            .map_err(|error| VerifyError::Rejected(format!("not a proof: {error}")))?;
        if !rest.is_empty() || proof.bytes() != request.proof {
            return Err(VerifyError::Rejected("not canonical".to_owned()));
        }
        let mut expected = instances(&request.statement.input, request.input);
        expected.extend(instances(&request.statement.output, request.output));
        if proof.instances != expected {
            return Err(VerifyError::Instances(format!("expected {} instances, others found", expected.len())));
        }
        if proof.weights != request.card.keys.parameter_hashes() {
            return Err(VerifyError::Weights("the hashes of the weights are not the registered ones".to_owned()));
        }
        if proof.seal != MockProof::seal(request.verifying_key, &proof.instances, &proof.weights) {
            return Err(VerifyError::Rejected("the seal does not hold".to_owned()));
        }
        Ok(())
    }
}

/// What one worker does: its view of its boundaries and its proof.
pub struct Claim {
    pub worker: Identity,
    pub input: Vec<Tensor>,
    pub output: Vec<Tensor>,
    pub verifying_key: Vec<u8>,
    pub weights: Vec<String>,
    pub proven: bool,
}

/// A run before it is signed. Change any of it, then [`Scenario::seal`].
pub struct Scenario {
    pub owner: Identity,
    pub authority: Identity,
    pub body: CardBody,
    pub run: RunId,
    pub claims: Vec<Claim>,
    pub shown: Vec<Option<Vec<Tensor>>>,
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

pub fn integers(shape: &[u64], scale: i32, first: i64) -> Tensor {
    let values = (0..shape.iter().product::<u64>() as i64).map(|i| first + i * 3 - 4).collect();
    Tensor::Integer(IntegerTensor { shape: shape.to_vec(), scale, values })
}

fn boundary_tensors(boundary: usize, shards: usize) -> Vec<(String, Tensor)> {
    let scale = 7 + boundary as i32;
    let mut tensors = vec![(format!("x{boundary}"), integers(&[1, 3], scale, boundary as i64 * 10))];
    if boundary > 0 && boundary < shards {
        tensors.push((format!("skip{boundary}"), integers(&[2], scale + 1, -20)));
    }
    tensors
}

impl Scenario {
    /// An honest run of `shards` shards whose inner boundaries are of `mode`, every shard proven.
    pub fn new(shards: usize, mode: BoundaryMode) -> Self {
        let mode_of = |i: usize| if i == 0 || i == shards { BoundaryMode::Public } else { mode };
        let named: Vec<_> = (0..=shards).map(|i| boundary_tensors(i, shards)).collect();
        let values = |i: usize| named[i].iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>();
        let planned =
            |(name, tensor): &(String, Tensor)| BoundaryTensor { name: name.clone(), shape: tensor.shape().to_vec() };
        let specs = |i: usize| -> Vec<TensorSpec> { named[i].iter().map(spec).collect() };
        let plan = Plan {
            protocol: PROTOCOL_VERSION,
            model: Digest::of(b"model"),
            architecture: Digest::of(b"architecture"),
            shards: (0..shards).map(shard_plan).collect(),
            boundaries: (0..=shards)
                .map(|i| BoundaryPlan { tensors: named[i].iter().map(planned).collect(), mode: mode_of(i) })
                .collect(),
        };
        let cards = (0..shards).map(|i| ShardCard {
            backend: BackendId { kind: BackendKind::Ezkl, version: VERSION.to_owned() },
            input: specs(i),
            output: specs(i + 1),
            keys: ShardKeys::Ezkl(Box::new(EzklKeys {
                verifying_key: Digest::of(&verifying_key(i)),
                settings: settings(mode_of(i), mode_of(i + 1)),
                srs: Srs { logrows: 15, insecure_test: false, verifier: "00".to_owned() },
                parameter_hashes: Vec::new(),
            })),
        });
        let body = CardBody {
            protocol: PROTOCOL_VERSION,
            name: "mock".to_owned(),
            plan,
            shards: cards.collect(),
            authority: identity(2).public(),
        };
        let claim = |i: usize| Claim {
            worker: identity(10 + i as u8),
            input: values(i),
            output: values(i + 1),
            verifying_key: verifying_key(i),
            weights: Vec::new(),
            proven: true,
        };
        Self {
            owner: identity(1),
            authority: identity(2),
            body,
            run: RunId::from_bytes([7; 16]),
            claims: (0..shards).map(claim).collect(),
            shown: (0..=shards).map(|i| (mode_of(i) == BoundaryMode::Public).then(|| values(i))).collect(),
        }
    }

    /// The same run in `float` mode.
    pub fn float(shards: usize) -> Self {
        let mut scenario = Self::new(shards, BoundaryMode::Public);
        let to_float = |tensor: &Tensor| {
            let values = tensor.to_reals().iter().map(|&x| x as f32).collect();
            Tensor::Float(FloatTensor { shape: tensor.shape().to_vec(), values })
        };
        for (plan, card) in scenario.body.plan.shards.iter_mut().zip(&mut scenario.body.shards) {
            plan.backend = BackendOptions::Float;
            card.backend = BackendId { kind: BackendKind::Float, version: "1".to_owned() };
            card.keys = ShardKeys::Float;
            card.input.iter_mut().chain(&mut card.output).for_each(|spec| spec.scale = 0);
        }
        for claim in &mut scenario.claims {
            claim.input = claim.input.iter().map(to_float).collect();
            claim.output = claim.output.iter().map(to_float).collect();
            claim.proven = false;
        }
        for tensors in scenario.shown.iter_mut().flatten() {
            *tensors = tensors.iter().map(to_float).collect();
        }
        scenario
    }

    /// Makes a shard one of the native backend, and its boundaries what that can have.
    pub fn gkr(&mut self, shard: usize, weights: WeightVisibility) {
        let verifying_key = self.body.shards[shard].keys.verifying_key().unwrap();
        self.body.plan.shards[shard].backend = BackendOptions::Gkr(GkrOptions { weights, ..GkrOptions::default() });
        self.body.shards[shard].backend = BackendId { kind: BackendKind::Gkr, version: VERSION.to_owned() };
        self.body.shards[shard].keys = ShardKeys::Gkr(GkrKeys { verifying_key, weights: Some(weights) });
    }

    /// An honest run of native shards with committed inner boundaries.
    pub fn native(shards: usize) -> Self {
        let mut scenario = Self::new(shards, BoundaryMode::Committed);
        (0..shards).for_each(|shard| scenario.gkr(shard, WeightVisibility::Committed));
        scenario
    }

    /// The native keys of a shard.
    pub fn gkr_keys(&mut self, shard: usize) -> &mut GkrKeys {
        match &mut self.body.shards[shard].keys {
            ShardKeys::Gkr(keys) => keys,
            ShardKeys::Float | ShardKeys::Ezkl(_) => panic!("shard {shard} has no gkr keys"),
        }
    }

    pub fn keys(&mut self, shard: usize) -> &mut EzklKeys {
        match &mut self.body.shards[shard].keys {
            ShardKeys::Ezkl(keys) => keys,
            ShardKeys::Float | ShardKeys::Gkr(_) => panic!("shard {shard} has no ezkl keys"),
        }
    }

    pub fn visibility(&mut self, shard: usize, visibility: ParameterVisibility) {
        let options = EzklOptions { parameters: visibility, ..EzklOptions::default() };
        self.body.plan.shards[shard].backend = BackendOptions::Ezkl(options);
    }

    /// Signs and proves everything as it now is.
    pub fn seal(&self) -> (Bundle, ModelCard) {
        self.seal_with(|_, _| {})
    }

    /// As [`Scenario::seal`], with each statement changed before it is signed and proven.
    pub fn seal_with(&self, tamper: impl Fn(usize, &mut Statement)) -> (Bundle, ModelCard) {
        let plan = self.body.plan.digest();
        let records = self.claims.iter().enumerate().map(|(i, claim)| {
            let boundary = |at: usize, tensors: &[Tensor]| match self.body.plan.boundaries[at].mode {
                BoundaryMode::Public => Boundary::public(tensors),
                _ => Boundary::committed(tensors, tensors.iter().map(commit).collect()),
            };
            let mut statement = Statement {
                protocol: PROTOCOL_VERSION,
                backend: self.body.shards[i].backend.clone(),
                model: self.body.plan.model,
                architecture: self.body.plan.architecture,
                plan,
                shard: ShardIndex(i as u32),
                shards: self.claims.len() as u32,
                run: self.run,
                input: boundary(i, &claim.input),
                output: boundary(i + 1, &claim.output),
                keys: self.body.shards[i].keys.digest(),
            };
            tamper(i, &mut statement);
            let proof = claim.proven.then(|| self.prove(claim, &statement));
            ShardRecord {
                receipt: Receipt::sign(statement, 0, UnixMillis(1_700_000_000_000), &claim.worker),
                admission: Admission::sign(claim.worker.public(), plan, &self.authority),
                proof,
            }
        });
        let card = ModelCard::sign(self.body.clone(), &self.owner);
        let boundaries =
            self.shown.iter().map(|shown| shown.as_ref().map(|tensors| encode_boundary(tensors).into())).collect();
        (Bundle { card: card.digest(), run: self.run, shards: records.collect(), boundaries }, card)
    }

    fn prove(&self, claim: &Claim, statement: &Statement) -> ShardProof {
        let mut all = instances(&statement.input, Some(&claim.input));
        all.extend(instances(&statement.output, Some(&claim.output)));
        let proof = MockProof::make(&claim.verifying_key, all, claim.weights.clone());
        ShardProof { verifying_key: claim.verifying_key.clone().into(), proof: proof.bytes().into() }
    }

    /// The floats that the client of the honest run sent.
    pub fn input(&self) -> Vec<FloatTensor> {
        let tensors = self.claims[0].input.iter();
        let floats = |tensor: &Tensor| tensor.to_reals().iter().map(|&x| x as f32).collect();
        tensors.map(|tensor| FloatTensor { shape: tensor.shape().to_vec(), values: floats(tensor) }).collect()
    }

    /// The answer of the run.
    pub fn output(&self) -> Vec<f64> {
        self.claims.last().unwrap().output.iter().flat_map(Tensor::to_reals).collect()
    }

    /// Seals, and verifies with everything that a user can supply.
    pub fn report(&self) -> Report {
        let (bundle, card) = self.seal();
        self.report_on(&bundle, &card)
    }

    /// Verifies with everything that a user can supply, as the run now is.
    pub fn report_on(&self, bundle: &Bundle, card: &ModelCard) -> Report {
        let (input, output) = (self.input(), self.output());
        let options = VerifyOptions {
            owner_key: Some(self.owner.public()),
            input: Some(&input),
            output: Some(&output),
            model: Some(self.body.plan.model),
            allow_test_srs: false,
        };
        verify(bundle, card, &options).unwrap()
    }
}

fn spec((name, tensor): &(String, Tensor)) -> TensorSpec {
    TensorSpec { name: name.clone(), shape: tensor.shape().to_vec(), scale: tensor.scale() }
}

fn shard_plan(i: usize) -> ShardPlan {
    ShardPlan {
        model: Digest::of(&[i as u8]),
        first_node: format!("gemm{i}"),
        last_node: format!("relu{i}"),
        layers: 2,
        parameters: 30,
        backend: BackendOptions::Ezkl(EzklOptions::default()),
    }
}

fn verifying_key(i: usize) -> Vec<u8> {
    format!("verifying key {i}").into_bytes()
}

pub fn settings(input: BoundaryMode, output: BoundaryMode) -> String {
    format!(r#"{{"run_args":{{"logrows":15}},"range_checks":true,"input_mode":"{input}","output_mode":"{output}"}}"#)
}

/// Verifies through the bytes, so that every bundle of every test is also encoded and decoded.
pub fn verify(bundle: &Bundle, card: &ModelCard, options: &VerifyOptions<'_>) -> Result<Report, ChainError> {
    let (verifier, native) = (MockVerifier::new(), MockVerifier::native());
    with_job(|job| chain::verify_bytes(&bundle.encode().unwrap(), card, options, &[&verifier, &native], job))
}

/// The run is rejected, `check` alone fails, at `shard`, and no proof was looked at before it.
#[track_caller]
pub fn assert_only(report: &Report, check: Check, shard: Option<u32>, reason: &str) {
    let failed: Vec<_> = report.checks.iter().filter(|line| line.outcome.is_failed()).map(|line| line.check).collect();
    assert_eq!(failed, [check], "{report}");
    let Status::Rejected(refusal) = &report.status else { panic!("not rejected:\n{report}") };
    assert_eq!((refusal.check, refusal.shard), (check, shard.map(ShardIndex)), "{report}");
    assert!(refusal.reason.contains(reason), "expected a reason with `{reason}`, found: {refusal}");
    if let (Some(shard), false) = (shard, report.shards.is_empty()) {
        assert_eq!(refusal.worker, Some(report.shards[shard as usize].worker));
    }
    assert!(report.outputs.is_none(), "a rejected run has no answer");
    assert!(report.to_string().contains(&format!("REJECTED: check `{check}` failed")), "{report}");
}

/// Every check passed.
#[track_caller]
pub fn assert_verified(report: &Report) {
    let others: Vec<_> = report.checks.iter().filter(|line| line.outcome != Outcome::Passed).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(report.status, Status::Verified);
}
