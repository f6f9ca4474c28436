//! The draw of audits: its text forms, that it is fair, that everything it is over decides it, and what the documentation
//! says that it catches.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use shardproof_common::audit::{AuditPolicy, Nonce, NonceCommitment, ParseAuditError, Share, receipt_digest};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::plan::BoundaryMode;

mod support;

const DOCUMENTATION: &str = include_str!("../../docs/audits.md");

fn policy(text: &str) -> AuditPolicy {
    text.parse().unwrap()
}

/// Different for each `n`, the same every time.
fn run(n: u64) -> RunId {
    RunId::from_bytes((u128::from(n) << 64).to_be_bytes())
}

fn nonce(n: u64) -> Nonce {
    Nonce::from_bytes(*Digest::derive("shardproof test nonce", &n).as_bytes())
}

fn receipts(n: u64, shards: u32) -> Vec<Digest> {
    (0..shards).map(|shard| Digest::derive("shardproof test receipt", &(n, shard))).collect()
}

#[test]
fn policies_and_shares_have_one_text_each() {
    for text in ["always", "request", "runs:0.05", "shards:1", "runs:0", "runs:0.000000001"] {
        assert_eq!(policy(text).to_string(), text);
    }
    assert_eq!(policy("runs:1.000").to_string(), "runs:1");
    for text in ["", "never", "runs", "always:1", "run:0.1"] {
        assert_eq!(text.parse::<AuditPolicy>(), Err(ParseAuditError::Policy { found: text.to_owned() }));
    }
    for text in ["", "1.1", "1.000000001", "-0.1", "0.0000000001", "5%", ".5", "1.", "1e-1", "4294967296", "+1"] {
        assert_eq!(text.parse::<Share>(), Err(ParseAuditError::Share { found: text.to_owned() }), "{text}");
    }
}

#[test]
fn none_and_all_are_exact() {
    for n in 0..200 {
        let draw = |text| policy(text).draw(run(n), &receipts(n, 3), &nonce(n)).len();
        assert_eq!(["request", "always", "runs:0", "runs:1", "shards:0", "shards:1"].map(draw), [0, 3, 0, 3, 0, 3]);
    }
}

/// Draws of `count` runs, and how far a number of hits may be off: five standard deviations, which a fair draw exceeds in
/// one of two million tests; these have fixed seeds.
fn assert_share(hits: usize, count: usize, share: f64, what: &str) {
    let (expected, deviation) = (count as f64 * share, (count as f64 * share * (1.0 - share)).sqrt());
    assert!((hits as f64 - expected).abs() <= 5.0 * deviation, "{what}: {hits} of {count}, expected {expected:.0}");
}

#[test]
fn the_share_drawn_is_the_share_asked_for() {
    const RUNS: u64 = 20_000;
    for text in ["0.003", "0.1", "0.5", "0.9"] {
        let share: Share = text.parse().unwrap();
        let of_runs: Vec<usize> =
            (0..RUNS).map(|n| AuditPolicy::Runs(share).draw(run(n), &receipts(n, 3), &nonce(n)).len()).collect();
        assert!(of_runs.iter().all(|&drawn| drawn == 0 || drawn == 3), "a run is drawn whole");
        let drawn = of_runs.iter().filter(|&&drawn| drawn == 3).count();
        assert_share(drawn, RUNS as usize, share.to_f64(), "runs");
    }
}

#[test]
fn shards_are_drawn_each_by_itself() {
    const RUNS: u64 = 20_000;
    let (policy, share) = (policy("shards:0.3"), 0.3);
    let draws: Vec<Vec<ShardIndex>> = (0..RUNS).map(|n| policy.draw(run(n), &receipts(n, 3), &nonce(n))).collect();
    for a in 0..3 {
        let hits = draws.iter().filter(|draw| draw.contains(&ShardIndex(a))).count();
        assert_share(hits, RUNS as usize, share, "one shard");
        for b in a + 1..3 {
            let both = draws.iter().filter(|draw| draw.contains(&ShardIndex(a)) && draw.contains(&ShardIndex(b)));
            assert_share(both.count(), RUNS as usize, share * share, "two shards");
        }
    }
    assert!(draws.iter().all(|draw| draw.is_sorted()));
}

