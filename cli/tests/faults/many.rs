//! A thousand runs at once.

use shardproof_proto::v1::{GetRequest, RunState};

use crate::cluster::{Program, Service, answer, assert_close, assert_state, samples};
use crate::support::{ends_clean, holding, peak_rss};

const RUNS: usize = 1000;
/// Most that a program may grow by while all of them are under way, bytes. Measured: 15 MB for the coordinator, 3 MB for a
/// worker.
const MOST_GROWTH: u64 = 32 << 20;

#[tokio::test]
async fn a_thousand_runs_in_flight_are_all_answered_in_bounded_memory() {
    let mut service = Service::start("mlp", &["FIRST", "MIDDLE", "MIDDLE"], 4, &["--backend", "float"]);
    // The second run to reach it takes its only place and holds: all the others wait behind it.
    service.add_worker("LAST", &["--hold-at", "before-receipt:2", "--queue", "1"]);
    service.ready().await;
    let samples = samples("mlp");
    assert_close(&answer(&service.infer(&samples[0].0).await), &samples[0].1, 1e-5);
    let idle: Vec<u64> = programs(&service).map(peak_rss).collect();

    let mut runs = Vec::with_capacity(RUNS);
    for index in 0..RUNS {
        runs.push(service.submit(&samples[index % samples.len()].0).await.unwrap());
    }
    holding(&service.workers[3], "before-receipt").await;
    for run in &runs {
        let now = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
        assert_state(&now, RunState::Running);
    }
    service.workers[3].signal("USR1");
    for (index, run) in runs.iter().enumerate() {
        let ended = service.settled(run).await;
        assert_state(&ended, RunState::Answered);
        assert_close(&answer(&ended), &samples[index % samples.len()].1, 1e-5);
    }
    for (program, idle) in programs(&service).zip(idle) {
        let grown = peak_rss(program).saturating_sub(idle);
        eprintln!("{}: {} kB idle, {} kB more with {RUNS} runs", program.log.display(), idle >> 10, grown >> 10);
        assert!(grown < MOST_GROWTH, "{} grew by {grown} bytes", program.log.display());
    }
    ends_clean(service).await;
}

/// The coordinator and its workers.
fn programs(service: &Service) -> impl Iterator<Item = &Program> {
    std::iter::once(&service.coordinator).chain(&service.workers)
}
