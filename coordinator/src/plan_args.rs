//! How a model is cut and proven, as a coordinator, a demo and a plan are told on their command lines.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, CalibrationTarget, EzklOptions, GkrOptions, ParameterVisibility,
    WeightVisibility,
};
use shardproof_models::quantise::{self, QuantiseError, QuantiseOptions};
use shardproof_models::{BoundaryModes, LoadOptions, OnnxModel, Split, SplitRequest, Strategy, parse_dim};

/// How a model is cut and proven.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Plan")]
pub struct PlanArgs {
    /// Proof system: gkr (native; succinct, not zero-knowledge), ezkl (zero-knowledge), or float (runs in floats and proves
    /// nothing); a list with commas names one for each shard
    #[arg(long, value_name = "BACKEND[,BACKEND...]", default_value = "gkr")]
    pub backend: Backends,
    /// How boundaries between shards appear in proofs: committed or public with gkr, hashed, polycommit or public with ezkl;
    /// between different backends always public [default: committed, which is hashed with ezkl]
    #[arg(long, value_name = "MODE")]
    pub boundary: Option<BoundaryMode>,
    /// Where to cut: balanced (smallest worst shard) or layers (equal counts of layers)
    #[arg(long, default_value = "balanced")]
    pub strategy: Strategy,
    /// Size of a symbolic dimension; may be repeated
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, u64)>,
    /// Calibration samples: .npy of shape [samples, ...input], or ezkl's JSON, which has the values of all samples one after the
    /// other in the list of each input [default: the zoo's samples, or seeded random ones]
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
    /// What calibration optimises: resources or accuracy
    #[arg(long, default_value = "resources")]
    pub target: CalibrationTarget,
    /// gkr: whether verifiers get the weights: committed (no), or public (yes; smaller proofs, slower to verify)
    #[arg(long, value_name = "VISIBILITY", default_value = "committed")]
    pub weights: WeightVisibility,
    /// ezkl: how the weights enter the circuit: fixed (in the verifying key), hashed, or private (bound by nothing)
    #[arg(long, value_name = "VISIBILITY", default_value = "fixed")]
    pub parameters: ParameterVisibility,
    /// Scale of the model's input instead of the calibrated one
    #[arg(long, value_name = "S")]
    pub input_scale: Option<i32>,
    /// gkr: bits of the weights' magnitudes instead of the target's
    #[arg(long, value_name = "BITS")]
    pub weight_bits: Option<u32>,
    /// gkr: bits of the activations' magnitudes instead of the target's
    #[arg(long, value_name = "BITS")]
    pub activation_bits: Option<u32>,
    /// gkr: log2 of the entries of a function's table instead of the target's
    #[arg(long, value_name = "BITS")]
    pub table_bits: Option<u32>,
    /// ezkl: scale of the weights instead of the calibrated one
    #[arg(long, value_name = "S")]
    pub parameter_scale: Option<i32>,
    /// ezkl: range of the lookup tables instead of the calibrated one
    #[arg(long, value_name = "LO,HI", value_parser = parse_range, allow_hyphen_values = true)]
    pub lookup_range: Option<(i64, i64)>,
    /// ezkl: log2 of the circuit's rows instead of the calibrated one
    #[arg(long, value_name = "K")]
    pub logrows: Option<u32>,
}

/// The proof system of every shard, or one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends(Vec<BackendKind>);

impl Backends {
    /// Whether any shard is proven with `kind`.
    pub fn include(&self, kind: BackendKind) -> bool {
        self.0.contains(&kind)
    }

    /// Whether nothing is proven.
    pub fn prove_nothing(&self) -> bool {
        self.0.iter().all(|&kind| kind == BackendKind::Float)
    }

    /// One for each of `shards`.
    ///
    /// # Errors
    /// When several were named, and not as many as there are shards.
    fn of(&self, shards: usize) -> anyhow::Result<Vec<BackendKind>> {
        match self.0.as_slice() {
            [one] => Ok(vec![*one; shards]),
            list if list.len() == shards => Ok(list.to_vec()),
            list => {
                bail!("--backend names {} backends, there are {shards} shards: name one, or one for each", list.len())
            }
        }
    }
}

impl FromStr for Backends {
    type Err = <BackendKind as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|kind| kind.as_str()).collect();
        f.pad(&names.join(","))
    }
}

