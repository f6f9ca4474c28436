//! Evidence convicts whoever lied, and nobody else, whatever an accuser does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod support;

use std::path::PathBuf;

use proptest::prelude::*;
use shardproof_common::backend::{BackendError, Job};
use shardproof_common::card::ModelCard;
use shardproof_common::evidence::{
    Charge, Conviction, Evidence, EvidenceError, Executable, Lie, Reexecutor, RegisteredShard,
};
use shardproof_common::format::FormatError;
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::{BackendKind, BoundaryMode};
use shardproof_common::receipt::{Admission, Identity, Receipt};
use shardproof_common::statement::{Binding, Boundary};
use shardproof_common::tensor::{Tensor, encode_boundary};
use support::{Scenario, commit, identity, integers, with_job};

/// The shard whose worker is accused.
const SHARD: usize = 1;
const REGISTERED: &[u8] = b"the registered shard";

/// Gives the honest output of the honest input, and nothing of any other.
struct Honest {
    input: Vec<Tensor>,
    output: Vec<Tensor>,
}

impl Reexecutor for Honest {
    fn execute(
        &self,
        shard: &RegisteredShard<'_>,
        executable: &Executable,
        input: &[Tensor],
        _job: &Job<'_>,
    ) -> Result<(Boundary, Boundary), BackendError> {
        if &*executable.graph != REGISTERED {
            let message = "the files give another key than the card registers".to_owned();
            return Err(BackendError::Failed { backend: BackendKind::Gkr, step: "load".into(), message });
        }
        let of = |tensors: &[Tensor], mode| match mode {
            BoundaryMode::Public => Boundary::public(tensors),
            _ => Boundary::committed(tensors, tensors.iter().map(commit).collect()),
        };
        let output = if input == self.input { self.output.clone() } else { input.to_vec() };
        Ok((of(input, shard.input_mode), of(&output, shard.output_mode)))
    }
}

/// A run of three shards, one of whose workers is accused.
struct Court {
    card: ModelCard,
    admission: Admission,
    worker: Identity,
    receipt: Receipt,
    executor: Honest,
}

impl Court {
    fn of(scenario: &Scenario) -> Self {
        let (bundle, card) = scenario.seal();
        let (record, claim) = (&bundle.shards[SHARD], &scenario.claims[SHARD]);
        Self {
            card,
            admission: record.admission.clone(),
            worker: identity(10 + SHARD as u8),
            receipt: record.receipt.clone(),
            executor: Honest { input: claim.input.clone(), output: claim.output.clone() },
        }
    }

    fn new() -> Self {
        Self::of(&Scenario::native(3))
    }

    /// A receipt that the worker signs, changed from the honest one.
    fn signed(&self, change: impl FnOnce(&mut Receipt)) -> Receipt {
        let mut receipt = self.receipt.clone();
        change(&mut receipt);
        receipt.signed_by(&self.worker)
    }

    fn against(&self, other: Receipt) -> Evidence {
        Evidence::contradiction(&self.card, self.admission.clone(), self.receipt.clone(), other)
    }

    fn executed(&self, receipt: Receipt, input: &[Tensor]) -> Evidence {
        let shard = Executable { graph: REGISTERED.to_vec().into(), weights: b"weights".to_vec().into() };
        let admission = self.admission.clone();
        Evidence::wrong_execution(&self.card, admission, receipt, encode_boundary(input), shard)
    }

    /// Checks through the bytes, so that everything is also encoded and decoded.
    fn check(&self, evidence: &Evidence) -> Result<Conviction, EvidenceError> {
        self.check_with(evidence, None)
    }

    fn check_with(&self, evidence: &Evidence, brought: Option<&Executable>) -> Result<Conviction, EvidenceError> {
        let decoded = Evidence::decode(&evidence.encode().unwrap()).unwrap();
        assert_eq!(decoded, *evidence);
        with_job(|job| decoded.check(&self.card, brought, &self.executor, job))
    }

    #[track_caller]
    fn assert_convicted(&self, evidence: &Evidence, lie: Lie) {
        let conviction = self.check(evidence).unwrap();
        let statement = &self.receipt.statement;
        let expected = Conviction { worker: self.worker.public(), run: statement.run, shard: statement.shard, lie };
        assert_eq!(conviction, expected);
        assert!(conviction.to_string().contains(&self.worker.public().to_string()));
    }
}

