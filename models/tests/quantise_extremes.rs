//! Constants and values at the ends of what floats can be: handled exactly, or refused by name.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

#[path = "support/calibrated.rs"]
mod calibrated;
mod support;

use calibrated::{agrees, load, ramp, refused, run, samples};
use shardproof_common::plan::CalibrationTarget;
use shardproof_models::quantise::{QuantiseOptions, Quantised, quantise, quantise_chain};
use support::{Builder, float, int};

fn quantised(builder: &Builder, reach: f32) -> Quantised {
    let model = load(builder);
    let options = QuantiseOptions::new(CalibrationTarget::Accuracy);
    quantise(&model.to_onnx(), &options, &samples(&model, 2, 1, reach)).unwrap()
}

/// The first output as reals.
fn reals(builder: &Builder, reach: f32) -> Vec<f64> {
    let model = load(builder);
    let quantised = quantised(builder, reach);
    let unit = (-f64::from(quantised.output_scales()[0])).exp2();
    run(&quantised, &samples(&model, 1, 2, reach)[0]).into_iter().map(|q| q as f64 * unit).collect()
}

/// `x` times the factors, one after the other.
fn multiplied(factors: &[f32]) -> Builder {
    let mut builder = Builder::new().input("x", &[1, 16]);
    for (index, &factor) in factors.iter().enumerate() {
        builder = builder.weights(&format!("c{index}"), &[], &[factor]);
    }
    let names: Vec<String> =
        (0..=factors.len()).map(|i| if i == 0 { "x".to_owned() } else { format!("y{i}") }).collect();
    for index in 0..factors.len() {
        let inputs = [names[index].as_str(), &format!("c{index}")];
        builder = builder.node(&format!("m{index}"), "Mul", &inputs, &[&names[index + 1]]);
    }
    builder.output(&names[factors.len()])
}

#[test]
fn tiny_and_large_factors_that_make_up_for_each_other() {
    for factors in [[1e-25, 1e25], [1e25, 1e-25], [3e-12, 5e11], [1e-38, 1e38]] {
        agrees(&format!("{factors:?}"), &multiplied(&factors), 1.0);
    }
}

/// The least that a float can be multiplied by, and what is left of it.
#[test]
fn factors_that_leave_nothing() {
    for factors in [vec![f32::from_bits(1)], vec![1e-38; 3], vec![1e-38; 12]] {
        assert!(reals(&multiplied(&factors), 1.0).iter().all(|value| value.abs() < 1e-15), "{factors:?}");
    }
}

/// What leaves a shard is at a scale that the next one takes.
#[test]
fn outputs_are_as_fine_as_the_next_shard_takes_and_no_finer() {
    let (fine, model) = (multiplied(&[1e-25]), load(&multiplied(&[1e-25])));
    let options = QuantiseOptions::new(CalibrationTarget::Accuracy);
    let chain =
        quantise_chain(&[model.to_onnx(), load(&multiplied(&[2.0])).to_onnx()], &options, &samples(&model, 2, 1, 1.0));
    assert_eq!(chain.unwrap()[0].output_scales(), [60]);
    assert!(reals(&fine, 1.0).iter().all(|value| value.abs() < 1e-15));
    let error = refused(&multiplied(&[1e30])).to_string();
    assert!(error.contains("`m0` (Mul)") && error.contains("in units of 2^"), "{error}");
}

#[test]
fn the_constant_of_a_sum_whose_factors_are_zero() {
    let line = Builder::new().input("x", &[1, 8]).node_with(
        "line",
        "HardSigmoid",
        &["x"],
        &["y"],
        vec![float("alpha", 0.0), float("beta", 0.25)],
    );
    assert_eq!(reals(&line.output("y"), 1.0), [0.25; 8]);
    let linear = Builder::new().input("x", &[1, 4]).weights("w", &[4, 2], &[0.0; 8]).weights("b", &[2], &[0.5, -3.0]);
    let linear = linear.node("product", "MatMul", &["x", "w"], &["p"]).node("bias", "Add", &["p", "b"], &["y"]);
    assert_eq!(reals(&linear.output("y"), 1.0), [0.5, -3.0]);
}

/// The factor of the scores stays with those who read them beside the softmax.
#[test]
fn a_factor_before_a_softmax_that_others_read_too() {
    let scores = |read: &str| {
        Builder::new()
            .input("q", &[4, 8])
            .input("k", &[8, 4])
            .weights("c", &[], &[0.125])
            .node("lower", "Mul", &["q", "c"], &["low"])
            .node("scores", "MatMul", &["low", "k"], &["s"])
            .weights("d", &[], &[4.0])
            .node("scale", "Mul", &["s", "d"], &["scaled"])
            .node_with("softmax", "Softmax", &["scaled"], &["p"], vec![int("axis", -1)])
            .node("sum", "Add", &["p", read], &["y"])
            .output("y")
    };
    for read in ["s", "scaled"] {
        agrees(read, &scores(read), 2.0);
    }
}

