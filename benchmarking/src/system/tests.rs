use super::*;

fn configuration(shards: usize) -> Configuration {
    Configuration {
        model: "mlp".to_owned(),
        shards,
        backend: ProvenBy::Gkr,
        boundary: BoundaryMode::Committed,
        weights: WeightVisibility::Committed,
        target: CalibrationTarget::Resources,
    }
}

fn shard_pass(prove: f64) -> ShardPass {
    ShardPass { witness: 0.5, prove, verify: 0.25, witness_bytes: 10, proof_bytes: 100 }
}

fn pass(proofs: [f64; 2], wall: f64) -> Pass {
    let shards = proofs.map(shard_pass).to_vec();
    Pass { run: "run".to_owned(), answer: 0.125, wall, shards }
}

fn record(outcome: Outcome) -> Record {
    Record { configuration: configuration(2), conditions: Conditions { load: 0.0, ..Conditions::now() }, outcome }
}

fn verified() -> Record {
    let shard = ShardFigures { parameters: 5, setup: 2.0, proving_key: 7, verifying_key: 3, predicted: 11 };
    let process =
        |name: &str, peak_bytes| ProcessFigures { name: name.to_owned(), peak_bytes, received_bytes: 1, sent_bytes: 2 };
    record(Outcome::Verified(Box::new(Figures {
        parameters: 10,
        setup_wall: 4.5,
        load_wall: 0.5,
        shards: vec![shard.clone(), shard],
        apart: vec![pass([1.0, 2.0], 4.0), pass([2.0, 4.0], 7.0), pass([1.0, 3.0], 5.0)],
        together: vec![pass([2.0, 3.0], 3.5)],
        not_together: None,
        bundle_bytes: 1000,
        offline_verification: 0.75,
        processes: vec![process("coordinator", 50), process("worker-0", 20), process("worker-1", 30)],
    })))
}

fn options(directory: &Path) -> SystemOptions {
    SystemOptions {
        model: "mlp".to_owned(),
        shards: vec![2],
        backend: ProvenBy::Gkr,
        boundary: None,
        weights: WeightVisibility::Committed,
        target: CalibrationTarget::Resources,
        repeats: 3,
        apart_only: false,
        time_limit: Duration::from_secs(1),
        memory_limit: 1,
        directory: directory.to_owned(),
        again: false,
        coordinator_options: Vec::new(),
    }
}

#[test]
fn a_summary_has_medians_of_the_repetitions() {
    let row = verified().summary_row();
    assert_eq!(row.total_proof_generation_time, Some(4.0));
    assert_eq!(row.longest_proof_generation_time, Some(3.0));
    assert_eq!(row.chain_wall_time, Some(3.5));
    assert_eq!(row.total_setup_time, Some(4.0));
    assert_eq!((row.total_proof_size, row.total_pk_size, row.total_vk_size), (Some(200), Some(14), Some(6)));
    assert_eq!((row.coordinator_peak_bytes, row.largest_worker_peak_bytes), (Some(50), Some(30)));
    assert_eq!((row.wire_bytes, row.status.as_str(), row.reason.as_str()), (Some(9), "verified", ""));
}

#[test]
fn tables_have_the_prototypes_columns() {
    let directory = tempfile::tempdir().unwrap();
    write_tables(directory.path(), &[verified(), record(Outcome::Failed("killed".to_owned()))]).unwrap();
    let heading = |name: &str| {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        text.lines().next().unwrap().split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let shards = heading("shards.csv");
    for column in [
        "setup_id",
        "witness_id",
        "shard_id",
        "model_id",
        "setup_time",
        "vk_size",
        "pk_size",
        "witness_generation_time",
        "witness_size",
        "proof_generation_time",
        "proof_size",
        "verification_time",
    ] {
        assert!(shards.iter().any(|found| found == column), "{column}");
    }
    let summary = heading("summary.csv");
    for column in [
        "model_id",
        "num_shards",
        "total_proof_generation_time",
        "total_witness_generation_time",
        "total_proof_size",
        "total_witness_size",
        "total_vk_size",
        "total_pk_size",
    ] {
        assert!(summary.iter().any(|found| found == column), "{column}");
    }
    let rows: Vec<ShardRow> = csv::read(&directory.path().join("shards.csv")).unwrap();
    assert_eq!(rows.len(), 8, "two shards in three runs apart and one together");
    assert_eq!(rows[1].worker_peak_bytes, 30);
}

#[test]
fn what_failed_is_a_row_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let rows = write_tables(directory.path(), &[record(Outcome::Failed("killed".to_owned()))]).unwrap();
    assert_eq!((rows[0].status.as_str(), rows[0].reason.as_str()), ("failed", "killed"));
    assert_eq!(rows[0].total_proof_generation_time, None);
    let read: Vec<SummaryRow> = csv::read(&directory.path().join("summary.csv")).unwrap();
    assert_eq!(read, rows);
}

#[test]
fn only_what_is_done_and_the_same_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("kept");
    let wanted = options(directory.path());
    let found = |options: &SystemOptions, shards| kept(&folder, options, &configuration(shards)).is_some();
    assert!(!found(&wanted, 2), "nothing is there");
    keep(&folder, &verified()).unwrap();
    assert!(found(&wanted, 2));
    assert!(!found(&wanted, 3), "another configuration");
    assert!(!found(&SystemOptions { repeats: 4, ..wanted.clone() }, 2), "more repetitions");
    assert!(!found(&SystemOptions { again: true, ..wanted.clone() }, 2), "asked for again");
    keep(&folder, &record(Outcome::Failed("killed".to_owned()))).unwrap();
    assert!(!found(&wanted, 2), "a failure is tried again");
}

#[test]
fn what_does_not_fit_is_named() {
    assert_eq!(too_large(&[1 << 30, 2 << 30], 2 << 30), None);
    let reason = too_large(&[1 << 30, 3 << 30], 2 << 30).unwrap();
    assert_eq!(reason, "shard 1 is predicted to need 3.0 GiB, 2.0 GiB are allowed");
}

#[test]
fn plots_are_written_of_what_was_verified() {
    let directory = tempfile::tempdir().unwrap();
    plots::write(&[record(Outcome::Failed("killed".to_owned())).summary_row()], directory.path()).unwrap();
    assert!(!directory.path().join("proving-time.svg").exists());
    plots::write(&[verified().summary_row()], directory.path()).unwrap();
    for name in ["proving-time", "setup-time", "key-size", "proof-witness-size", "peak-memory"] {
        assert!(directory.path().join(format!("{name}.png")).is_file(), "{name}");
    }
}
