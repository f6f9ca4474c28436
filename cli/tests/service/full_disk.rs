//! Disks that take nothing more: an error that says so, and neither a loss nor half a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use shardproof_proto::v1::{GetRequest, RunState, StatusResponse};

use crate::cluster::{Program, Service, answer, assert_close, assert_state, on_full_disk, samples, strings};

/// What systems say of a file that may not grow.
const TOO_LARGE: &str = "File too large";

/// Files below `directory` that have anything in them.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let each = entries.flat_map(|entry| {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => files(&entry.path()),
            metadata if metadata.len() > 0 => vec![entry.path()],
            _ => Vec::new(),
        }
    });
    each.collect()
}

/// Runs a command whose files cannot grow beyond `blocks`, which has to exit with 1, and returns what it says.
fn fails(blocks: u32, args: &[String]) -> String {
    let output = on_full_disk(blocks, args).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?} said: {said}");
    said
}

#[tokio::test]
async fn programs_that_cannot_keep_their_state_end_and_start_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let arguments = |program: &[&str], name: &str| {
        let data = path(name).display().to_string();
        strings(&[program, &["--data-dir", &data]].concat())
    };
    let coordinator = arguments(&["coordinator", "127.0.0.1", "0", "1", "mlp", "--backend", "float"], "c");
    let said = fails(0, &coordinator);
    assert!(said.contains("state.sqlite"), "{said}");
    let worker = arguments(&["worker", "127.0.0.1", "0", "127.0.0.1", "1", "SOLO"], "w");
    let said = fails(0, &worker);
    assert!(said.contains("worker.key") && said.contains(TOO_LARGE), "{said}");
    assert_eq!(files(directory.path()), Vec::<PathBuf>::new());

    // Nothing half-written is in the way of a later start, whose identity is whole.
    let _coordinator = Program::start(directory.path(), "coordinator", &coordinator);
    let _worker = Program::start(directory.path(), "worker", &worker);
    for key in ["c/owner.key", "w/worker.key"] {
        assert_eq!(std::fs::read_to_string(path(key)).unwrap().trim().len(), 64);
    }
}

#[tokio::test]
async fn a_setup_that_fills_the_disk_ends_and_is_made_up_for() {
    // Runs of the service keep their state in files that are smaller than the model's 2.2 MB.
    let blocks = 2_000;
    let mut service = Service::start("mlp2", &[], 1, &["--backend", "float"]);
    let data = service.directory.path().join("coordinator");
    service.coordinator.kill();
    std::fs::remove_dir_all(&data).unwrap();
    let said = fails(blocks, service.coordinator_arguments());
    assert!(
        said.contains("error: setting up shard 0: ") && said.contains("shard.onnx") && said.contains(TOO_LARGE),
        "{said}"
    );
    assert_eq!(files(&data.join("setup")), Vec::<PathBuf>::new());
    assert_eq!(files(&data.join("artifacts")), Vec::<PathBuf>::new());

    service.restart_coordinator();
    service.add_worker("SOLO", &[]);
    service.ready().await;
    let (input, expected) = &samples("mlp2")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[tokio::test]
async fn keys_that_fill_the_disk_are_made_again() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "ezkl"]);
    service.ready().await;
    let data = service.directory.path().join("coordinator");
    service.coordinator.kill();
    std::fs::remove_dir_all(&data).unwrap();
    // The proving key has 17 MB.
    let said = fails(2_000, service.coordinator_arguments());
    assert!(said.contains("error: setting up shard 0: ezkl failed at keys: ") && said.contains(TOO_LARGE), "{said}");
    assert_eq!(files(&data.join("setup")), Vec::<PathBuf>::new());
    assert_eq!(files(&data.join("artifacts")), Vec::<PathBuf>::new());
    service.restart_coordinator();
    service.until("the keys are made", |status| status.shards[0].setup_us > 0).await;
}

