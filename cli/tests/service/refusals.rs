//! What bad input gets: a clear error that names what and where.

use shardproof_common::tensor::FloatTensor;
use tonic::Code;

use crate::cluster::{Service, fails, port, samples};

#[tokio::test]
async fn inputs_that_do_not_fit_are_refused_by_name() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let (input, _) = samples("mlp").remove(0);
    let mut wrong_shape = input.clone();
    wrong_shape[0].shape = vec![1, 25];
    let mut not_finite = input.clone();
    not_finite[0].values[7] = f32::NAN;
    let cases: [(&[FloatTensor], &str); 4] = [
        (&wrong_shape, "input `input`: expected shape [1, 1, 5, 5], found [1, 25]"),
        (&not_finite, "element 7 is NaN"),
        (&[], "expected 1 tensors, found 0"),
        (&[input[0].clone(), input[0].clone()], "expected 1 tensors, found 2"),
    ];
    for (tensors, expected) in cases {
        let refused = service.submit(tensors).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
}

#[tokio::test]
async fn a_run_without_workers_names_the_vacant_shards() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 4, &["--backend", "float"]);
    service.until("first and last are ready", |status| status.shards.iter().filter(|s| s.ready).count() == 2).await;
    let refused = service.submit(&samples("mlp")[0].0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("no worker is ready for shard 1, 2"), "{}", refused.message());
}

#[tokio::test]
async fn roles_that_make_no_sense_end_the_worker() {
    let service = Service::start("mlp", &[], 4, &["--backend", "float"]);
    service.until("serving", |status| status.stage == "serving").await;
    let data = service.directory.path().join("solo").display().to_string();
    let port = port(&service.coordinator.address);
    let (code, errors) = fails(&["worker", "127.0.0.1", "0", "127.0.0.1", port, "SOLO", "--data-dir", &data]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("role SOLO makes no sense with 4 shards: use FIRST, MIDDLE or LAST"), "{errors}");
}

#[tokio::test]
async fn keys_that_are_not_admitted_end_the_worker() {
    let directory = tempfile::tempdir().unwrap();
    let admitted = directory.path().join("admitted");
    std::fs::write(&admitted, "# nobody yet\n").unwrap();
    let admit = admitted.display().to_string();
    let service = Service::start("mlp", &[], 1, &["--backend", "float", "--admit", &admit]);
    let data = directory.path().join("worker").display().to_string();
    let (code, errors) = fails(&[
        "worker",
        "127.0.0.1",
        "0",
        "127.0.0.1",
        port(&service.coordinator.address),
        "SOLO",
        "--data-dir",
        &data,
    ]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("is not admitted"), "{errors}");
}

#[test]
fn coordinators_that_cannot_start_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port().to_string();
    let not_onnx = directory.path().join("not.onnx");
    std::fs::write(&not_onnx, b"\xff\xff this is no model").unwrap();
    let not_onnx = not_onnx.display().to_string();
    let data = directory.path().join("data").display().to_string();
    let cases = [
        (["0", "13", "mlp"], "12"),
        (["0", "0", "mlp"], "shard"),
        (["0", "4", "no-such-model"], "no-such-model"),
        (["0", "1", not_onnx.as_str()], "not.onnx"),
        ([taken_port.as_str(), "4", "mlp"], "cannot listen"),
    ];
    for ([port, shards, model], expected) in cases {
        let (code, errors) =
            fails(&["coordinator", "127.0.0.1", port, shards, model, "--data-dir", &data, "--backend", "float"]);
        assert_eq!(code, Some(1), "{shards} {model}: {errors}");
        assert!(errors.contains(expected), "{shards} {model}: {errors}");
    }
    let (code, errors) = fails(&["coordinator", "127.0.0.1", "0", "1", "mlp", "--backend", "float"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("--data-dir"), "{errors}");
    let (code, _) = fails(&["worker", "127.0.0.1", "0", "127.0.0.1", "1", "BOSS"]);
    assert_eq!(code, Some(2));
}

#[test]
fn two_processes_never_share_a_data_directory() {
    let service = Service::start("mlp", &[], 1, &["--backend", "float"]);
    let data = service.directory.path().join("coordinator").display().to_string();
    let (code, errors) =
        fails(&["coordinator", "127.0.0.1", "0", "1", "mlp", "--data-dir", &data, "--backend", "float"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("in use by another process"), "{errors}");
}

#[tokio::test]
async fn a_worker_waits_for_its_coordinator_and_says_so() {
    let mut service = Service::start("mlp", &[], 1, &["--backend", "float"]);
    service.coordinator.kill();
    service.add_worker("SOLO", &[]);
    service.workers[0].until_logged("waiting for the coordinator");
    service.restart_coordinator();
    service.ready().await;
    // Nobody else can have served from its directory.
    assert!(!service.coordinator.logged().contains("standing by"), "{}", service.coordinator.logged());
}
