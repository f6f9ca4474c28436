//! The workers' records and the owner's word on who may work.

use shardproof_common::tensor::FloatTensor;
use shardproof_proto::v1::admin_client::AdminClient;
use shardproof_proto::v1::{
    AdmitWorkerRequest, ListWorkersRequest, ListWorkersResponse, RevokeWorkerRequest, Run, RunState, WorkerRecord,
    WorkerStanding,
};
use tonic::Status;

use crate::cluster::{Service, assert_state, fails, json, port, strings};
use crate::proving::TINY;

fn input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

async fn list(service: &Service) -> ListWorkersResponse {
    AdminClient::new(service.channel()).list_workers(ListWorkersRequest {}).await.unwrap().into_inner()
}

/// The record of the worker that holds a shard.
async fn record_of(service: &Service, shard: usize) -> WorkerRecord {
    let key = service.status().await.shards[shard].worker.clone();
    let mut workers = list(service).await.workers.into_iter();
    workers.find(|worker| shardproof_proto::convert::public_key(&worker.key).unwrap().to_string() == key).unwrap()
}

async fn admit(service: &Service, record: &WorkerRecord, name: &str) -> Result<WorkerRecord, Status> {
    let request = AdmitWorkerRequest { key: record.key.clone(), name: name.to_owned() };
    Ok(AdminClient::new(service.channel()).admit_worker(request).await?.into_inner())
}

async fn revoke(service: &Service, record: &WorkerRecord) -> WorkerRecord {
    let request = RevokeWorkerRequest { key: record.key.clone() };
    AdminClient::new(service.channel()).revoke_worker(request).await.unwrap().into_inner()
}

/// Starts a worker with a key of its own that the coordinator refuses: what it says.
fn refused(service: &Service, name: &str, role: &str) -> String {
    let data = service.directory.path().join(name).display().to_string();
    let coordinator = port(&service.coordinator.address);
    let (code, errors) = fails(&["worker", "127.0.0.1", "0", "127.0.0.1", coordinator, role, "--data-dir", &data]);
    assert_eq!(code, Some(1), "{errors}");
    errors
}

async fn proven(service: &Service) -> Run {
    let run = service.infer(&input()).await;
    service.prove(&run, &[]).await.unwrap();
    service.settled(&run).await
}

#[tokio::test]
async fn records_count_what_proofs_came_to_and_outlive_the_coordinator() {
    let mut service = Service::start(TINY, &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    assert_state(&proven(&service).await, RunState::Verified);
    let run = service.infer(&input()).await;
    std::fs::remove_dir_all(service.worker_data(1).join("spool")).unwrap();
    service.prove(&run, &[1]).await.unwrap();
    assert_state(&service.settled(&run).await, RunState::Rejected);
    let counts = |record: WorkerRecord| (record.proved, record.failed, record.refused, record.convicted);
    // The run's end is seen before the record is.
    service.until("refusal is on record", |_| service.coordinator.logged().contains("event=Refused")).await;
    assert_eq!(counts(record_of(&service, 0).await), (1, 0, 0, 0));
    assert_eq!(counts(record_of(&service, 1).await), (1, 0, 1, 0));

    service.coordinator.kill();
    service.restart_coordinator();
    service.ready().await;
    assert_eq!(counts(record_of(&service, 0).await), (1, 0, 0, 0));
    let second = record_of(&service, 1).await;
    assert!(second.last_seen_unix_ms > 0 && second.connected.is_some());
    assert_eq!(counts(second), (1, 0, 1, 0));
}

#[tokio::test]
async fn a_proof_that_does_not_verify_is_a_failure_on_record_and_costs_the_shard() {
    let mut service = Service::start(TINY, &["FIRST", "LAST"], 2, &["--backend", "gkr"]);
    service.ready().await;
    let cheat = record_of(&service, 1).await;
    service.add_worker("LAST", &[]);
    service.until("the spare is there", |status| status.workers.len() == 3).await;
    let honest = service.infer(&input()).await;
    let mut other = input();
    other[0].values[0] = -0.5;
    let other = service.infer(&other).await;
    service.swap_spool(1, &other, &honest);
    service.prove(&honest, &[1]).await.unwrap();
    let run = service.settled(&honest).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!(run.blamed_shard, Some(1));
    service
        .until("the spare holds the shard", |status| {
            status.shards[1].ready && status.shards[1].worker != run.blamed_worker && status.workers.len() == 3
        })
        .await;
    let record = list(&service).await.workers.into_iter().find(|worker| worker.key == cheat.key).unwrap();
    assert_eq!((record.failed + record.refused, record.connected.unwrap().shard), (1, None), "a spare now");
    assert_state(&proven(&service).await, RunState::Verified);
}

#[tokio::test]
async fn the_first_admitted_key_closes_the_door_to_others() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float"]);
    service.ready().await;
    assert!(!list(&service).await.admission_required);
    for (shard, name) in [(0, "one"), (1, "two")] {
        let admitted = admit(&service, &record_of(&service, shard).await, name).await.unwrap();
        assert_eq!((admitted.standing(), admitted.name.as_str()), (WorkerStanding::Admitted, name));
    }
    assert!(list(&service).await.admission_required);
    let errors = refused(&service, "stranger", "FIRST");
    assert!(errors.contains("is not admitted") && errors.contains("shardproof workers admit"), "{errors}");
}