#[tokio::test]
async fn a_run_that_cannot_be_spooled_fails_and_earlier_ones_stay() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let before = service.infer(input).await;
    service.workers[0].terminate();
    service.until("the shard is vacant", |status| !status.shards[0].ready).await;
    let spool = service.worker_data(0).join("spool");
    let spooled = files(&spool);
    assert!(!spooled.is_empty());

    service.restart_worker_on_full_disk(0);
    service.ready().await;
    let failed = service.infer(input).await;
    assert_state(&failed, RunState::Failed);
    assert!(failed.reason.contains(TOO_LARGE), "{}", failed.reason);
    assert_eq!(files(&spool), spooled);
    // It goes on serving: the next run may find room.
    assert!(service.status().await.shards[0].ready);
    assert_eq!(service.workers[0].terminate().code(), Some(0));

    service.restart_worker(0, &[]);
    service.ready().await;
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_eq!(answer(&kept), answer(&before));
}

#[tokio::test]
async fn a_worker_without_room_for_its_shard_makes_way_for_a_spare() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    service.workers[0].terminate();
    std::fs::remove_dir_all(service.worker_data(0).join("artifacts")).unwrap();
    service.restart_worker_on_full_disk(0);
    let told = |status: &StatusResponse| status.workers.iter().any(|worker| worker.trouble.contains(TOO_LARGE));
    service.until("the worker says what is in the way", told).await;
    let failing = service.status().await.workers[0].key.clone();
    service.add_worker("SOLO", &[]);
    service.ready().await;
    assert_ne!(service.status().await.shards[0].worker, failing);
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[tokio::test]
async fn a_worker_takes_its_shard_as_soon_as_it_can() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    service.workers[0].terminate();
    let kept = files(&service.worker_data(0).join("artifacts"));
    for path in &kept {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
    }
    service.restart_worker(0, &[]);
    let told = |status: &StatusResponse| status.workers.iter().any(|worker| !worker.trouble.is_empty());
    service.until("the worker says what is in the way", told).await;
    let status = ["status", "--coordinator", &service.coordinator.address];
    let said = Command::new(env!("CARGO_BIN_EXE_shardproof")).args(status).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("failing") && said.contains("cannot take its shard: "), "{said}");
    for path in &kept {
        std::fs::remove_dir_all(path).unwrap();
    }
    service.ready().await;
    assert_eq!(service.status().await.workers[0].trouble, "");
}

#[tokio::test]
async fn a_coordinator_that_cannot_write_ends_and_its_runs_stay() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let before = service.infer(&samples("mlp")[0].0).await;
    service.coordinator.kill();
    let said = fails(0, service.coordinator_arguments());
    assert!(said.contains("error: "), "{said}");
    service.restart_coordinator();
    service.ready().await;
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_state(&kept, RunState::Answered);
    assert_eq!(answer(&kept), answer(&before));
}

#[tokio::test]
async fn commands_keep_the_file_that_they_cannot_replace() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let directory = tempfile::tempdir().unwrap();
    let (card, shards) = (directory.path().join("card.json"), directory.path().join("shards"));
    let [card_name, shards_name] = [&card, &shards].map(|path| path.to_str().unwrap());
    let fetch = |out: &str| strings(&["card", "fetch", "--out", out, "--coordinator", &service.coordinator.address]);
    let plan = strings(&["plan", "mlp", "--shards", "2", "--write", shards_name]);
    std::fs::write(&card, "an earlier card").unwrap();
    std::fs::create_dir(&shards).unwrap();
    std::fs::write(shards.join("shard-0.onnx"), "an earlier shard").unwrap();
    for (args, name) in [(&fetch(card_name), "card.json"), (&plan, "shard-0.onnx")] {
        let said = fails(0, args);
        assert!(said.contains(name) && said.contains(TOO_LARGE), "{said}");
    }
    assert_eq!(files(directory.path()).len(), 2);
    assert_eq!(std::fs::read_to_string(&card).unwrap(), "an earlier card");
    assert_eq!(std::fs::read_to_string(shards.join("shard-0.onnx")).unwrap(), "an earlier shard");
    if cfg!(target_os = "linux") {
        let said = fails(u32::MAX, &fetch("/dev/full"));
        assert!(said.contains("/dev/full: cannot write the card: No space left on device"), "{said}");
    }
}

#[test]
fn a_demo_without_room_says_so_before_it_starts_anything() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let said =
        fails(0, &strings(&["demo", "mlp", "--shards", "2", "--backend", "float", "--out", out.to_str().unwrap()]));
    assert!(said.contains("model.onnx") && said.contains(TOO_LARGE), "{said}");
    assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
}
