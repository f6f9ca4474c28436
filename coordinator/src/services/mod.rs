//! The coordinator's gRPC services.

mod admin;
mod answers;
mod client;
mod control;

use std::sync::Arc;
use std::time::Duration;

use shardproof_common::process;
use shardproof_proto::transport::artifacts::ArtifactService;
use shardproof_proto::transport::metrics::serve as serve_metrics;
use shardproof_proto::transport::traffic::Traffic;
use shardproof_proto::transport::{self, Gate, ListenArgs};
use shardproof_proto::v1::activations_server::ActivationsServer;
use shardproof_proto::v1::admin_server::AdminServer;
use shardproof_proto::v1::artifacts_server::ArtifactsServer;
use shardproof_proto::v1::control_server::ControlServer;
use shardproof_proto::v1::runs_server::RunsServer;
use tokio::net::TcpListener;

use crate::{Coordinator, SILENCE, Stage, metrics};

/// How often what is over is let go.
const TIDY: Duration = Duration::from_secs(1);

/// Serves until the coordinator is told to stop, then waits a while for what is under way to come to rest.
pub(crate) async fn serve(
    coordinator: Arc<Coordinator>,
    listener: TcpListener,
    listen: &ListenArgs,
    gate: Gate,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<RunsServer<client::ClientService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(shardproof_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (local, uploads) = (coordinator.artifacts.local().clone(), coordinator.uploads.clone());
    let artifacts = ArtifactService::new(local, coordinator.settings.max_tensor_bytes, uploads)
        .backed_by(Arc::new(coordinator.artifacts.clone()));
    let largest = listen.message_bytes();
    let router = transport::server(gate, listen.max_streams)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(ArtifactsServer::new(artifacts).max_decoding_message_size(largest))
        .add_service(
            ControlServer::new(control::ControlService::new(coordinator.clone()))
                .max_decoding_message_size(control::MAX_MESSAGE_BYTES),
        )
        .add_service(
            ActivationsServer::new(answers::AnswerService::new(coordinator.clone())).max_decoding_message_size(largest),
        )
        .add_service(
            RunsServer::new(client::ClientService::new(coordinator.clone())).max_decoding_message_size(largest),
        )
        .add_service(
            AdminServer::new(admin::AdminService::new(coordinator.clone())).max_decoding_message_size(largest),
        );

    let reporter = tokio::spawn(report_health(coordinator.clone(), health));
    let watchdog = tokio::spawn(tidy(coordinator.clone()));
    tokio::spawn(hang_up(coordinator.clone()));
    tokio::spawn(coordinator.clone().drain());
    let traffic = Traffic::default();
    if let Some(address) = listen.metrics {
        serve_metrics(address, "coordinator", env!("CARGO_PKG_VERSION"))?;
        metrics::describe();
        tokio::spawn(metrics::sample(coordinator.clone(), traffic.clone()));
    }
    let connections = listen.listening(listener, traffic.clone()).connections(&coordinator.transport)?;
    let stop = coordinator.shutdown.clone();
    let until_at_rest = async {
        router.serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await?;
        coordinator.tasks.close();
        coordinator.tasks.wait().await;
        anyhow::Ok(())
    };
    let at_rest = process::until_farewell(&coordinator.shutdown, until_at_rest).await;
    traffic.log();
    reporter.abort();
    watchdog.abort();
    at_rest.unwrap_or_else(|| {
        // Uploads under way are cut off with their connections.
        if let Err(error) = coordinator.artifacts.local().clear_temporaries() {
            tracing::warn!(%error, "cannot remove uploads that are given up");
        }
        Ok(())
    })
}

/// Lets the workers go once the coordinator is told to stop.
async fn hang_up(coordinator: Arc<Coordinator>) {
    coordinator.shutdown.cancelled().await;
    coordinator.cluster.hang_up();
}

/// Serving once setup is done, until the coordinator is told to stop.
async fn report_health(coordinator: Arc<Coordinator>, health: tonic_health::server::HealthReporter) {
    let mut stage = coordinator.stage.subscribe();
    loop {
        if matches!(*stage.borrow_and_update(), Stage::Serving(_)) {
            health.set_serving::<RunsServer<client::ClientService>>().await;
        }
        tokio::select! {
            changed = stage.changed() => if changed.is_err() { return },
            () = coordinator.stopping.cancelled() => {
                health.set_not_serving::<RunsServer<client::ClientService>>().await;
                return;
            }
        }
    }
}

/// Closes silent workers' sessions, lets finished runs leave memory, and saves what could not be saved.
async fn tidy(coordinator: Arc<Coordinator>) {
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        ticks.tick().await;
        coordinator.cluster.close_silent(SILENCE);
        coordinator.runs.sweep().await;
        coordinator.workers.save_unsaved().await;
        coordinator.runs.look_for_database().await;
    }
}
