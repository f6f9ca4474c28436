//! The offline verifier of a run: bundle against card, nothing else.
//!
//! It trusts the card, once its signature holds, and nothing in the bundle. A run is `verified` only when every check that
//! the user need not supply anything for has passed on every shard; the rule is written as that, so a check that was
//! skipped for whatever reason can never count. All checks of structure are made even after one fails, because which of
//! them hold tells what happened; proofs are checked only when everything else holds, because they cost most and say
//! nothing about a chain that is broken.
//!
//! `verified` says: the circuits whose keys the owner registered took this input to this output. That these circuits are
//! the model is the owner's word, which whoever has the model can recompute. Where weights are `private`, each proof says
//! only that *some* weights exist, which for a linear layer is next to nothing: such a run is `partial` at best. `float`
//! mode is `answered` at best. Proof systems that cannot absorb the statement bind neither run id nor worker; those rest
//! on the receipts, so a proof may be moved between runs with equal boundaries, of which it is equally true.

mod check;
mod ledger;
mod proof;
mod report;
mod shard;

use crate::backend::{Job, ProofVerifier};
use crate::bundle::{Bundle, ShardProof, ShardRecord};
use crate::card::ModelCard;
use crate::ids::{Digest, ShardIndex};
use crate::plan::BoundaryMode;
use crate::receipt::PublicKey;
use crate::tensor::{FloatTensor, Tensor};

pub use check::{Check, Outcome, Refusal, printable};
pub use proof::{ChainError, ShardCheck, ShardError, verify_shard};
pub use report::{CheckLine, ProofState, Report, ShardLine, Status};
pub use shard::{check_admission, check_link, check_receipt};

use ledger::Ledger;
use proof::{ProofParts, WeightsTie};
use shard::Place;

/// What the user supplies beside bundle and card.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions<'a> {
    /// The owner whose card it should be.
    pub owner_key: Option<PublicKey>,
    /// The floats that the client sent: one tensor per input of the model, in order.
    pub input: Option<&'a [FloatTensor]>,
    /// The answer that was delivered: all output tensors, one after another, row-major.
    pub output: Option<&'a [f64]>,
    /// Digest of the model file that the user has.
    pub model: Option<Digest>,
    /// Go on under an SRS that is for tests only.
    pub allow_test_srs: bool,
}

/// Checks a bundle's file: [`Check::Encoding`], then all that [`verify`] checks. A file that cannot be read is `rejected`.
///
/// # Errors
/// As [`verify`].
pub fn verify_bytes(
    bytes: &[u8],
    card: &ModelCard,
    options: &VerifyOptions<'_>,
    verifiers: &[&dyn ProofVerifier],
    job: &Job<'_>,
) -> Result<Report, ChainError> {
    match Bundle::decode(bytes) {
        Ok(bundle) => verify(&bundle, card, options, verifiers, job),
        Err(error) => {
            let mut ledger = Ledger::default();
            ledger.fail(Refusal::of_bundle(Check::Encoding, error));
            Ok(ledger.into_report(card, None, Vec::new(), None))
        }
    }
}

/// Checks a run against the card, offline. `job` is the frame in which `verifiers` work.
///
/// # Errors
/// When no result can be reached: a proof system is missing or fails, or the user supplied something to compare with a
/// boundary that the plan does not show. Whatever is wrong with the run is in the report instead.
pub fn verify(
    bundle: &Bundle,
    card: &ModelCard,
    options: &VerifyOptions<'_>,
    verifiers: &[&dyn ProofVerifier],
    job: &Job<'_>,
) -> Result<Report, ChainError> {
    let mut ledger = Ledger::default();
    let counts = bundle.check_counts().map_err(|error| Refusal::of_bundle(Check::Encoding, error));
    ledger.record(Check::Encoding, counts);
    let card_is_whole = check_card(bundle, card, options, &mut ledger);
    if !card_is_whole {
        return Ok(ledger.into_report(card, Some(bundle.run), Vec::new(), None));
    }
    refuse_unshown(card, options)?;
    let Some(places) = list_shards(bundle, card, &mut ledger) else {
        return Ok(ledger.into_report(card, Some(bundle.run), Vec::new(), None));
    };
    let chain = Chain { bundle, card, options, places };
    chain.check_receipts(&mut ledger);
    chain.check_links(&mut ledger);
    let tensors = chain.open_boundaries(&mut ledger);
    let outputs = chain.check_ends(&tensors, &mut ledger);
    let proofs = chain.check_proofs(&tensors, verifiers, job, &mut ledger)?;
    let shards = chain.lines(&proofs);
    Ok(ledger.into_report(card, Some(bundle.run), shards, outputs))
}