#[tokio::test]
async fn a_revoked_worker_is_out_at_once_and_a_spare_serves() {
    let mut service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float"]);
    service.ready().await;
    service.add_worker("FIRST", &[]);
    service.until("the spare is there", |status| status.workers.len() == 3).await;
    let first = record_of(&service, 0).await;
    assert_eq!(revoke(&service, &first).await.standing(), WorkerStanding::Revoked);
    service.until("the spare holds shard 0", |status| status.workers.len() == 2 && status.shards[0].ready).await;
    assert!(!service.workers[0].child.wait().unwrap().success(), "a worker that is refused ends");
    service.workers[0].until_logged("was revoked");
    assert!(refused(&service, "worker0", "FIRST").contains("was revoked"));
    assert_state(&service.infer(&crate::cluster::samples("mlp")[0].0).await, RunState::Answered);

    // Admitted again it may join again.
    admit(&service, &first, "").await.unwrap();
    service.restart_worker(0, &[]);
    service.until("it is back as a spare", |status| status.workers.len() == 3).await;
}

#[tokio::test]
async fn a_prover_that_is_revoked_rejects_the_run_that_it_owes() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--rejoin-grace", "600"]);
    service.add_worker("LAST", &["--prove-delay-ms", "600000"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[1]).await.unwrap();
    let last = record_of(&service, 1).await;
    revoke(&service, &last).await;
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!(run.blamed_shard, Some(1));
    assert!(run.reason.contains("may not return"), "{}", run.reason);
}

#[tokio::test]
async fn the_owners_commands_list_admit_and_revoke() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let key = service.status().await.shards[0].worker.clone();
    let address = service.coordinator.address.clone();
    let command = async |args: &[&str]| {
        let arguments = strings(&[args, &["--json", "--coordinator", &address]].concat());
        let (code, value) = tokio::task::spawn_blocking(move || json(&arguments)).await.unwrap();
        assert_eq!(code, Some(0), "{value}");
        value
    };
    let listed = command(&["workers"]).await;
    assert_eq!(listed["admission_required"], false);
    let worker = &listed["workers"][0];
    assert_eq!(
        (&worker["key"], &worker["state"], &worker["shard"]),
        (&key.as_str().into(), &"ready".into(), &0.into())
    );
    let address = service.coordinator.address.clone();
    let admit = async |key: &str| {
        let arguments = strings(&["workers", "admit", key, "--name", "lab", "--coordinator", &address]);
        let output = tokio::task::spawn_blocking(move || crate::cluster::command(&arguments).output().unwrap());
        let output = output.await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{key} admitted\n"));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(admit(&key).await, "from now on only admitted keys join\n");
    let stranger = "07".repeat(32);
    let said = admit(&stranger).await;
    assert!(said.contains(&stranger) && said.contains("seen so far") && !said.contains("from now on"), "{said}");
    let listed = command(&["workers", "list"]).await;
    assert_eq!((&listed["admission_required"], &listed["workers"][0]["name"]), (&true.into(), &"lab".into()));
    let revoked = command(&["workers", "revoke", &key]).await;
    assert_eq!((&revoked[0]["standing"], &revoked[0]["state"]), (&"revoked".into(), &"away".into()));
}