fn other_output(receipt: &mut Receipt) {
    let tensors: Vec<Tensor> =
        (0..receipt.statement.output.tensors.len()).map(|i| integers(&[2], 9, i as i64)).collect();
    receipt.statement.output.binding = Binding::Committed(tensors.iter().map(commit).collect());
}

fn other_input(receipt: &mut Receipt) {
    let tensors: Vec<Tensor> =
        (0..receipt.statement.input.tensors.len()).map(|i| integers(&[2], 9, i as i64)).collect();
    receipt.statement.input.binding = Binding::Committed(tensors.iter().map(commit).collect());
}

#[test]
fn two_outputs_of_one_input_convict_in_whichever_attempts() {
    let court = Court::new();
    let other = court.signed(|receipt| {
        receipt.attempt = 3;
        other_output(receipt);
    });
    court.assert_convicted(&court.against(other), Lie::TwoOutputs);
}

#[test]
fn two_statements_in_one_attempt_convict() {
    let court = Court::new();
    for change in [other_input, other_output] {
        court.assert_convicted(&court.against(court.signed(change)), Lie::TwoStatements);
    }
}

#[test]
fn a_wrong_output_convicts_with_the_shard_or_with_the_one_that_is_brought() {
    let court = Court::new();
    let evidence = court.executed(court.signed(other_output), &court.executor.input);
    court.assert_convicted(&evidence, Lie::WrongOutput);
    assert!(evidence.executable().is_some() && !evidence.lacks_executable());

    let without = evidence.clone().without_executable();
    assert!(without.lacks_executable());
    let error = court.check(&without).unwrap_err();
    assert!(matches!(error, EvidenceError::NoExecutable) && error.is_unavailable(), "{error}");
    assert_eq!(court.check_with(&without, evidence.executable()).unwrap().lie, Lie::WrongOutput);
    assert!(matches!(court.check(&court.against(court.receipt.clone())), Err(EvidenceError::NoContradiction)));
}

#[test]
fn an_altered_receipt_convicts_nobody() {
    let court = Court::new();
    let changes: [fn(&mut Receipt); 4] =
        [other_output, other_input, |receipt| receipt.attempt += 1, |receipt| receipt.provable_until = UnixMillis(0)];
    for change in changes {
        let mut altered = court.receipt.clone();
        change(&mut altered);
        let evidence = court.against(altered);
        assert!(matches!(court.check(&evidence), Err(EvidenceError::Receipt(_))));
    }
    let mut altered = court.receipt.clone();
    other_output(&mut altered);
    let evidence = court.executed(altered, &court.executor.input);
    assert!(matches!(court.check(&evidence), Err(EvidenceError::Receipt(_))));
}

#[test]
fn a_receipt_by_another_key_in_the_workers_name_convicts_nobody() {
    let court = Court::new();
    let mut forged = court.signed(other_output).signed_by(&identity(98));
    forged.worker = court.worker.public();
    assert!(matches!(court.check(&court.against(forged)), Err(EvidenceError::Receipt(_))));
}

#[test]
fn a_key_of_the_accusers_own_is_nobodys() {
    let court = Court::new();
    let stranger = identity(98);
    let (one, other) = (court.receipt.signed_by(&stranger), court.signed(other_output).signed_by(&stranger));
    let plan = court.admission.plan;
    let admissions = [
        court.admission.clone(),
        Admission::sign(stranger.public(), plan, &stranger),
        Admission { worker: stranger.public(), ..court.admission.clone() },
        Admission::sign(stranger.public(), Digest::of(b"other plan"), &identity(2)),
    ];
    for admission in admissions {
        let evidence = Evidence::contradiction(&court.card, admission, one.clone(), other.clone());
        assert!(matches!(court.check(&evidence), Err(EvidenceError::NotAdmitted(_))));
    }
    // With the authority's word the same receipts convict: it is the admission that stood in the way.
    let admission = Admission::sign(stranger.public(), plan, &identity(2));
    let evidence = Evidence::contradiction(&court.card, admission, one, other);
    assert_eq!(court.check(&evidence).unwrap().worker, stranger.public());
}

