//! A long chain: every one of 24 shards on a worker of its own, every proof checked.

use shardproof_models::{ModelSource, OnnxModel, input};
use shardproof_proto::v1::RunState;

use crate::cluster::{Service, assert_state};
use crate::support::{ends_clean, proves};

const SHARDS: usize = 24;
/// A dense network with as many layers.
const MODEL: &str = "mlp:24,16";

#[tokio::test]
async fn twenty_four_shards_are_run_proven_and_linked() {
    let mut roles = vec!["MIDDLE"; SHARDS];
    (roles[0], roles[SHARDS - 1]) = ("FIRST", "LAST");
    let service = Service::start(MODEL, &roles, SHARDS, &[]);
    service.ready().await;
    let source = ModelSource::resolve(MODEL).unwrap();
    let model = OnnxModel::load(&source, &Default::default()).unwrap();
    let sample = input::samples(&source, &model, 1, 0).unwrap().inputs.remove(0);
    let run = service.infer(&sample).await;
    assert_state(&run, RunState::Answered);
    assert_eq!(run.shards.len(), SHARDS);
    proves(&service, &run, sample).await;
    ends_clean(service).await;
}
