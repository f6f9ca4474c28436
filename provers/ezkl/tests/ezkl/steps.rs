//! The workflow one step at a time, and the `ezkl` program in place of the wheel.

use std::fs;
use std::path::{Path, PathBuf};

use shardproof_common::backend::{BackendError, Limits};
use shardproof_common::plan::{BoundaryMode, CalibrationTarget, EzklOptions};
use shardproof_ezkl::steps::{CircuitOptions, Steps};
use shardproof_ezkl::{EzklConfig, Installation, RunnerKind, Settings};

use crate::support::{ChainPlan, config, executable, hashed, model, options, verify_with, with_job};

/// Takes `last` from its ONNX file to a verified proof, every step from file to file.
#[test]
fn one_shard_step_by_step() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let steps = Steps::new(config());
    let circuit = CircuitOptions {
        input: BoundaryMode::Hashed,
        output: BoundaryMode::Public,
        options: EzklOptions { target: CalibrationTarget::Accuracy, ..options() },
    };
    let (onnx, settings, compiled, srs) = (model("last"), path("settings.json"), path("circuit"), path("srs"));
    let (vk, pk, witness, proof) = (path("vk"), path("pk"), path("witness.json"), path("proof.json"));
    let (data, wild) = (path("data.json"), path("wild.json"));
    fs::write(&data, r#"{"input_data": [[0.5, -1.0, 2.0]]}"#).unwrap();
    fs::write(&wild, r#"{"input_data": [[0.5, -1000.0, 2.0]]}"#).unwrap();

    with_job(directory.path(), Limits::default(), |job| {
        steps.settings(&onnx, &circuit, &settings, job).unwrap();
        let fidelity = steps.calibrate(&onnx, &data, &circuit, &settings, job).unwrap().expect("a report");
        assert!(fidelity.max_abs_error < 0.02, "{fidelity:?}");
        steps.compile(&onnx, &settings, &compiled, job).unwrap();
        let logrows = steps.srs(&settings, &srs, job).unwrap();
        let run_args = Settings::parse(&fs::read_to_string(&settings).unwrap()).unwrap().run_args;
        assert_eq!((run_args.logrows, run_args.input_scale), (logrows, 7));
        steps.setup(&compiled, &srs, &vk, &pk, job).unwrap();
        let summary = steps.witness(&data, &compiled, &witness, None, job).unwrap();
        assert_eq!((summary.min_lookup_input, summary.max_lookup_input), (-128, 256));
        steps.mock(&witness, &compiled, job).unwrap();
        steps.prove(&witness, &compiled, &pk, &srs, &proof, job).unwrap();
        assert!(steps.verify(&proof, &settings, &vk, &srs, job).unwrap());

        let mut changed: serde_json::Value = serde_json::from_str(&fs::read_to_string(&proof).unwrap()).unwrap();
        let byte = changed["proof"][900].as_u64().unwrap();
        changed["proof"][900] = (byte ^ 1).into();
        fs::write(&proof, changed.to_string()).unwrap();
        assert!(!steps.verify(&proof, &settings, &vk, &srs, job).unwrap());

        let summary = steps.witness(&wild, &compiled, &witness, None, job).unwrap();
        assert_eq!(summary.min_lookup_input, -128_000);
        let error = steps.mock(&path("nothing"), &compiled, job).unwrap_err();
        assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    });
}

/// The stand-in for the `ezkl` program, which says that it is of `version`.
fn program(directory: &Path, version: Option<&str>) -> PathBuf {
    let installed = config();
    let site = with_job(directory, Limits::default(), |job| Installation::new(&installed).ensure(job)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ezkl_program.py");
    let version = version.map_or(String::new(), |version| format!("export EZKL_VERSION={version}\n"));
    let site = format!("export EZKL_SITE='{}'\n", site.display());
    executable(directory, "ezkl", &format!("{site}{version}exec python3 '{}' \"$@\"", script.display()))
}

#[test]
fn the_program_does_what_the_wheel_does() {
    let directory = tempfile::tempdir().unwrap();
    let with_program = EzklConfig { runner: RunnerKind::Program(program(directory.path(), None)), ..config() };
    let plan = ChainPlan { config: with_program.clone(), length: 2, ..ChainPlan::new(BoundaryMode::Hashed) };
    let chain = plan.run();
    assert_eq!(chain[0].statement.output, chain[1].statement.input);
    for (link, by_wheel) in chain.iter().zip(hashed()) {
        assert_eq!(link.keys(), by_wheel.keys());
        verify_with(with_program.clone(), &link.request()).unwrap();
        let mut request = link.request();
        request.verifying_key = &hashed()[2].verifying_key;
        assert!(verify_with(with_program.clone(), &request).unwrap_err().to_string().contains("does not verify"));
    }
    assert!(Installation::new(&with_program).status().usable);
}

#[test]
fn a_program_of_another_version_or_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |program: PathBuf| {
        let config = EzklConfig { runner: RunnerKind::Program(program), ..config() };
        let steps = Steps::new(config);
        let nowhere = directory.path().join("nowhere");
        let mock = with_job(directory.path(), Limits::default(), |job| steps.mock(&nowhere, &nowhere, job));
        match mock.unwrap_err() {
            BackendError::Missing(reason) => reason,
            other => panic!("another error: {other}"),
        }
    };
    let other = refused(program(directory.path(), Some("22.0.0")));
    assert!(other.contains("expected ezkl 23.0.5, but") && other.contains("says `ezkl 22.0.0`"), "{other}");
    let nothing = refused(directory.path().join("no-such-program"));
    assert!(nothing.contains("no-such-program"), "{nothing}");
}