#[test]
fn another_card_or_plan_convicts_nobody() {
    let court = Court::new();
    let mut evidence = court.against(court.signed(other_output));
    evidence.card = Digest::of(b"other card");
    assert!(matches!(court.check(&evidence), Err(EvidenceError::OtherCard { .. })));

    let other_plan = court.signed(|receipt| receipt.statement.plan = Digest::of(b"other plan"));
    assert!(matches!(court.check(&court.against(other_plan)), Err(EvidenceError::Receipt(_))));

    let mut broken = Court::new();
    broken.card.body.name.push('x');
    let evidence = broken.against(broken.signed(other_output));
    assert!(matches!(broken.check(&evidence), Err(EvidenceError::Card(_))));
}

#[test]
fn receipts_of_other_runs_shards_or_workers_contradict_nothing() {
    let court = Court::new();
    let elsewhere = court.signed(|receipt| {
        receipt.statement.run = RunId::from_bytes([8; 16]);
        other_output(receipt);
    });
    assert!(matches!(court.check(&court.against(elsewhere)), Err(EvidenceError::DifferentSubjects)));

    let (bundle, _) = Scenario::native(3).seal();
    let other_shard = bundle.shards[0].receipt.signed_by(&court.worker);
    assert_eq!(other_shard.statement.shard, ShardIndex(0));
    assert!(matches!(court.check(&court.against(other_shard)), Err(EvidenceError::DifferentSubjects)));

    let colleague = court.signed(other_output).signed_by(&identity(10));
    let mut evidence = court.against(colleague);
    for admitted in [10 + SHARD as u8, 10] {
        evidence.admission = Admission::sign(identity(admitted).public(), court.admission.plan, &identity(2));
        let error = court.check(&evidence).unwrap_err();
        assert!(matches!(error, EvidenceError::DifferentSubjects | EvidenceError::NotAdmitted(_)), "{error}");
    }
}

#[test]
fn what_an_honest_worker_gives_twice_convicts_it_of_nothing() {
    let court = Court::new();
    let honest: [fn(&mut Receipt); 4] = [
        |_| {},
        |receipt| receipt.provable_until = UnixMillis(u64::MAX),
        |receipt| receipt.attempt = 1,
        |receipt| {
            receipt.attempt = 1;
            other_input(receipt);
            other_output(receipt);
        },
    ];
    for again in honest {
        let evidence = court.against(court.signed(again));
        assert!(matches!(court.check(&evidence), Err(EvidenceError::NoContradiction)));
    }
    let evidence = court.executed(court.receipt.clone(), &court.executor.input);
    assert!(matches!(court.check(&evidence), Err(EvidenceError::RightOutput)));
}

#[test]
fn receipts_have_one_order() {
    let court = Court::new();
    let evidence = court.against(court.signed(other_output));
    assert_eq!(
        evidence,
        Evidence::contradiction(
            &court.card,
            court.admission.clone(),
            court.signed(other_output),
            court.receipt.clone()
        )
    );
    let Charge::Contradiction(first, second) = evidence.charge.clone() else { panic!("two receipts") };
    let turned = Evidence { charge: Charge::Contradiction(second, first), ..evidence };
    assert!(matches!(court.check(&turned), Err(EvidenceError::Order)));
}

#[test]
fn altered_tensors_and_another_shard_convict_nobody() {
    let court = Court::new();
    let lie = court.signed(other_output);
    let mut altered = court.executor.input.clone();
    let Tensor::Integer(tensor) = &mut altered[0] else { panic!("integers") };
    tensor.values[0] += 1;
    assert!(matches!(court.check(&court.executed(lie.clone(), &altered)), Err(EvidenceError::OtherInput)));
    // Nor does an accuser get further who alters an honest worker's input.
    let evidence = court.executed(court.receipt.clone(), &altered);
    assert!(matches!(court.check(&evidence), Err(EvidenceError::OtherInput)));

    let mut evidence = court.executed(lie.clone(), &court.executor.input);
    let Charge::WrongExecution(execution) = &mut evidence.charge else { panic!("an execution") };
    let honest_input = std::mem::replace(&mut execution.input, b"SPB1".to_vec().into());
    assert!(matches!(court.check(&evidence), Err(EvidenceError::Input(_))));
    let Charge::WrongExecution(execution) = &mut evidence.charge else { panic!("an execution") };
    execution.input = honest_input;
    execution.executable.as_mut().unwrap().graph = b"another shard".to_vec().into();
    assert!(matches!(court.check(&evidence), Err(EvidenceError::NotExecuted { .. })));
}

