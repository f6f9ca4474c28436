//! Chains with native shards: what the card says of their keys, and the boundary to another backend.

#![allow(clippy::unwrap_used)]

mod support;

use shardproof_common::chain::{Check, ProofState, Status};
use shardproof_common::ids::{Digest, ShardIndex};
use shardproof_common::plan::{BoundaryMode, WeightVisibility};
use shardproof_common::statement::Boundary;
use support::{Scenario, assert_only, assert_verified, integers};

#[test]
fn native_weights_that_are_not_what_the_plan_says() {
    let mut scenario = Scenario::native(3);
    assert_verified(&scenario.report());
    scenario.gkr_keys(1).weights = Some(WeightVisibility::Public);
    let reason = "the plan asks for committed weights, the card registers public ones";
    assert_only(&scenario.report(), Check::Weights, Some(1), reason);
    scenario.gkr_keys(1).weights = None;
    assert_verified(&scenario.report());
}

#[test]
fn a_verifying_key_that_is_not_what_the_card_says_of_it() {
    let mut scenario = Scenario::native(3);
    scenario.claims[2].verifying_key = b"another graph's key".to_vec();
    scenario.gkr_keys(2).verifying_key = Digest::of(b"another graph's key");
    assert_only(&scenario.report(), Check::VerifyingKey, Some(2), "the key is of another graph");
}

#[test]
fn a_chain_of_two_backends_is_checked_across_them() {
    let mut scenario = Scenario::new(3, BoundaryMode::Public);
    scenario.gkr(1, WeightVisibility::Public);
    assert_verified(&scenario.report());
    let (bundle, card) = scenario.seal_with(|shard, statement| {
        let tensors = [integers(&[1, 3], 8, 11), integers(&[2], 9, -20)];
        if shard == 1 {
            statement.input = Boundary::public(&tensors);
        }
    });
    let link = scenario.report_on(&bundle, &card);
    let Status::Rejected(refusal) = &link.status else { panic!("{link}") };
    assert_eq!((refusal.check, refusal.shard), (Check::BoundaryLink, Some(ShardIndex(1))));
    assert!(link.shards.iter().all(|line| line.proof == ProofState::Unchecked), "no proof of a broken chain is run");
}