/// Returns whether the card is whole, without which nothing else can be looked at.
fn check_card(bundle: &Bundle, card: &ModelCard, options: &VerifyOptions<'_>, ledger: &mut Ledger) -> bool {
    if let Err(error) = card.check() {
        ledger.fail(Refusal::of_bundle(Check::Card, error));
        return false;
    }
    let (expected, found) = (card.digest(), bundle.card);
    let same =
        || Refusal::of_bundle(Check::Card, format!("the bundle was made under card {found}, this one is {expected}"));
    ledger.record(Check::Card, if expected == found { Ok(()) } else { Err(same()) });

    let owner = |expected: PublicKey| {
        let reason = || format!("expected the card of owner {expected}, found one of {}", card.owner);
        if expected == card.owner { Ok(()) } else { Err(Refusal::of_bundle(Check::OwnerKey, reason())) }
    };
    ledger.record_supplied(
        Check::OwnerKey,
        options.owner_key.map(owner),
        "--owner-key: whose card this is was not compared",
    );

    let model = |found: Digest| {
        let expected = card.body.plan.model;
        let reason = || format!("the card is for model {expected}, the given file is {found}");
        if expected == found { Ok(()) } else { Err(Refusal::of_bundle(Check::ModelFile, reason())) }
    };
    ledger.record_supplied(
        Check::ModelFile,
        options.model.map(model),
        "--model: the card was not compared with a model file",
    );
    true
}

/// What the user asks to compare must be comparable, or the answer would read as if it had been compared.
fn refuse_unshown(card: &ModelCard, options: &VerifyOptions<'_>) -> Result<(), ChainError> {
    let last = card.body.plan.shards.len();
    for (given, what, boundary) in [(options.input.is_some(), "input", 0), (options.output.is_some(), "output", last)] {
        let mode = card.body.plan.boundaries.get(boundary).map(|boundary| boundary.mode);
        if let (true, Some(mode)) = (given, mode.filter(|&mode| mode != BoundaryMode::Public)) {
            return Err(ChainError::NotShown { what, boundary, mode });
        }
    }
    Ok(())
}

/// The places of the plan, one per record of the bundle; nothing when their numbers differ.
fn list_shards<'a>(bundle: &Bundle, card: &'a ModelCard, ledger: &mut Ledger) -> Option<Vec<Place<'a>>> {
    let plan = &card.body.plan;
    let (shards, boundaries) = (plan.shards.len(), plan.boundaries.len());
    if bundle.shards.len() != shards || bundle.boundaries.len() != boundaries {
        let (found, found_boundaries) = (bundle.shards.len(), bundle.boundaries.len());
        let reason = format!(
            "the plan has {shards} shards and {boundaries} boundaries, the bundle {found} and {found_boundaries}"
        );
        ledger.fail(Refusal::of_bundle(Check::ShardList, reason));
        return None;
    }
    let digest = plan.digest();
    let indices = 0..u32::try_from(shards).ok()?;
    indices.map(|index| Place::of(card, digest, ShardIndex(index))).collect()
}

/// A bundle with as many shards as the plan of its card.
struct Chain<'a> {
    bundle: &'a Bundle,
    card: &'a ModelCard,
    options: &'a VerifyOptions<'a>,
    places: Vec<Place<'a>>,
}

