//! Whether registered settings are what the plan asks for, read from the settings themselves.
//!
//! The settings come from the model's owner, but whoever relies on a card wants to know what its proofs mean: that the
//! boundaries enter as the plan says, that scales and sizes are those of the tensors, that range checks are on.

use shardproof_common::backend::Registered;
use shardproof_common::card::{EzklKeys, ShardCard, ShardKeys};
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, ParameterVisibility};
use shardproof_common::tensor::TensorSpec;
use thiserror::Error;

use crate::VERSION;
use crate::circuit::RESERVED_ROWS;
use crate::layout::{LayoutError, parameter_hashes};
use crate::settings::{Settings, SettingsError, Visibility};
use crate::srs::{MAX_LOGROWS, VERIFIER_BYTES};

/// Values of more bits than this are not range-checked by any sensible circuit; far below the field's 254.
const MAX_RANGE_BITS: u32 = 62;

/// How settings differ from what the plan asks for.
#[derive(Debug, Error)]
pub(crate) enum Mismatch {
    #[error("the keys are not ezkl's")]
    Keys,
    #[error("the plan's options are not ezkl's")]
    Options,
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("settings: version {found}, expected {VERSION}")]
    Version { found: String },
    #[error("settings: {field} is {found}, so that range checks or the prover's own checks are off")]
    RangeChecks { field: &'static str, found: String },
    #[error("settings: range checks of {legs} digits to base {base} are not sensible")]
    Digits { base: u64, legs: u64 },
    #[error("settings: num_blinding_factors is {found}, so that proofs may not hide the witness")]
    Blinding { found: u64 },
    #[error("settings: {field} is {found:?}, expected {expected:?}")]
    Visibility { field: &'static str, expected: Visibility, found: Visibility },
    #[error("settings: {field} is {found:?}, expected {expected:?}")]
    Scales { field: &'static str, expected: Vec<i32>, found: Vec<i32> },
    #[error("settings: public tensors of {found:?} elements, expected {expected:?}")]
    Instances { expected: Vec<u64>, found: Vec<u64> },
    #[error("settings: {found} public hashes, expected {expected}")]
    Hashes { expected: u64, found: u64 },
    #[error("settings: commitments to {found:?} elements, expected {expected:?}")]
    Commitments { expected: Vec<u64>, found: Vec<u64> },
    #[error("settings: commitments to {elements} elements do not fit one column of logrows {logrows}")]
    CommitmentTooLong { elements: u64, logrows: u32 },
    #[error("settings: logrows {settings}, but the SRS is for {srs}")]
    Logrows { settings: u32, srs: u32 },
    #[error("settings: {field} is {found}, but the plan asks for {expected}")]
    Manual { field: &'static str, expected: String, found: String },
    #[error("the weights are {visibility}, but {found} hashes of them are registered")]
    ParameterHashes { visibility: &'static str, found: usize },
    #[error(transparent)]
    ParameterHash(#[from] LayoutError),
    #[error("the registered SRS is not the verifier's part of one")]
    Srs,
}

/// The settings registered in `card`, when they are what `registered` asks for.
pub(crate) fn checked(card: &ShardCard, registered: &Registered<'_>) -> Result<Settings, Mismatch> {
    let ShardKeys::Ezkl(keys) = &card.keys else { return Err(Mismatch::Keys) };
    let BackendOptions::Ezkl(options) = registered.options else { return Err(Mismatch::Options) };
    let settings = Settings::parse_canonical(&keys.settings)?;
    if settings.version != VERSION {
        return Err(Mismatch::Version { found: settings.version });
    }
    check_range_checks(&settings)?;
    check_visibilities(&settings, options, registered)?;
    check_scale("model_input_scales", &settings.model_input_scales, &card.input)?;
    check_scale("model_output_scales", &settings.model_output_scales, &card.output)?;
    check_public_values(&settings, card, keys, registered)?;
    check_srs(&settings, keys)?;
    check_manual(&settings, options)?;
    Ok(settings)
}

fn check_range_checks(settings: &Settings) -> Result<(), Mismatch> {
    for (field, found) in [("check_mode", &settings.check_mode), ("run_args.check_mode", &settings.run_args.check_mode)]
    {
        if found != "SAFE" {
            return Err(Mismatch::RangeChecks { field, found: found.clone() });
        }
    }
    if settings.run_args.ignore_range_check_inputs_outputs {
        let field = "run_args.ignore_range_check_inputs_outputs";
        return Err(Mismatch::RangeChecks { field, found: "true".to_owned() });
    }
    let (base, legs) = (settings.run_args.decomp_base, settings.run_args.decomp_legs);
    let range = u32::try_from(legs).ok().and_then(|legs| base.checked_pow(legs));
    if base < 2 || legs == 0 || range.is_none_or(|range| range > 1 << MAX_RANGE_BITS) {
        return Err(Mismatch::Digits { base, legs });
    }
    settings.num_blinding_factors.map_or(Ok(()), |found| Err(Mismatch::Blinding { found }))
}

fn check_visibilities(settings: &Settings, options: &EzklOptions, registered: &Registered<'_>) -> Result<(), Mismatch> {
    let parameters = match options.parameters {
        ParameterVisibility::Fixed => Visibility::Fixed,
        ParameterVisibility::Hashed => Visibility::hashed(),
        ParameterVisibility::Private => Visibility::Private,
    };
    let run_args = &settings.run_args;
    for (field, found, expected) in [
        ("input_visibility", &run_args.input_visibility, visibility_of(registered.input_mode)),
        ("output_visibility", &run_args.output_visibility, visibility_of(registered.output_mode)),
        ("param_visibility", &run_args.param_visibility, parameters),
    ] {
        if *found != expected {
            return Err(Mismatch::Visibility { field, expected, found: found.clone() });
        }
    }
    Ok(())
}

fn visibility_of(mode: BoundaryMode) -> Visibility {
    match mode {
        BoundaryMode::Public => Visibility::Public,
        // No card has the second, which asked of ezkl means the first.
        BoundaryMode::Hashed | BoundaryMode::Committed => Visibility::hashed(),
        BoundaryMode::Polycommit => Visibility::KZGCommit,
    }
}

fn check_scale(field: &'static str, found: &[i32], specs: &[TensorSpec]) -> Result<(), Mismatch> {
    let expected: Vec<i32> = specs.iter().map(|spec| spec.scale).collect();
    if found == expected { Ok(()) } else { Err(Mismatch::Scales { field, expected, found: found.to_vec() }) }
}

fn check_public_values(
    settings: &Settings,
    card: &ShardCard,
    keys: &EzklKeys,
    registered: &Registered<'_>,
) -> Result<(), Mismatch> {
    let sizes = |mode: BoundaryMode| -> Vec<u64> {
        let sides = [(registered.input_mode, &card.input), (registered.output_mode, &card.output)];
        sides
            .into_iter()
            .filter(|(side, _)| *side == mode)
            .flat_map(|(_, specs)| specs)
            .map(TensorSpec::elements)
            .collect()
    };
    let elements = |shape: &Vec<u64>| shape.iter().fold(1u64, |product, &extent| product.saturating_mul(extent));
    let found: Vec<u64> = settings.model_instance_shapes.iter().map(elements).collect();
    let expected = sizes(BoundaryMode::Public);
    if found != expected {
        return Err(Mismatch::Instances { expected, found });
    }

    let parameter_hashes = parameter_hashes(keys)?.len();
    let (visibility, plausible) = match settings.run_args.param_visibility {
        Visibility::Fixed => ("fixed", parameter_hashes == 0),
        Visibility::Private => ("private", parameter_hashes == 0),
        // None where the shard has no weights. The settings count them, and who checks a chain knows the plan's weights.
        _ => ("hashed", true),
    };
    if !plausible {
        return Err(Mismatch::ParameterHashes { visibility, found: parameter_hashes });
    }
    let expected = (sizes(BoundaryMode::Hashed).len() + parameter_hashes) as u64;
    let found = settings.module_sizes.poseidon.1.iter().fold(0u64, |sum, &count| sum.saturating_add(count));
    if found != expected {
        return Err(Mismatch::Hashes { expected, found });
    }

    let expected = sizes(BoundaryMode::Polycommit);
    let found = settings.module_sizes.polycommit.clone();
    if found != expected {
        return Err(Mismatch::Commitments { expected, found });
    }
    let logrows = settings.run_args.logrows;
    let column = 1u64.checked_shl(logrows).unwrap_or(0);
    match expected.into_iter().find(|elements| elements.saturating_add(RESERVED_ROWS) > column) {
        Some(elements) => Err(Mismatch::CommitmentTooLong { elements, logrows }),
        None => Ok(()),
    }
}

fn check_srs(settings: &Settings, keys: &EzklKeys) -> Result<(), Mismatch> {
    let (logrows, srs) = (settings.run_args.logrows, keys.srs.logrows);
    if logrows != srs || !(1..=MAX_LOGROWS).contains(&logrows) {
        return Err(Mismatch::Logrows { settings: logrows, srs });
    }
    verifier_srs(keys).map(drop)
}

/// The bytes of the registered SRS file of logrows 1.
pub(crate) fn verifier_srs(keys: &EzklKeys) -> Result<Vec<u8>, Mismatch> {
    if keys.srs.verifier.len() != 2 * VERIFIER_BYTES {
        return Err(Mismatch::Srs);
    }
    let bytes = hex::decode(&keys.srs.verifier).map_err(|_| Mismatch::Srs)?;
    let is_whole = bytes.starts_with(&1u32.to_le_bytes()) && hex::encode(&bytes) == keys.srs.verifier;
    if is_whole { Ok(bytes) } else { Err(Mismatch::Srs) }
}

fn check_manual(settings: &Settings, options: &EzklOptions) -> Result<(), Mismatch> {
    let run_args = &settings.run_args;
    let differs = |field, expected: String, found: String| Err(Mismatch::Manual { field, expected, found });
    if let Some(scale) = options.parameter_scale.filter(|&scale| scale != run_args.param_scale) {
        return differs("param_scale", scale.to_string(), run_args.param_scale.to_string());
    }
    if let Some(range) = options.lookup_range.filter(|&range| range != run_args.lookup_range) {
        return differs("lookup_range", format!("{range:?}"), format!("{:?}", run_args.lookup_range));
    }
    match options.logrows.filter(|&logrows| logrows > run_args.logrows) {
        Some(logrows) => differs("logrows", format!("at least {logrows}"), run_args.logrows.to_string()),
        None => Ok(()),
    }
}
