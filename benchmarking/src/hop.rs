//! What it takes to pass a boundary from one worker to the next.
//!
//! A model of two operators is made whose inner boundary has exactly the asked size: `Relu` on `[1, m, 512, 512]` in the first
//! shard, `GlobalAveragePool` in the second. It has no weights and computes next to nothing, and it runs in float mode, so
//! nothing else of note happens while a boundary is on its way. The time is the sending worker's own: from handing the encoded
//! boundary to the transport to the receiver's acknowledgement, which comes when the boundary is received, checked against
//! digest, shape and plan, and written to the spool.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use prost::Message;
use serde::{Deserialize, Serialize};
use shardproof_common::tensor::FloatTensor;
use shardproof_proto::v1::Run;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use crate::client::Client;
use crate::error::BenchError;
use crate::processes::{Cluster, Programs, Service, WorkerOptions};
use crate::report::{profile, table};
use crate::stats::Summary;
use crate::tcp::Loopback;

/// What a median at 1 MiB should stay below, ms.
pub const TARGET_MS: f64 = 10.0;
const EDGE: u64 = 512;
const INNER_BOUNDARY: u64 = 1;
/// How long the last line of a log may take after the run has ended.
const LOG: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct HopOptions {
    /// MiB of floats in the boundary.
    pub mebibytes: u32,
    /// Runs that count.
    pub runs: usize,
    /// Runs before, which open connections and warm caches.
    pub warmup: usize,
}

/// What was measured; times in ms.
#[derive(Clone, Debug, Serialize)]
pub struct HopReport {
    benchmark: &'static str,
    profile: &'static str,
    /// Bytes of the encoded boundary.
    bytes: u64,
    /// From the sending worker's transport to the receiver's acknowledgement.
    pass_ms: Summary,
    /// The same bytes over plain TCP, with an acknowledgement of one byte.
    tcp_ms: Summary,
    /// Median over median.
    ratio: f64,
    /// From submitting a stored input to the answer, as the client sees it.
    run_ms: Summary,
    target_ms: Option<f64>,
    met: Option<bool>,
}

/// Measures.
///
/// # Errors
/// When the programs fail, a run does, or the log does not tell of every boundary.
pub async fn measure(options: HopOptions) -> Result<HopReport, BenchError> {
    let programs = Programs::find()?;
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let model = directory.path().join("hop.onnx");
    fs::write(&model, hop_model(options.mebibytes)).map_err(BenchError::io(model.display().to_string()))?;
    let model = model.display().to_string();
    let float = ["--backend", "float"];
    let mut cluster = Cluster::start(&programs, directory.path(), &model, 2, &float, WorkerOptions::default()).await?;
    let outcome = runs(&mut cluster, options).await;
    cluster.stop().await;
    outcome
}

async fn runs(cluster: &mut Cluster, options: HopOptions) -> Result<HopReport, BenchError> {
    let client = Client::connect(cluster).await?;
    client.wait_until_ready(cluster).await?;
    let input = input(options.mebibytes);
    let first = client.infer(&input).await?;
    let bytes = passed_on(&cluster.workers()[0], 1).await?[0].bytes;
    let mut loopback = Loopback::connect(bytes as usize).await?;

    let (mut run_times, mut tcp_times) = (Vec::new(), Vec::new());
    for _ in 1..options.warmup.max(1) + options.runs {
        let started = Instant::now();
        let run = client.infer(&input).await?;
        run_times.push(ms(started.elapsed()));
        expect_same_answer(&first, &run)?;
        tcp_times.push(ms(loopback.transfer().await?));
    }
    let passed = passed_on(&cluster.workers()[0], options.warmup.max(1) + options.runs).await?;
    let measured = |times: Vec<f64>| Summary::of(times.into_iter().rev().take(options.runs));
    let pass_ms = measured(passed.iter().map(|line| line.us as f64 / 1000.0).collect());
    let (Some(pass_ms), Some(tcp_ms), Some(run_ms)) = (pass_ms, measured(tcp_times), measured(run_times)) else {
        return Err(BenchError::Log { shard: 0, found: 0, expected: options.runs });
    };
    let target_ms = (options.mebibytes == 1).then_some(TARGET_MS);
    let met = target_ms.map(|target| pass_ms.median < target);
    let ratio = pass_ms.median / tcp_ms.median;
    Ok(HopReport { benchmark: "hop", profile: profile(), bytes, pass_ms, tcp_ms, ratio, run_ms, target_ms, met })
}

/// Equal inputs have equal answers; anything else means that what was timed was not what was meant.
fn expect_same_answer(first: &Run, run: &Run) -> Result<(), BenchError> {
    if first.answer == run.answer && !run.answer.is_empty() {
        return Ok(());
    }
    Err(BenchError::NotComparable {
        what: "the answer to the same input",
        service: format!("{} bytes at first", first.answer.len()),
        script: format!("{} bytes, or other ones, later", run.answer.len()),
    })
}

