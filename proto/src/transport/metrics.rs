//! What a program counts and times about itself, for Prometheus to fetch.
//!
//! Served by a listener of its own: those who watch a service have no business with its calls, and no certificate for them. So it is
//! in the clear, and only where the program is told to.

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use thiserror::Error;

use super::traffic::Traffic;

/// How often what is not counted as it happens is looked at.
pub const SAMPLE: Duration = Duration::from_secs(5);
/// Upper ends of the buckets for times: twice as long each, from 1 ms to 4.7 h.
const BUCKETS: i32 = 25;

/// Serves the metrics of this process at `http://ADDRESS/metrics`, for as long as the runtime lives that this is called in.
///
/// # Errors
/// When it cannot listen there.
pub fn serve(address: SocketAddr, program: &'static str, version: &'static str) -> Result<(), MetricsError> {
    let seconds: Vec<f64> = (0..BUCKETS).map(|n| 0.001 * 2f64.powi(n)).collect();
    let install = || PrometheusBuilder::new().set_buckets(&seconds)?.with_http_listener(address).install();
    install().map_err(|source| MetricsError { address, source })?;
    if !address.ip().is_loopback() {
        tracing::warn!("whoever reaches {address} can read this program's metrics: counts and times, no data");
    }
    metrics::describe_gauge!("shardproof_info", "1, with the program and its version");
    metrics::gauge!("shardproof_info", "program" => program, "version" => version).set(1);
    metrics::describe_counter!("shardproof_received_bytes_total", "Payload of TCP that this server has received");
    metrics::describe_counter!("shardproof_sent_bytes_total", "Payload of TCP that this server has sent");
    Ok(())
}

/// Notes what a server's connections have carried so far.
pub fn note_traffic(traffic: &Traffic) {
    metrics::counter!("shardproof_received_bytes_total").absolute(traffic.received());
    metrics::counter!("shardproof_sent_bytes_total").absolute(traffic.sent());
}

/// Why metrics are not served.
#[derive(Debug, Error)]
#[error("--metrics {address}: {source}")]
pub struct MetricsError {
    address: SocketAddr,
    source: BuildError,
}
