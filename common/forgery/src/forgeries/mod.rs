//! The forgeries by name.
//!
//! Each is *resealed*: whatever its forger could make right again, with the keys that it has, is right. So one check alone
//! stands in its way, and a verifier without that check would accept it. Where the forger has no key to reseal with and
//! other checks notice as well, those are named too.

mod boundaries;
mod cards;
mod files;
mod labels;
mod proofs;
mod replays;
mod shards;
mod signatures;

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;
use shardproof_common::chain::Check;
use shardproof_common::ids::UnixMillis;

use crate::draft::Forged;
use crate::honest::{Honest, Verdict};
use crate::party::Forger;
use crate::scene::Scene;

/// All scenes.
const EVERYWHERE: &[Scene] = &Scene::ALL;
/// Those whose shard 1 is of gkr.
const NATIVE: &[Scene] = &[Scene::GkrCommitted, Scene::GkrPublic, Scene::Mixed];
/// Those whose shards are all of ezkl.
const EZKL: &[Scene] = &[Scene::Ezkl, Scene::EzklPolycommit];
/// Those whose last shard is of ezkl.
const EZKL_LAST: &[Scene] = &[Scene::Ezkl, Scene::EzklPolycommit, Scene::Mixed];
/// Those whose boundary 1 is committed to.
const COMMITTED: &[Scene] = &[Scene::GkrCommitted, Scene::Ezkl, Scene::EzklPolycommit, Scene::Mixed];
/// Those whose boundary 2 is public.
const SHOWN: &[Scene] = &[Scene::GkrPublic, Scene::Mixed];

/// What a verifier must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// No forgery but its counterpart: true, whoever brings it.
    Verified,
    /// Not rejected, and not verified: something is not proven.
    Partial,
    /// Rejected.
    Rejected {
        /// The check that the forgery aims at, which must be the one that the refusal names.
        check: Check,
        /// Checks that notice as well, as the forger has no key to reseal with.
        also: &'static [Check],
    },
}

impl Expected {
    /// Compares with what became of the bundle: exactly the expected checks fail, and all others pass or are not reached.
    ///
    /// # Errors
    /// Says what differs.
    pub fn compare(&self, verdict: &Verdict) -> Result<(), String> {
        let (status, failing) = match self {
            Self::Verified => ("verified", Vec::new()),
            Self::Partial => ("partial", Vec::new()),
            Self::Rejected { check, also } => ("rejected", [&[*check], *also].concat()),
        };
        if verdict.status == status && verdict.failed == failing {
            return Ok(());
        }
        Err(format!("expected {self}, found {} by {:?}: {}", verdict.status, verdict.failed, verdict.reason))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.pad("verified"),
            Self::Partial => f.pad("partial"),
            Self::Rejected { check, also } => {
                let also: Vec<&str> = also.iter().map(|check| check.as_str()).collect();
                let and = if also.is_empty() { String::new() } else { format!(" (and {})", also.join(", ")) };
                f.pad(&format!("{check}{and}"))
            }
        }
    }
}

/// A function from honest material to the forged files.
type Make = Box<dyn Fn(&Honest) -> Result<Forged> + Send + Sync>;

/// One forgery.
pub struct Forgery {
    /// Its name, also that of its files.
    pub name: String,
    /// Who could have made it.
    pub forger: Forger,
    /// What was changed and sealed again.
    pub change: String,
    /// What a verifier must say, but for [`Forgery::expected_in`].
    pub expected: Expected,
    /// Where it can be made.
    pub scenes: &'static [Scene],
    /// Whether KZG commitments, where they are, lead the proof and so give it away before it is checked.
    led_by_commitments: bool,
    make: Make,
}

impl Forgery {
    /// What a verifier must say in `scene`.
    pub fn expected_in(&self, scene: Scene) -> Expected {
        if self.led_by_commitments && scene == Scene::EzklPolycommit {
            return Expected::Rejected { check: Check::Instances, also: &[] };
        }
        self.expected
    }

    /// Makes the forged files.
    ///
    /// # Errors
    /// When a backend fails, or `honest` is of none of the forgery's scenes.
    pub fn make(&self, honest: &Honest) -> Result<Forged> {
        (self.make)(honest).with_context(|| format!("{} in {}", self.name, honest.scene))
    }
}

/// All forgeries, in the order of the table.
pub fn all() -> Vec<Forgery> {
    [
        counterparts(),
        files::forgeries(),
        cards::forgeries(),
        shards::forgeries(),
        replays::forgeries(),
        labels::forgeries(),
        signatures::forgeries(),
        boundaries::forgeries(),
        proofs::forgeries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The forgeries that can be made in `scene`.
pub fn of(scene: Scene) -> Vec<Forgery> {
    all().into_iter().filter(|forgery| forgery.scenes.contains(&scene)).collect()
}

/// A forgery that one check rejects, everywhere.
fn forgery(
    name: impl Into<String>,
    forger: Forger,
    change: impl Into<String>,
    check: Check,
    make: impl Fn(&Honest) -> Result<Forged> + Send + Sync + 'static,
) -> Forgery {
    Forgery {
        name: name.into(),
        forger,
        change: change.into(),
        expected: Expected::Rejected { check, also: &[] },
        scenes: EVERYWHERE,
        led_by_commitments: false,
        make: Box::new(make),
    }
}

impl Forgery {
    fn only_in(self, scenes: &'static [Scene]) -> Self {
        Self { scenes, ..self }
    }

    fn led_by_commitments(self) -> Self {
        Self { led_by_commitments: true, ..self }
    }

    fn noticed_by(mut self, others: &'static [Check]) -> Self {
        if let Expected::Rejected { also, .. } = &mut self.expected {
            *also = others;
        }
        self
    }

    fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }
}

/// What is true in spite of its looks, so that a verifier that rejects everything does not pass for a good one.
fn counterparts() -> Vec<Forgery> {
    let honest = |name: &str, change: &str, make: fn(&Honest) -> Result<Forged>| {
        forgery(name, Forger::Messenger, change, Check::Proof, make).expecting(Expected::Verified)
    };
    vec![
        honest("honest", "nothing", |honest| honest.draft().forged()),
        honest("honest-again", "nothing: the same input in another run", |honest| {
            honest.draft_of(&honest.chain, &honest.again).forged()
        }),
        honest("honest-other-plan", "nothing: the same input under another plan of the same owner", |honest| {
            honest.draft_of(&honest.other, &honest.elsewhere).forged()
        }),
        Forgery {
            forger: Forger::Worker,
            ..honest(
                "honest-later-attempt",
                "the worker of shard 1 signs the same statement in its next attempt",
                |honest| {
                    let mut draft = honest.draft();
                    draft.bundle.shards[1].receipt.attempt = 1;
                    draft.restate(&honest.keys, 1, |_| {});
                    draft.forged()
                },
            )
        },
        Forgery {
            forger: Forger::Worker,
            ..honest(
                "honest-provable-until-1970",
                "the worker of shard 1 signs that a proof may be asked for until 1970 only, and gives it all the same",
                |honest| {
                    let mut draft = honest.draft();
                    draft.bundle.shards[1].receipt.provable_until = UnixMillis(0);
                    draft.restate(&honest.keys, 1, |_| {});
                    draft.forged()
                },
            )
        },
        forgery(
            "proof-missing",
            Forger::Messenger,
            "the proof of shard 1 is left out: nothing is false, but not everything is proven",
            Check::Proof,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.shards[1].proof = None;
                draft.forged()
            },
        )
        .expecting(Expected::Partial),
    ]
}
