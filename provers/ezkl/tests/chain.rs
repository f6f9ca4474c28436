//! Chains of three shards in every boundary mode: they verify, and nothing else does in their place.

mod support;

use std::sync::OnceLock;

use shardproof_common::plan::{BoundaryMode, ParameterVisibility};
use shardproof_common::statement::Binding;
use support::{ChainPlan, Link, rejection, verify};

fn hashed() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| ChainPlan::new(BoundaryMode::Hashed).run())
}

fn public() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| ChainPlan { length: 2, ..ChainPlan::new(BoundaryMode::Public) }.run())
}

fn polycommit() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let min_logrows = hashed().iter().map(|link| link.keys().srs.logrows).max();
        ChainPlan { min_logrows, ..ChainPlan::new(BoundaryMode::Polycommit) }.run()
    })
}

fn assert_linked(chain: &[Link]) {
    for (previous, next) in chain.iter().zip(&chain[1..]) {
        assert_eq!(previous.statement.output, next.statement.input);
        assert_eq!(previous.files.card.output, next.files.card.input);
    }
}

fn assert_verifies(chain: &[Link]) {
    chain.iter().for_each(|link| verify(&link.request()).unwrap());
}

#[test]
fn a_hashed_chain_is_linked_and_verifies() {
    assert_linked(hashed());
    assert_verifies(hashed());
    assert!(matches!(&hashed()[1].statement.input.binding, Binding::Committed(hashes) if hashes.len() == 2));
}

#[test]
fn a_public_chain_is_linked_and_verifies() {
    assert_linked(public());
    assert_verifies(public());
}

#[test]
fn a_polycommit_chain_is_linked_and_verifies() {
    assert_linked(polycommit());
    assert_verifies(polycommit());
    let logrows: Vec<u32> = polycommit().iter().map(|link| link.keys().srs.logrows).collect();
    assert!(logrows.iter().all(|k| *k == logrows[0]), "{logrows:?}");
}