/// Folding leaves constants of more than 2^24 elements to the nodes that make them.
#[test]
fn constants_that_are_too_large_to_fold() {
    for operator in ["Add", "Sum", "Mul", "Max"] {
        let builder = Builder::new().input("x", &[1, 1]);
        let builder =
            builder.weights("a", &[1 << 13, 1], &vec![1.0; 1 << 13]).weights("b", &[1, 1 << 12], &vec![1.0; 1 << 12]);
        let builder = builder.node("constant", operator, &["a", "b"], &["d"]);
        let error = refused(&builder.node("last", "Add", &["x", "d"], &["y"]).output("y")).to_string();
        assert!(error.contains(&format!("`constant` ({operator})")), "{operator}: {error}");
    }
}

#[test]
fn large_weights_are_not_cut_off() {
    for magnitude in [1e10, 1e20, 1e30] {
        let weights: Vec<f32> = ramp(32).into_iter().map(|w| w * magnitude).collect();
        let linear = Builder::new().input("x", &[2, 8]).weights("w", &[8, 4], &weights);
        let linear = linear.weights("c", &[], &[1.0 / magnitude]).node("product", "MatMul", &["x", "w"], &["p"]);
        // A ReLU between them, so that the factor is not folded into the weights.
        let linear = linear.node("relu", "Relu", &["p"], &["r"]).node("scale", "Mul", &["r", "c"], &["y"]);
        agrees(&format!("{magnitude:e}"), &linear.output("y"), 1.0);
    }
    let bias = Builder::new().input("x", &[1, 2]).weights("b", &[2], &[1e25, 2e25]);
    let error = refused(&bias.node("bias", "Add", &["x", "b"], &["y"]).output("y")).to_string();
    assert!(error.contains("`bias` (Add)"), "{error}");
}

#[test]
fn a_table_of_large_values_is_not_cut_off() {
    let builder = Builder::new().input("x", &[1, 32]).weights("c", &[], &[1e-26]);
    let builder = builder.node("exp", "Exp", &["x"], &["e"]).node("scale", "Mul", &["e", "c"], &["y"]).output("y");
    let model = load(&builder);
    let options = QuantiseOptions::new(CalibrationTarget::Accuracy);
    let samples = samples(&model, 2, 1, 60.0);
    match quantise(&model.to_onnx(), &options, &samples) {
        Ok(quantised) => {
            let unit = (-f64::from(quantised.output_scales()[0])).exp2();
            for (q, x) in run(&quantised, &samples[0]).into_iter().zip(&samples[0][0].values) {
                let (found, expected) = (q as f64 * unit, f64::from(*x).exp() * 1e-26);
                assert!((found - expected).abs() <= 0.01, "{x}: {found} for {expected}");
            }
        }
        Err(error) => assert!(error.to_string().contains("`exp` (Exp)"), "{error}"),
    }
}

/// Scores that are next to nothing leave equal shares.
#[test]
fn a_softmax_of_scores_times_next_to_nothing() {
    for factors in [vec![1e-30_f32], vec![1e-38; 2], vec![1e-38; 7]] {
        let model = multiplied(&factors);
        let last = format!("y{}", factors.len());
        let mut builder = model.node_with("softmax", "Softmax", &[&last], &["p"], vec![int("axis", -1)]);
        builder.graph().output.clear();
        let shares = reals(&builder.output("p"), 1.0);
        assert!(shares.iter().all(|share| (share - 1.0 / 16.0).abs() < 1e-3), "{factors:?}: {shares:?}");
    }
}

#[test]
fn what_is_small_within_a_shard_is_not_lost() {
    let builder = multiplied(&[1e-25]).weights("c", &[], &[1e25]);
    let mut builder = builder.node("relu", "Relu", &["y1"], &["r"]).node("large", "Mul", &["r", "c"], &["z"]);
    builder.graph().output.clear();
    agrees("a ReLU of tiny values", &builder.output("z"), 1.0);
}

#[test]
fn sums_of_terms_that_are_far_apart() {
    let mut builder =
        multiplied(&[1e-25]).node("relu", "Relu", &["y1"], &["r"]).node("sum", "Add", &["x", "r"], &["s"]);
    builder.graph().output.clear();
    agrees("a sum", &builder.output("s"), 1.0);
}

/// A line of slope zero: the same number whatever the input.
fn constant(value: f32) -> Builder {
    let line = vec![float("alpha", 0.0), float("beta", value)];
    Builder::new().input("x", &[2, 8]).node_with("line", "HardSigmoid", &["x"], &["y"], line)
}

/// Half of a table's entries are for negative inputs, one more than for positive ones.
#[test]
fn the_largest_value_that_enters_a_table_may_be_a_power_of_two() {
    let found = reals(&constant(1.0).node("exp", "Exp", &["y"], &["z"]).output("z"), 1.0);
    assert!(found.iter().all(|value| (value - 1_f64.exp()).abs() < 1e-3), "{found:?}");
    let builder = Builder::new().input("x", &[4, 16]).node("sigmoid", "Sigmoid", &["x"], &["s"]);
    agrees("shares", &builder.node("cosh", "Cosh", &["s"], &["y"]).output("y"), 20.0);
}