impl PlanArgs {
    /// How the model's file is read.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { dims: self.dims.clone() }
    }

    /// Cuts the model; runs nothing.
    ///
    /// # Errors
    /// When it cannot be cut or proven in this way.
    pub fn split(&self, model: &OnnxModel, shards: usize) -> anyhow::Result<Split> {
        let kinds = self.backend.of(shards)?;
        let backends: Vec<BackendOptions> = kinds.iter().map(|&kind| self.options_of(kind)).collect();
        let request = SplitRequest {
            shards,
            strategy: self.strategy,
            backend: &|index| backends[index.as_usize()].clone(),
            modes: BoundaryModes { inner: self.boundary, ..BoundaryModes::default() },
        };
        let split = model.split(&request)?;
        for (index, (shard, kind)) in split.shards.iter().zip(kinds).enumerate() {
            if kind == BackendKind::Gkr {
                self.check_quantisation(&shard.onnx)
                    .with_context(|| format!("shard {index} cannot be proven with gkr"))?;
            }
        }
        Ok(split)
    }

    /// Whether gkr, which proves integers, can prove a shard.
    fn check_quantisation(&self, onnx: &[u8]) -> anyhow::Result<()> {
        let options = QuantiseOptions {
            weight_bits: self.weight_bits,
            activation_bits: self.activation_bits,
            table_bits: self.table_bits,
            ..QuantiseOptions::new(self.target)
        };
        quantise::check(onnx, &options).map_err(|error| match error {
            QuantiseError::Unsupported { .. } => {
                anyhow!("{error}: --backend ezkl may prove it, and --backend float runs it without proofs")
            }
            other => other.into(),
        })
    }

    fn options_of(&self, kind: BackendKind) -> BackendOptions {
        match kind {
            BackendKind::Float => BackendOptions::Float,
            BackendKind::Ezkl => BackendOptions::Ezkl(EzklOptions {
                target: self.target,
                parameters: self.parameters,
                input_scale: self.input_scale,
                parameter_scale: self.parameter_scale,
                lookup_range: self.lookup_range,
                logrows: self.logrows,
            }),
            BackendKind::Gkr => BackendOptions::Gkr(GkrOptions {
                target: self.target,
                weights: self.weights,
                input_scale: self.input_scale,
                weight_bits: self.weight_bits,
                activation_bits: self.activation_bits,
                table_bits: self.table_bits,
            }),
        }
    }

    /// The same, for the command line of a coordinator.
    pub fn to_args(&self) -> Vec<String> {
        // Destructured so that a flag that is added does not get lost here.
        let Self {
            backend,
            boundary,
            strategy,
            dims,
            samples,
            target,
            weights,
            parameters,
            input_scale,
            weight_bits,
            activation_bits,
            table_bits,
            parameter_scale,
            lookup_range,
            logrows,
        } = self;
        let flag = |name: &str, value: &dyn fmt::Display| format!("--{name}={value}");
        let mut args = vec![
            flag("backend", backend),
            flag("strategy", strategy),
            flag("target", &target.as_str()),
            flag("weights", weights),
            flag("parameters", &parameters.as_str()),
        ];
        args.extend(dims.iter().map(|(name, size)| format!("--dim={name}={size}")));
        args.extend(boundary.map(|mode| flag("boundary", &mode)));
        args.extend(samples.iter().map(|path| flag("samples", &path.display())));
        args.extend(lookup_range.map(|(low, high)| format!("--lookup-range={low},{high}")));
        let signed = [("input-scale", input_scale), ("parameter-scale", parameter_scale)];
        args.extend(signed.iter().filter_map(|(name, value)| value.map(|value| flag(name, &value))));
        let unsigned = [
            ("weight-bits", weight_bits),
            ("activation-bits", activation_bits),
            ("table-bits", table_bits),
            ("logrows", logrows),
        ];
        args.extend(unsigned.iter().filter_map(|(name, value)| value.map(|value| flag(name, &value))));
        args
    }
}

/// `LO,HI`.
fn parse_range(text: &str) -> Result<(i64, i64), String> {
    let (low, high) = text.split_once(',').ok_or("expected LO,HI")?;
    let number = |text: &str| i64::from_str(text.trim()).map_err(|_| format!("`{text}` is no integer"));
    let range = (number(low)?, number(high)?);
    if range.0 < range.1 { Ok(range) } else { Err(format!("{} is not below {}", range.0, range.1)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn parse(args: &[&str]) -> Result<PlanArgs, String> {
        let line = std::iter::once("plan").chain(args.iter().copied());
        Line::try_parse_from(line).map(|line| line.plan).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_parse_or_say_why() {
        assert_eq!(parse_range("-10,20"), Ok((-10, 20)));
        assert!(parse_range("3,3").is_err());
    }

    #[test]
    fn what_is_handed_on_means_the_same() {
        let lines: [&[&str]; 3] = [
            &[],
            &["--backend", "gkr,ezkl", "--boundary", "public", "--weights", "public", "--target", "accuracy"],
            &[
                "--backend=ezkl",
                "--boundary=polycommit",
                "--strategy=layers",
                "--dim=batch=2",
                "--dim=n=3",
                "--samples=a b.npy",
                "--parameters=hashed",
                "--input-scale=-3",
                "--parameter-scale=4",
                "--weight-bits=9",
                "--activation-bits=12",
                "--table-bits=10",
                "--lookup-range=-5,6",
                "--logrows=12",
            ],
        ];
        for line in lines {
            let args = parse(line).expect("the line is right");
            let handed = args.to_args();
            let again = parse(&handed.iter().map(String::as_str).collect::<Vec<_>>()).expect("it is understood");
            assert_eq!(format!("{again:?}"), format!("{args:?}"));
        }
    }

    #[test]
    fn backends_are_one_or_one_for_each_shard() {
        let backends = |text: &str| text.parse::<Backends>();
        assert_eq!(backends("gkr").expect("a name").of(3).expect("for all"), [BackendKind::Gkr; 3]);
        let mixed = backends("gkr, ezkl").expect("two names");
        assert_eq!(mixed.of(2).expect("one each"), [BackendKind::Gkr, BackendKind::Ezkl]);
        assert!(mixed.of(3).expect_err("two for three").to_string().contains("2 backends, there are 3 shards"));
        assert!(backends("gkr,").is_err() && backends("").is_err() && backends("magic").is_err());
    }
}