impl<'a> Chain<'a> {
    fn shards(&self) -> impl Iterator<Item = (&Place<'a>, &'a ShardRecord)> {
        self.places.iter().zip(&self.bundle.shards)
    }

    fn each_shard(
        &self,
        check: Check,
        ledger: &mut Ledger,
        holds: impl Fn(&Place<'a>, &ShardRecord) -> Result<(), String>,
    ) {
        let first = self.shards().find_map(|(place, record)| Some((place, record, holds(place, record).err()?)));
        ledger.record(
            check,
            match first {
                Some((place, record, reason)) => {
                    Err(Refusal::of_shard(check, place.index, record.receipt.worker, reason))
                }
                None => Ok(()),
            },
        );
    }

    /// What each receipt says by itself.
    fn check_receipts(&self, ledger: &mut Ledger) {
        self.each_shard(Check::ShardList, ledger, |place, record| place.check_position(&record.receipt.statement));
        self.each_shard(Check::Leftover, ledger, shard::check_leftover);
        self.each_shard(Check::RunId, ledger, |_, record| shard::check_run(&record.receipt.statement, self.bundle.run));
        self.each_shard(Check::Statement, ledger, |place, record| place.check_statement(&record.receipt.statement));
        self.each_shard(Check::Admission, ledger, |place, record| {
            place.check_admission(&record.receipt, &record.admission)
        });
        self.each_shard(Check::Receipt, ledger, |_, record| record.receipt.check().map_err(|error| error.to_string()));
        self.each_shard(Check::BoundaryForm, ledger, |place, record| {
            place.check_boundary_form(&record.receipt.statement)
        });
    }

    /// Each inner boundary is the same on both its sides.
    fn check_links(&self, ledger: &mut Ledger) {
        let neighbours = self.bundle.shards.iter().zip(self.shards().skip(1));
        let first = neighbours.into_iter().find_map(|(previous, (place, record))| {
            let (output, input) = (&previous.receipt.statement.output, &record.receipt.statement.input);
            let reason = shard::compare_link(output, input).err()?;
            let reason = shard::link_reason(&previous.receipt, &reason);
            Some(Refusal::of_shard(Check::BoundaryLink, place.index, record.receipt.worker, reason))
        });
        ledger.record(Check::BoundaryLink, first.map_or(Ok(()), Err));
    }

    /// The tensors of every public boundary, compared with the shard that puts them out (boundary 0: takes them in). The
    /// other side is [`Check::BoundaryLink`]'s.
    fn open_boundaries(&self, ledger: &mut Ledger) -> Vec<Option<Vec<Tensor>>> {
        let mut opened = Vec::with_capacity(self.bundle.boundaries.len());
        ledger.record(Check::BoundaryTensors, Ok(()));
        for (boundary, (plan, encoded)) in
            self.card.body.plan.boundaries.iter().zip(&self.bundle.boundaries).enumerate()
        {
            let Some((place, record)) = self.shards().nth(boundary.saturating_sub(1)) else { continue };
            let statement = &record.receipt.statement;
            let side = if boundary == 0 { &statement.input } else { &statement.output };
            let refuse = |check, reason: String| {
                Refusal::of_shard(check, place.index, record.receipt.worker, format!("boundary {boundary}: {reason}"))
            };
            let tensors = match (encoded, plan.mode) {
                (Some(encoded), BoundaryMode::Public) => {
                    place.open(encoded, side).map(Some).map_err(|reason| refuse(Check::BoundaryTensors, reason))
                }
                (None, BoundaryMode::Public) => {
                    Err(refuse(Check::BoundaryTensors, "the tensors are missing".to_owned()))
                }
                (Some(_), mode) => {
                    Err(refuse(Check::Leftover, format!("the plan makes it {mode}, yet there are tensors")))
                }
                (None, _) => Ok(None),
            };
            opened.push(tensors.unwrap_or_else(|refusal| {
                ledger.fail(refusal);
                None
            }));
        }
        opened
    }

    /// Compares the ends of the chain with what the user supplied, and returns the answer where the plan shows it.
    fn check_ends(&self, tensors: &[Option<Vec<Tensor>>], ledger: &mut Ledger) -> Option<Vec<f64>> {
        let (input, output) = (tensors.first().and_then(Option::as_deref), tensors.last().and_then(Option::as_deref));
        let answer: Option<Vec<f64>> = output.map(|tensors| tensors.iter().flat_map(Tensor::to_reals).collect());
        let (Some(first), Some(last)) = (self.shards().next(), self.shards().last()) else { return None };
        let refusal = |check, (place, record): (&Place<'_>, &ShardRecord), reason: String| {
            Refusal::of_shard(check, place.index, record.receipt.worker, reason)
        };
        match (self.options.input, input) {
            (Some(_), None) => {}
            (given, found) => {
                let specs = &first.0.registered.input;
                let compared = given.zip(found).map(|(given, found)| shard::compare_input(given, specs, found));
                let compared = compared.map(|result| result.map_err(|reason| refusal(Check::Input, first, reason)));
                ledger.record_supplied(
                    Check::Input,
                    compared,
                    "--input: the run's input was not compared with a client's",
                );
            }
        }
        match (self.options.output, &answer) {
            (Some(_), None) => {}
            (given, found) => {
                let compared = given.zip(found.as_deref()).map(|(given, found)| shard::compare_output(given, found));
                let compared = compared.map(|result| result.map_err(|reason| refusal(Check::Output, last, reason)));
                ledger.record_supplied(
                    Check::Output,
                    compared,
                    "--output: the run's output was not compared with an answer",
                );
            }
        }
        answer
    }

    /// All that involves a proof system. Returns the state of each shard's proof.
    fn check_proofs(
        &self,
        tensors: &[Option<Vec<Tensor>>],
        verifiers: &[&dyn ProofVerifier],
        job: &Job<'_>,
        ledger: &mut Ledger,
    ) -> Result<Vec<ProofState>, ChainError> {
        let state =
            |record: &ShardRecord| if record.proof.is_some() { ProofState::Unchecked } else { ProofState::Absent };
        let mut states: Vec<_> = self.bundle.shards.iter().map(state).collect();
        let proven = match self.with_verifiers(verifiers) {
            Ok(proven) => proven,
            Err(_) if ledger.any_failed() => return Ok(states),
            Err(error) => return Err(error),
        };
        let missing = self.missing_proofs();
        self.check_keys(&proven, missing.as_deref(), ledger);
        if ledger.any_failed() {
            return Ok(states);
        }
        for Proven { place, record, proof, verifier } in &proven {
            let index = place.index.as_usize();
            let at = |boundary: usize| tensors.get(boundary).and_then(Option::as_deref);
            let parts = ProofParts::new(&record.receipt.statement, proof, at(index), at(index + 1));
            let verdict = proof::verify_proof(place, &parts, *verifier, job)?;
            states[index] = if verdict.is_ok() { ProofState::Verified } else { ProofState::Refused };
            if let Err((check, reason)) = verdict {
                ledger.fail(Refusal::of_shard(check, place.index, record.receipt.worker, reason));
                return Ok(states);
            }
        }
        for check in [Check::Instances, Check::Proof] {
            ledger.record_proven(check, Ok(()), missing.as_deref());
        }
        let unbound = self.unbound_weights();
        ledger.record_proven(Check::Weights, Ok(()), missing.as_deref().or(unbound.as_deref()));
        Ok(states)
    }

    /// The proofs that there are, each with its verifier. A proof of a `float` shard is a leftover, and not among them.
    fn with_verifiers<'v>(&self, verifiers: &[&'v dyn ProofVerifier]) -> Result<Vec<Proven<'_, 'v>>, ChainError> {
        let proofs = self.shards().filter_map(|(place, record)| Some((place, record, record.proof.as_ref()?)));
        let provable = proofs.filter(|(place, _, _)| place.registered.keys.provable());
        let proven = provable.map(|(place, record, proof)| {
            let verifier = proof::verifier_for(place, verifiers)?;
            Ok(Proven { place, record, proof, verifier })
        });
        proven.collect()
    }

    /// Version, settings, SRS, verifying keys, and whether the card ties the weights.
    fn check_keys(&self, proven: &[Proven<'_, '_>], missing: Option<&str>, ledger: &mut Ledger) {
        let each = |check, holds: &dyn Fn(&Proven<'_, '_>) -> Result<(), String>| {
            let first = proven.iter().find_map(|shard| Some((shard, holds(shard).err()?)));
            first.map_or(Ok(()), |(Proven { place, record, .. }, reason)| {
                Err(Refusal::of_shard(check, place.index, record.receipt.worker, reason))
            })
        };
        let version = each(Check::BackendVersion, &|shard| proof::check_version(shard.place, shard.verifier));
        ledger.record_proven(Check::BackendVersion, version, missing);
        let settings = each(Check::Settings, &|shard| proof::check_settings(shard.place, shard.verifier));
        ledger.record_proven(Check::Settings, settings, missing);
        let srs = each(Check::Srs, &|shard| {
            if shard.place.registered.keys.insecure_test_srs() { Err(proof::TEST_SRS.to_owned()) } else { Ok(()) }
        });
        match srs {
            Err(refusal) if self.options.allow_test_srs => ledger.waive(Check::Srs, &refusal, "--allow-test-srs"),
            srs => ledger.record_proven(Check::Srs, srs, missing),
        }
        let key = each(Check::VerifyingKey, &|shard| {
            proof::check_verifying_key(shard.place, shard.verifier, &shard.proof.verifying_key)
        });
        ledger.record_proven(Check::VerifyingKey, key, missing);
        if let Err(refusal) = each(Check::Weights, &|shard| proof::weights_tie(shard.place).map(drop)) {
            ledger.fail(refusal);
        }
    }

    /// Says which shards have no proof, unless all have one.
    fn missing_proofs(&self) -> Option<String> {
        if self.places.iter().any(Place::is_float) {
            return Some("float mode proves nothing".to_owned());
        }
        let absent = self.shards().filter(|(_, record)| record.proof.is_none());
        let flags: Vec<_> = absent.map(|(place, _)| format!("--shard {}", place.index)).collect();
        match flags.len() {
            0 => None,
            all if all == self.places.len() => {
                Some(format!("no shard is proven: `shardproof prove {}`", self.bundle.run))
            }
            _ => Some(format!("not every shard is proven: `shardproof prove {} {}`", self.bundle.run, flags.join(" "))),
        }
    }

    /// Says which shards' weights nothing binds to the model, if any.
    fn unbound_weights(&self) -> Option<String> {
        let unbound =
            self.places.iter().filter(|place| !matches!(proof::weights_tie(place), Ok(WeightsTie::Registered)));
        let shards: Vec<_> = unbound.map(|place| place.index.to_string()).collect();
        let nothing =
            "the weights are private, nothing binds them to the model: a plan with fixed or hashed weights would";
        if shards.is_empty() { None } else { Some(format!("shards {}: {nothing}", shards.join(", "))) }
    }

    fn lines(&self, proofs: &[ProofState]) -> Vec<ShardLine> {
        let line = |((place, record), &proof): ((&Place<'_>, &ShardRecord), &ProofState)| ShardLine {
            shard: place.index,
            worker: record.receipt.worker,
            backend: place.registered.backend.clone(),
            proof,
        };
        self.shards().zip(proofs).map(line).collect()
    }
}

/// A proof, its place, and who checks it.
struct Proven<'a, 'v> {
    place: &'a Place<'a>,
    record: &'a ShardRecord,
    proof: &'a ShardProof,
    verifier: &'v dyn ProofVerifier,
}