#[test]
fn floats_convict_only_of_two_statements_in_one_attempt() {
    let scenario = Scenario::float(3);
    let court = Court::of(&scenario);
    let other = |receipt: &mut Receipt| receipt.statement.output.binding = Binding::Public(Digest::of(b"rounding"));
    let later = court.signed(|receipt| {
        receipt.attempt = 1;
        other(receipt);
    });
    assert!(matches!(court.check(&court.against(later)), Err(EvidenceError::Floats)));
    court.assert_convicted(&court.against(court.signed(other)), Lie::TwoStatements);
    let evidence = court.executed(court.signed(other), &court.executor.input);
    assert!(matches!(court.check(&evidence), Err(EvidenceError::Floats)));
}

#[test]
fn shards_of_ezkl_are_not_run_again() {
    let court = Court::of(&Scenario::new(3, BoundaryMode::Hashed));
    court.assert_convicted(&court.against(court.signed(other_output)), Lie::TwoStatements);
    let evidence = court.executed(court.signed(other_output), &court.executor.input);
    assert!(matches!(court.check(&evidence), Err(EvidenceError::NotReexecutable { kind: BackendKind::Ezkl })));
}

#[test]
fn what_cannot_be_found_out_is_no_verdict() {
    struct Interrupted;
    impl Reexecutor for Interrupted {
        fn execute(
            &self,
            _shard: &RegisteredShard<'_>,
            _executable: &Executable,
            _input: &[Tensor],
            _job: &Job<'_>,
        ) -> Result<(Boundary, Boundary), BackendError> {
            Err(BackendError::Cancelled)
        }
    }
    let court = Court::new();
    let evidence = court.executed(court.signed(other_output), &court.executor.input);
    let error = with_job(|job| evidence.check(&court.card, None, &Interrupted, job)).unwrap_err();
    assert!(matches!(error, EvidenceError::Unavailable(BackendError::Cancelled)) && error.is_unavailable(), "{error}");
}

fn golden() -> (Court, Vec<u8>) {
    let court = Court::new();
    let bytes = court.against(court.signed(other_output)).encode().unwrap();
    (court, bytes)
}

fn golden_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/evidence-v2.bin")
}

#[test]
fn golden_bytes_pin_the_format() {
    let (court, bytes) = golden();
    let kept = std::fs::read(golden_path()).unwrap();
    assert!(bytes == kept, "the encoding changed: that takes a new version, and a golden file of its own");
    court.assert_convicted(&Evidence::decode(&kept).unwrap(), Lie::TwoStatements);
}

#[test]
#[ignore = "writes the golden file of a new version"]
fn write_golden_evidence() {
    std::fs::write(golden_path(), golden().1).unwrap();
}

#[test]
fn truncated_extended_and_flipped_files_convict_nobody() {
    let (court, bytes) = golden();
    for length in 0..bytes.len() {
        assert!(matches!(Evidence::decode(&bytes[..length]), Err(FormatError::Truncated { .. })), "{length} bytes");
    }
    let extended = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(Evidence::decode(&extended), Err(FormatError::Trailing { .. })));
    assert!(matches!(Evidence::decode(&[b"SPBUNDLE", &bytes[8..]].concat()), Err(FormatError::Magic { .. })));
    for offset in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut forged = bytes.clone();
            forged[offset] ^= flip;
            if let Ok(evidence) = Evidence::decode(&forged) {
                let verdict = with_job(|job| evidence.check(&court.card, None, &court.executor, job));
                assert!(verdict.is_err(), "byte {offset} with {flip:#04x}");
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (court, honest) = golden();
        let bytes = [&honest[..12], &body].concat();
        if let Ok(evidence) = Evidence::decode(&bytes) {
            prop_assert_eq!(evidence.encode().unwrap(), bytes);
            prop_assert!(with_job(|job| evidence.check(&court.card, None, &court.executor, job)).is_err());
        }
    }
}
