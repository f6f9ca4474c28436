use shardproof_common::ids::Role;
use shardproof_common::receipt::Identity;

use super::*;
use crate::testing::{Bench, Messages};

/// A first and a last worker, and a spare for the last.
struct Scene {
    bench: Bench,
    workers: [Identity; 3],
    _messages: [Messages; 3],
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new(2, &["--backend", "float"]).await;
        let workers = [Identity::generate(), Identity::generate(), Identity::generate()];
        let (_, first) = bench.join_ready(Role::First, 0, &workers[0]);
        let (_, last) = bench.join_ready(Role::Last, 1, &workers[1]);
        let (_, spare) = bench.join(Role::Last, &workers[2]);
        Self { bench, workers, _messages: [first, last, spare] }
    }

    /// A run that has the first so many receipts.
    async fn run(&self, receipts: u32) -> RunId {
        let run = self.bench.run(1, |_| ()).await;
        let change = |record: &mut RunRecord| {
            record.send_to(&[self.workers[0].public(), self.workers[1].public()]);
            for shard in 0..receipts {
                let receipt = self.bench.receipt(&self.workers[shard as usize], run, shard, 1, 1);
                record.shards[shard as usize].receipt = Some(receipt);
            }
        };
        self.bench.runs.change(run, change).await.unwrap();
        run
    }

    /// Lets more runs be late than a worker may miss.
    async fn let_runs_be_late(&self) {
        for _ in 0..10 {
            let run = self.run(1).await;
            self.bench.fail_late(run).await;
            assert_eq!(self.bench.record(run).await.state, RunState::Failed);
        }
    }
}

#[tokio::test]
async fn a_worker_that_lets_every_run_hang_hands_its_shard_to_a_spare() {
    let scene = Scene::new().await;
    scene.let_runs_be_late().await;
    assert_eq!(scene.bench.holder(1), Some(scene.workers[2].public()));
    assert_eq!(scene.bench.holder(0), Some(scene.workers[0].public()), "it has no spare");
}

#[tokio::test]
async fn a_worker_whose_runs_wait_for_others_ahead_misses_none() {
    let scene = Scene::new().await;
    scene.run(2).await;
    scene.let_runs_be_late().await;
    assert!(scene.workers.iter().all(|worker| scene.bench.is_blameless(worker)));
}

#[tokio::test]
async fn a_run_that_the_first_worker_does_not_take_is_late() {
    let bench = Bench::new(1, &["--backend", "float", "--run-deadline", "1"]).await;
    // Connections to it are taken by the system, and read by nobody.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (session, _messages) = bench.join_at(address, Role::Solo, &Identity::generate());
    bench.cluster.ready(session, ShardIndex(0));
    let run = bench.submit(bench.stored(0, 1).await.digest, None).await.unwrap().id;
    let mut watch = bench.runs.watch(run).await.unwrap().unwrap();
    let ended = watch.wait_for(|record| record.state != RunState::Running).await.unwrap().clone();
    assert_eq!(ended.reason, "no answer within 1 s: shard 0 has not been heard of");
}
