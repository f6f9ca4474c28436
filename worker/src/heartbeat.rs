//! Tells the coordinator that this worker lives, from a thread with a runtime and a connection of its own.
//!
//! Proving takes every core for minutes; a heartbeat that shares its threads would come late and the worker be taken for dead
//! in the middle of a proof. The price is that a worker whose main runtime hangs still looks alive: run and proof deadlines
//! catch that.

use std::sync::Arc;
use std::time::Duration;

use shardproof_proto::transport::{Channel, Party, Transport};
use shardproof_proto::v1::HeartbeatRequest;
use shardproof_proto::v1::control_client::ControlClient;
use tokio::sync::{Notify, watch};

const INTERVAL: Duration = Duration::from_secs(2);

/// Starts the thread. `stale` is notified when the coordinator does not know the session.
pub(crate) fn start(
    transport: Transport,
    coordinator: &str,
    session: watch::Receiver<Option<u64>>,
    stale: Arc<Notify>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let coordinator = coordinator.to_owned();
    let beat_until_the_session_ends = move || {
        runtime.block_on(async move {
            match transport.lazy_channel(&coordinator, Party::Coordinator) {
                Ok(channel) => beat(channel, session, stale).await,
                Err(error) => tracing::error!(%error, "no heartbeats"),
            }
        });
    };
    std::thread::Builder::new().name("heartbeat".into()).spawn(beat_until_the_session_ends)?;
    Ok(())
}

/// Ends when the other end of `session` is dropped.
async fn beat(channel: Channel, mut session: watch::Receiver<Option<u64>>, stale: Arc<Notify>) {
    let mut client = ControlClient::new(channel);
    while let Ok(current) = session.wait_for(Option::is_some).await.map(|id| *id) {
        let Some(id) = current else { continue };
        match client.heartbeat(HeartbeatRequest { session: id }).await {
            Ok(answer) if answer.get_ref().known => {}
            Ok(_) => stale.notify_one(),
            Err(status) => tracing::debug!(reason = status.message(), "heartbeat not answered"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