/// A table covers as much above zero as below it.
#[test]
fn a_table_whose_unused_half_would_take_all_bits_is_refused() {
    let builder = Builder::new().input("x", &[1, 32]).weights("c", &[], &[60.0]);
    let builder = builder.node("lower", "Sub", &["x", "c"], &["l"]).node("exp", "Exp", &["l"], &["e"]);
    let error = refused(&builder.output("e")).to_string();
    assert!(error.contains("`exp` (Exp)") && error.contains("clip its input"), "{error}");
}

#[test]
fn a_denominator_that_is_zero_as_an_integer_is_refused() {
    let builder = Builder::new().input("x", &[1, 2]).weights("c", &[2], &[1.0, 1e-9]).weights("d", &[2], &[0.5, 0.5]);
    let builder = builder.node("square", "Mul", &["x", "x"], &["s"]).node("raise", "Add", &["s", "d"], &["r"]);
    let builder = builder.node("scale", "Mul", &["r", "c"], &["m"]).node("relu", "Sqrt", &["m"], &["n"]);
    let builder = builder.weights("t", &[2], &[1.0, 1e-9]).node("lower", "Mul", &["n", "t"], &["o"]);
    let error = refused(&builder.node("over", "Reciprocal", &["o"], &["y"]).output("y")).to_string();
    assert!(error.contains("`over` (Reciprocal)") && error.contains("denominator"), "{error}");
}

#[test]
fn a_steep_slope_does_not_multiply_the_rounding_of_what_is_positive() {
    for slope in [4e3, -4e3] {
        let builder =
            Builder::new().input("x", &[1, 32]).weights("c", &[], &[3.0]).node("raise", "Add", &["x", "c"], &["r"]);
        let leaky = builder.node_with("leaky", "LeakyRelu", &["r"], &["y"], vec![float("alpha", slope)]);
        agrees(&format!("{slope}"), &leaky.output("y"), 1.0);
        let builder = Builder::new().input("x", &[1, 32]);
        let leaky = builder.node_with("leaky", "LeakyRelu", &["x"], &["y"], vec![float("alpha", slope)]);
        agrees(&format!("{slope} both signs"), &leaky.output("y"), 1.0);
    }
}

fn normalised(builder: Builder, from: &str, epsilon: f32, [scale, bias]: [f32; 2]) -> Builder {
    let builder = builder.weights("scale", &[8], &[scale; 8]).weights("bias", &[8], &[bias; 8]);
    let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
    builder.node_with("norm", "LayerNormalization", &[from, "scale", "bias"], &["z"], attributes).output("z")
}

/// No row has the variance for which small epsilons would keep room, and large ones are the variance of all rows.
#[test]
fn normalisation_with_an_epsilon_far_from_the_variance() {
    for (epsilon, reach) in [(0.0, 1.0), (1e-30, 1.0), (1e-5, 1e6), (1.0, 1e-3), (1e6, 1.0)] {
        let builder = Builder::new().input("x", &[16, 8]);
        agrees(&format!("{epsilon} {reach}"), &normalised(builder, "x", epsilon, [1e3, 0.0]), reach);
    }
}

#[test]
fn normalisation_of_rows_that_never_vary() {
    for (value, epsilon, scale) in [(0.0, 1.0, 1.0), (0.5, 1e-5, 1e-22), (1.0, 0.5, 1e20)] {
        let found = reals(&normalised(constant(value), "y", epsilon, [scale, -0.003_030_388_3]), 1.0);
        assert!(found.iter().all(|bias| (bias / -0.003_030_388_3 - 1.0).abs() < 1e-3), "{value}: {found:?}");
    }
}

/// Files of half precision clip at the ends of what it can hold, however small the values are.
#[test]
fn limits_far_from_all_values_take_no_bits() {
    let clipped = |reach: f32| {
        let builder = Builder::new().input("x", &[4, 8]).weights("w", &[8, 8], &ramp(64));
        let builder =
            builder.weights("bias", &[8], &ramp(8)).weights("low", &[], &[-reach]).weights("high", &[], &[reach]);
        let builder = builder
            .node("product", "MatMul", &["x", "w"], &["m"])
            .node("add", "Add", &["m", "bias"], &["p"])
            .node("clip", "Clip", &["p", "low", "high"], &["c"]);
        builder.node("square", "Mul", &["c", "c"], &["y"]).output("y")
    };
    for reach in [2.0, 300.0, 65_504.0, 3e9, 1e11] {
        agrees(&format!("{reach}"), &clipped(reach), 1.0);
    }
    let error = refused(&clipped(1e30)).to_string();
    assert!(error.contains("`clip` (Clip)") && error.contains("closer together"), "{error}");
}