/// What a worker logs when a boundary has arrived at the next one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct PassedOn {
    boundary: u64,
    bytes: u64,
    us: u64,
}

#[derive(Deserialize)]
struct LogLine {
    fields: serde_json::Value,
}

/// The lines about the inner boundary; `expected` of them, for the last of which it waits.
async fn passed_on(worker: &Service, expected: usize) -> Result<Vec<PassedOn>, BenchError> {
    let started = Instant::now();
    loop {
        let lines = parse_log(&worker.log()?);
        if lines.len() == expected {
            return Ok(lines);
        }
        if started.elapsed() > LOG || lines.len() > expected {
            return Err(BenchError::Log { shard: 0, found: lines.len(), expected });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn parse_log(log: &str) -> Vec<PassedOn> {
    let line = |line: &str| {
        let fields = serde_json::from_str::<LogLine>(line).ok()?.fields;
        let is_it = fields.get("message").is_some_and(|message| message == "passed on");
        let passed = is_it.then(|| serde_json::from_value::<PassedOn>(fields).ok()).flatten()?;
        (passed.boundary == INNER_BOUNDARY).then_some(passed)
    };
    log.lines().filter_map(line).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Floats of `mebibytes` MiB, `[1, mebibytes, 512, 512]`, none of which `Relu` changes.
fn input(mebibytes: u32) -> Vec<FloatTensor> {
    let shape = vec![1, u64::from(mebibytes), EDGE, EDGE];
    let values = (0..u64::from(mebibytes) * EDGE * EDGE).map(|i| (i % 1021) as f32 / 1021.0).collect();
    vec![FloatTensor { shape, values }]
}

/// The model as the bytes of an ONNX file.
fn hop_model(mebibytes: u32) -> Vec<u8> {
    let node = |op_type: &str, input: &str, output: &str| NodeProto {
        name: op_type.to_lowercase(),
        op_type: op_type.to_owned(),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let channels = i64::from(mebibytes);
    let graph = GraphProto {
        name: "hop".to_owned(),
        node: vec![node("Relu", "input", "boundary"), node("GlobalAveragePool", "boundary", "output")],
        input: vec![float_value("input", &[1, channels, EDGE as i64, EDGE as i64])],
        output: vec![float_value("output", &[1, channels, 1, 1])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 13 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

fn float_value(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(dimension::Value::DimValue(size)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

impl fmt::Display for HopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |name: &str, times: &Summary| {
            let cells = [times.min, times.median, times.max].map(|ms| format!("{ms:.2} ms"));
            std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
        };
        let rows = [
            row("passed from worker to worker", &self.pass_ms),
            row("the same bytes over plain TCP", &self.tcp_ms),
            row("whole run, from submit to answer", &self.run_ms),
        ];
        writeln!(f, "boundary of {} bytes, {} runs, {} build\n", self.bytes, self.pass_ms.count, self.profile)?;
        writeln!(f, "{}", table(&["", "min", "median", "max"], &rows))?;
        writeln!(f, "{:.1} times plain TCP (medians)", self.ratio)?;
        if let (Some(target), Some(met)) = (self.target_ms, self.met) {
            writeln!(f, "target: median below {target} ms: {}", if met { "met" } else { "MISSED" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::plan::BackendOptions;
    use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};

    use super::*;

    #[test]
    fn the_boundary_has_the_size_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hop.onnx");
        for mebibytes in [1, 3] {
            fs::write(&path, hop_model(mebibytes)).unwrap();
            let source = ModelSource::resolve(path.to_str().unwrap()).unwrap();
            let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
            let split = model.split(&SplitRequest {
                shards: 2,
                strategy: Strategy::Balanced,
                backend: &|_| BackendOptions::Float,
                modes: BoundaryModes::default(),
            });
            let boundary = &split.unwrap().plan.boundaries[1];
            assert_eq!(boundary.tensors.len(), 1);
            let elements: u64 = boundary.tensors[0].shape.iter().product();
            assert_eq!(elements * 4, u64::from(mebibytes) << 20);
        }
    }

    #[test]
    fn only_lines_about_the_inner_boundary_count() {
        let log = concat!(
            r#"{"level":"INFO","fields":{"message":"passed on","run":"a","boundary":1,"bytes":7,"us":12}}"#,
            "\n",
            r#"{"level":"INFO","fields":{"message":"passed on","run":"a","boundary":2,"bytes":7,"us":12}}"#,
            "\n",
            r#"{"level":"INFO","fields":{"message":"ran shard","boundary":1,"bytes":7,"us":12}}"#,
            "\nnot json\n{\"level\":\"IN",
        );
        assert_eq!(parse_log(log), [PassedOn { boundary: 1, bytes: 7, us: 12 }]);
    }
}
