//! Takes the last boundary of a run, as a worker takes its input.

use std::sync::Arc;

use shardproof_proto::convert;
use shardproof_proto::transport::activations;
use shardproof_proto::v1::activations_server::Activations;
use shardproof_proto::v1::{Activation, Delivered};
use tonic::{Request, Response, Status, Streaming};

use crate::{Coordinator, MAX_TENSOR_BYTES};

/// The end of the pipeline.
pub(crate) struct AnswerService {
    coordinator: Arc<Coordinator>,
}

impl AnswerService {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }
}

#[tonic::async_trait]
impl Activations for AnswerService {
    async fn deliver(&self, request: Request<Streaming<Activation>>) -> Result<Response<Delivered>, Status> {
        let mut stream = request.into_inner();
        let header = activations::receive_header(&mut stream, MAX_TENSOR_BYTES).await?;
        let prepared = self.coordinator.serving()?;
        if convert::digest("plan", &header.plan)? != prepared.plan || header.boundary as usize != prepared.shards.len() {
            return Err(Status::failed_precondition("the coordinator takes the last boundary of its own plan only"));
        }
        let run = convert::run_id(&header.run)?;
        let encoding = activations::receive_encoding(&mut stream, &header).await?;
        let receipt: shardproof_common::receipt::Receipt = convert::unpack("receipt", &header.receipt)?;
        let last = shardproof_common::ids::ShardIndex(header.boundary - 1);
        shardproof_common::chain::check_receipt(&receipt, &prepared.card, run, last)
            .map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        self.coordinator.take_answer(run, encoding, receipt).await?;
        Ok(Response::new(Delivered {}))
    }
}
