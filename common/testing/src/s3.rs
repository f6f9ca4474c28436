//! A server that speaks the language of S3, in the process of the test, over a temporary directory.

use std::path::PathBuf;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What clients identify themselves with.
const ACCESS_KEY: &str = "shardproof-test";
const SECRET_KEY: &str = "shardproof-test-secret";

/// A running server with one bucket; ends when dropped.
#[derive(Debug)]
pub struct S3 {
    directory: TempDir,
    endpoint: String,
    serving: JoinHandle<()>,
}

impl S3 {
    /// The bucket.
    pub const BUCKET: &'static str = "shardproof";

    /// Starts a server on a free port.
    ///
    /// # Errors
    /// When it cannot listen or has no directory.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join(Self::BUCKET))?;
        let files = FileSystem::new(directory.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr().context("it listens")?);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    // A client that hangs up is done.
                    let _ended =
                        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { directory, endpoint, serving })
    }

    /// What the environment of a client says.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Where the bucket's objects lie.
    pub fn bucket(&self) -> PathBuf {
        self.directory.path().join(Self::BUCKET)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
