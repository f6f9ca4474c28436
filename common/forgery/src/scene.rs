//! What is forged: one small model, cut and proven in each of the ways that bundles can show.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, EzklOptions, GkrOptions, ParameterVisibility, WeightVisibility,
};
use shardproof_ezkl::{EzklConfig, Installation, VERSION};

/// Shards of every plan.
pub const SHARDS: usize = 3;
/// The model of every plan, of the zoo.
pub const MODEL: &str = "mlp";

/// A way of cutting and proving the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scene {
    /// gkr throughout; weights and inner boundaries committed.
    GkrCommitted,
    /// gkr throughout; weights and inner boundaries public.
    GkrPublic,
    /// ezkl throughout; weights fixed, inner boundaries hashed.
    Ezkl,
    /// ezkl throughout; weights fixed, inner boundaries as KZG commitments.
    EzklPolycommit,
    /// gkr, gkr, ezkl; the boundary between the two proof systems is public.
    Mixed,
}

impl Scene {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] = [Self::GkrCommitted, Self::GkrPublic, Self::Ezkl, Self::EzklPolycommit, Self::Mixed];

    /// The name on the command line and in paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GkrCommitted => "gkr-committed",
            Self::GkrPublic => "gkr-public",
            Self::Ezkl => "ezkl",
            Self::EzklPolycommit => "ezkl-polycommit",
            Self::Mixed => "mixed",
        }
    }

    /// Why the scene cannot be set up on this machine, if it cannot: a wheel is not fetched for it.
    pub fn missing(self) -> Option<String> {
        let needs_ezkl = (0..SHARDS).any(|shard| self.backend(shard) == BackendKind::Ezkl);
        let config = EzklConfig::from_env();
        let installation = Installation::new(&config);
        (needs_ezkl && !installation.is_ready()).then(|| {
            format!("{self}: ezkl {VERSION} is not installed here; `{}` would", installation.command_by_hand())
        })
    }

    /// The proof system of a shard.
    pub const fn backend(self, shard: usize) -> BackendKind {
        match self {
            Self::GkrCommitted | Self::GkrPublic => BackendKind::Gkr,
            Self::Ezkl | Self::EzklPolycommit => BackendKind::Ezkl,
            Self::Mixed if shard + 1 == SHARDS => BackendKind::Ezkl,
            Self::Mixed => BackendKind::Gkr,
        }
    }

    /// What is asked of boundaries between shards of one backend.
    pub(crate) const fn inner(self) -> Option<BoundaryMode> {
        match self {
            Self::GkrPublic => Some(BoundaryMode::Public),
            Self::EzklPolycommit => Some(BoundaryMode::Polycommit),
            Self::GkrCommitted | Self::Ezkl | Self::Mixed => None,
        }
    }

    /// Options of a shard in the scene's own plan, or in the other plan that it has: equal cuts and scales, other keys.
    pub(crate) fn options(self, shard: usize, other: bool) -> BackendOptions {
        match self.backend(shard) {
            BackendKind::Ezkl => {
                let parameters = if other { ParameterVisibility::Hashed } else { ParameterVisibility::Fixed };
                BackendOptions::Ezkl(EzklOptions { parameters, ..EzklOptions::default() })
            }
            _ => {
                let public = (self == Self::GkrPublic) != other;
                let weights = if public { WeightVisibility::Public } else { WeightVisibility::Committed };
                BackendOptions::Gkr(GkrOptions { weights, ..GkrOptions::default() })
            }
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Scene {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