/// Whoever keeps all but one input of a draw sees, in the other, a draw of its own.
#[test]
fn everything_that_is_drawn_over_decides() {
    const RUNS: u64 = 10_000;
    let policy = policy("runs:0.5");
    let drawn = |run, receipts: &[Digest], nonce| !policy.draw(run, receipts, &nonce).is_empty();
    let differ = |what: &str, other: &dyn Fn(u64) -> bool| {
        let changed = (0..RUNS).filter(|&n| drawn(run(n), &receipts(n, 3), nonce(n)) != other(n)).count();
        assert_share(changed, RUNS as usize, 0.5, what);
    };
    differ("another run id", &|n| drawn(run(n + RUNS), &receipts(n, 3), nonce(n)));
    differ("another nonce", &|n| drawn(run(n), &receipts(n, 3), nonce(n + RUNS)));
    for shard in 0..3 {
        differ("another receipt", &|n| {
            let mut receipts = receipts(n, 3);
            receipts[shard] = Digest::of(&n.to_le_bytes());
            drawn(run(n), &receipts, nonce(n))
        });
    }
    differ("receipts in another order", &|n| {
        let mut receipts = receipts(n, 3);
        receipts.swap(0, 1);
        drawn(run(n), &receipts, nonce(n))
    });
}

#[test]
fn a_commitment_fits_one_nonce() {
    let commitments: Vec<NonceCommitment> = (0..100).map(|n| nonce(n).commitment()).collect();
    for (n, commitment) in commitments.iter().enumerate() {
        assert_eq!(commitments.iter().filter(|other| *other == commitment).count(), 1, "nonce {n}");
        assert_ne!(commitment.as_bytes(), nonce(n as u64).as_bytes());
    }
    assert_ne!(Nonce::generate(), Nonce::generate());
}

#[test]
fn a_draw_is_over_the_signature_too() {
    let (bundle, _) = support::Scenario::new(2, BoundaryMode::Public).seal();
    let [one, other] = [0, 1].map(|shard: usize| bundle.shards[shard].receipt.clone());
    let mut resigned = one.clone();
    resigned.signature = other.signature;
    assert_ne!(receipt_digest(&one), receipt_digest(&resigned));
    assert_eq!(receipt_digest(&one), receipt_digest(&one.clone()));
}

/// The rows below a marker in the documentation: the share drawn and the cells.
fn documented(marker: &str) -> Vec<(f64, Vec<&'static str>)> {
    let (_, after) = DOCUMENTATION.split_once(&format!("<!-- {marker} -->")).unwrap();
    let table = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = table.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    rows.map(|row| (row[0].parse::<Share>().unwrap().to_f64(), row[1..].to_vec())).collect()
}

const CHEATED: [f64; 4] = [1.0, 0.1, 0.01, 0.001];

#[test]
fn the_documented_probabilities_are_right() {
    let rows = documented("within 1000 runs");
    assert_eq!(rows.len(), 5);
    for (share, cells) in rows {
        let computed = CHEATED.map(|cheated| match 100.0 * (1.0 - (1.0 - cheated * share).powi(1000)) {
            percent if percent >= 99.95 => "> 99.9 %".to_owned(),
            percent => format!("{percent:.1} %"),
        });
        assert_eq!(cells, computed, "share {share}");
    }
    let rows = documented("runs until caught");
    assert_eq!(rows.len(), 5);
    for (share, cells) in rows {
        let computed = CHEATED.map(|cheated| (0.01_f64.ln() / (-cheated * share).ln_1p()).ceil());
        let cells: Vec<f64> = cells.iter().map(|cell| cell.replace(',', "").parse().unwrap()).collect();
        assert_eq!(cells, computed, "share {share}");
    }
}

/// The documented formula against the draw itself: a worker that cheats in every fifth run, half of the runs drawn.
#[test]
fn cheats_are_caught_as_often_as_documented() {
    const TRIALS: u64 = 4_000;
    const RUNS: u64 = 20;
    for text in ["runs:0.5", "shards:0.5"] {
        let caught_in = |n: u64| policy(text).draw(run(n), &receipts(n, 2), &nonce(n)).contains(&ShardIndex(1));
        let cheats = |n: u64| Digest::derive("shardproof test cheat", &n).as_bytes()[0].is_multiple_of(5);
        let caught = (0..TRIALS).filter(|trial| (0..RUNS).map(|i| trial * RUNS + i).any(|n| cheats(n) && caught_in(n)));
        // 52 of 256 bytes are multiples of 5.
        let expected = 1.0 - (1.0 - 0.5 * 52.0 / 256.0_f64).powi(RUNS as i32);
        assert_share(caught.count(), TRIALS as usize, expected, text);
    }
}
