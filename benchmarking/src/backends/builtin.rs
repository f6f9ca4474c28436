//! The systems that ship with this program: shardproof's own backends, each with one way to bind the weights.
//!
//! They are measured like adapters: this program starts itself once for each step, and [`step`] does it.

mod state;
pub mod step;

use shardproof_common::plan::{
    BackendOptions, CalibrationTarget, EzklOptions, GkrOptions, ParameterVisibility, WeightVisibility,
};

use super::manifest::SystemConditions;

/// A built-in system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// The native prover with a commitment to the weights in the verifying key.
    GkrCommitted,
    /// The native prover with the weights in the verifying key.
    GkrPublic,
    /// ezkl with the weights fixed in the verifying key.
    Ezkl,
    /// ezkl with a hash of the weights among the public instances.
    EzklHashed,
    /// ezkl with weights that the prover chooses.
    EzklPrivate,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::GkrCommitted, Self::GkrPublic, Self::Ezkl, Self::EzklHashed, Self::EzklPrivate];

    /// The name in tables and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GkrCommitted => "gkr-committed",
            Self::GkrPublic => "gkr-public",
            Self::Ezkl => "ezkl",
            Self::EzklHashed => "ezkl-hashed",
            Self::EzklPrivate => "ezkl-private",
        }
    }

    /// The system of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.as_str() == name)
    }

    /// Whether it needs Python and the ezkl package.
    pub const fn is_ezkl(self) -> bool {
        matches!(self, Self::Ezkl | Self::EzklHashed | Self::EzklPrivate)
    }

    /// One line for people.
    pub const fn about(self) -> &'static str {
        match self {
            Self::GkrCommitted => "the native prover, weights committed",
            Self::GkrPublic => "the native prover, weights public",
            Self::Ezkl => "ezkl 23.0.5, weights fixed in the verifying key",
            Self::EzklHashed => "ezkl 23.0.5, weights hashed in the circuit",
            Self::EzklPrivate => "ezkl 23.0.5, weights bound to nothing",
        }
    }

    /// The plan's options.
    pub fn options(self, target: CalibrationTarget) -> BackendOptions {
        let gkr = |weights| BackendOptions::Gkr(GkrOptions { target, weights, ..GkrOptions::default() });
        let ezkl = |parameters| BackendOptions::Ezkl(EzklOptions { target, parameters, ..EzklOptions::default() });
        match self {
            Self::GkrCommitted => gkr(WeightVisibility::Committed),
            Self::GkrPublic => gkr(WeightVisibility::Public),
            Self::Ezkl => ezkl(ParameterVisibility::Fixed),
            Self::EzklHashed => ezkl(ParameterVisibility::Hashed),
            Self::EzklPrivate => ezkl(ParameterVisibility::Private),
        }
    }

    /// What is printed beside the figures.
    pub fn conditions(self) -> SystemConditions {
        let weights = match self {
            Self::GkrCommitted => "committed to in the verifying key; every proof opens the commitment",
            Self::GkrPublic => "in the verifying key; the verifier evaluates them",
            Self::Ezkl => "fixed in the verifying key",
            Self::EzklHashed => "a Poseidon hash of them is a public instance, compared with the registered one",
            Self::EzklPrivate => {
                "BOUND TO NOTHING: the prover may use any weights, so a proof says that some model of this shape gives \
                 the answer"
            }
        };
        let text = str::to_owned;
        if self.is_ezkl() {
            return SystemConditions {
                arithmetisation: text("Plonkish (Halo2), lookups"),
                field: text("scalar field of BN254, 254 bits"),
                commitment: text("KZG"),
                security: text("about 100 bits: discrete logarithms and pairings of BN254, algebraic group model"),
                setup: text("universal SRS from a ceremony, keys for each model; here a test SRS, and so insecure"),
                zero_knowledge: true,
                weights: text(weights),
                platforms: text("Linux, macOS; needs Python 3.7 or later and the ezkl wheel"),
                formats: text("ONNX"),
                prove: text(
                    "ezkl's call in a Python process that made the witness before; it reads proving key, circuit and SRS",
                ),
                verify: text(
                    "the statement's checks, writing proof and key to files, the start of Python and ezkl, reading key, \
                     settings and SRS, and two checks: of the proof, and of the proof less a byte, which must fail",
                ),
            };
        }
        SystemConditions {
            arithmetisation: text("integer graph: sumchecks (GKR), logup lookups"),
            field: text("Goldilocks, 64 bits; challenges in its quadratic extension, 128 bits"),
            commitment: text("WHIR over Blake3 Merkle trees"),
            security: text(
                "at least 96 bits for the whole proof in one union bound, of proven statements in the random oracle \
                 model (unique decoding or Johnson bound, never up to capacity); up to 16 bits of the query terms are \
                 work",
            ),
            setup: text("none that is trusted; keys for each model"),
            zero_knowledge: false,
            weights: text(weights),
            platforms: text("wherever Rust programs run; nothing to install"),
            formats: text("ONNX"),
            prove: text("a process's first proof, keys loaded before; the model runs again in it"),
            verify: text(if self == Self::GkrPublic {
                "a process's first check, key read and weights parsed before; the statement's checks, the key's digest, the \
                 proof; all weights are evaluated"
            } else {
                "a process's first check, key read before; the statement's checks, the key's digest, the proof with the \
                 opening of the weights"
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_found_by_its_name() {
        assert!(Builtin::ALL.into_iter().all(|builtin| Builtin::named(builtin.as_str()) == Some(builtin)));
        assert_eq!(Builtin::named("gkr"), None);
    }

    #[test]
    fn descriptions_name_the_version_that_is_run() {
        let ezkl = Builtin::ALL.into_iter().filter(|builtin| builtin.is_ezkl());
        assert!(ezkl.into_iter().all(|builtin| builtin.about().contains(shardproof_ezkl::VERSION)));
    }
}
