//! Takes the last boundary of a run, as a worker takes its input.

use std::sync::Arc;

use shardproof_common::receipt::Receipt;
use shardproof_proto::convert;
use shardproof_proto::transport::activations;
use shardproof_proto::v1::activations_server::Activations;
use shardproof_proto::v1::{Activation, Delivered};
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;

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
        let coordinator = &self.coordinator;
        let prepared = coordinator.serving()?;
        let deadline = coordinator.settings.run_deadline;
        let late = |_| Status::deadline_exceeded("the answer did not come within the run's deadline");
        let header = activations::receive_header(&mut stream, prepared.answer_bytes());
        let header = tokio::time::timeout(deadline, header).await.map_err(late)??;
        if convert::digest("plan", &header.plan)? != prepared.plan || header.boundary as usize != prepared.shards.len()
        {
            return Err(Status::failed_precondition("the coordinator takes the last boundary of its own plan only"));
        }
        let run = convert::run_id(&header.run)?;
        let receipt: Receipt = convert::unpack("receipt", &header.receipt)?;
        let answer = convert::digest("digest", &header.digest)?;
        if !coordinator.check_answerer(&prepared, run, &receipt, answer).await? {
            return Ok(Response::new(Delivered {}));
        }
        let mut stream = activations::while_it_flows(stream, coordinator.settings.hop_deadline);
        let encoding = activations::receive_encoding(&mut stream, &header);
        let encoding = tokio::time::timeout(deadline, encoding).await.map_err(late)??;
        coordinator.take_answer(run, encoding, receipt).await?;
        Ok(Response::new(Delivered {}))
    }
}
