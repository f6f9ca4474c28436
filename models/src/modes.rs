//! How the boundaries of a plan are bound: what is asked for, and what follows from the backends on their sides.

use shardproof_common::plan::{BackendKind, BackendOptions, BoundaryMode};

use crate::error::ModelError;

/// Modes of a plan's boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundaryModes {
    /// Of the model's input.
    pub input: BoundaryMode,
    /// Of the boundaries between shards of one backend; nothing or `committed` for the backend's own,
    /// [`BackendKind::inner_mode`]. Boundaries between different backends are public.
    pub inner: Option<BoundaryMode>,
    /// Of the model's output.
    pub output: BoundaryMode,
}

impl BoundaryModes {
    /// Public ends, and `inner` between shards.
    pub const fn with_inner(inner: BoundaryMode) -> Self {
        Self { input: BoundaryMode::Public, inner: Some(inner), output: BoundaryMode::Public }
    }

    /// The mode between a shard of `left` and one of `right`.
    pub(crate) fn between(&self, left: BackendKind, right: BackendKind) -> BoundaryMode {
        match self.inner {
            _ if left != right => BoundaryMode::Public,
            // Without proofs there is nothing to commit to.
            _ if left == BackendKind::Float => BoundaryMode::Public,
            None | Some(BoundaryMode::Committed) => left.inner_mode(),
            Some(mode) => mode,
        }
    }

    /// The modes of all boundaries of shards of these backends.
    pub(crate) fn in_force(&self, backends: &[BackendOptions]) -> Vec<BoundaryMode> {
        let unproven = backends.iter().all(|options| options.kind() == BackendKind::Float);
        let end = |mode| if unproven { BoundaryMode::Public } else { mode };
        let inner = backends.windows(2).map(|pair| self.between(pair[0].kind(), pair[1].kind()));
        std::iter::once(end(self.input)).chain(inner).chain([end(self.output)]).collect()
    }
}

impl Default for BoundaryModes {
    /// Public ends, and each backend's own mode between its shards.
    fn default() -> Self {
        Self { input: BoundaryMode::Public, inner: None, output: BoundaryMode::Public }
    }
}

/// Refuses modes that a backend on one side does not have, and floats beside proofs.
///
/// # Errors
/// Names the boundary or the shards.
pub(crate) fn check(modes: &[BoundaryMode], backends: &[BackendOptions]) -> Result<(), ModelError> {
    for (shard, options) in backends.iter().enumerate() {
        for (boundary, &mode) in modes.iter().enumerate().skip(shard).take(2) {
            let backend = options.kind();
            if !backend.has_mode(mode) {
                return Err(ModelError::BoundaryMode { boundary, mode, shard, backend });
            }
        }
    }
    let float = |options: &BackendOptions| options.kind() == BackendKind::Float;
    match backends.windows(2).position(|pair| float(&pair[0]) != float(&pair[1])) {
        Some(shard) => Err(ModelError::FloatMixed { shard }),
        None => Ok(()),
    }
}
