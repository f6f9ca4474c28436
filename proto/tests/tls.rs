//! Certificates over real connections. Every refusal begins with a pair that gets on, and changes one thing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::path::PathBuf;
use std::time::Duration;

use prost::bytes::Bytes;
use shardproof_authority::{Authority, Leaf};
use shardproof_common::artifacts::ArtifactStore;
use shardproof_proto::transport::artifacts::{ArtifactService, TransferError, store};
use shardproof_proto::transport::traffic::Traffic;
use shardproof_proto::transport::{
    self, Channel, ChannelError, ClientLimits, Credentials, Gate, Listening, Party, Subject, Tls, Token, Tokens,
    Transport, Trouble, Uploads, trouble,
};
use shardproof_proto::v1::HeartbeatRequest;
use shardproof_proto::v1::artifacts_server::ArtifactsServer;
use shardproof_proto::v1::control_client::ControlClient;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

const HOUR: Duration = Duration::from_secs(3600);
const HOST: &str = "127.0.0.1";

/// Directories with certificates.
struct Parties {
    directory: TempDir,
    authority: Authority,
}

impl Parties {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), authority: Authority::generate().unwrap() }
    }

    fn leaf(party: Party, hosts: &[&str]) -> Leaf {
        let subject = Subject { party, name: "test".parse().unwrap() };
        Leaf::new(subject, hosts.iter().map(ToString::to_string).collect(), HOUR)
    }

    fn expired(party: Party) -> Leaf {
        let leaf = Self::leaf(party, &[HOST]);
        Leaf { not_after: leaf.not_before + HOUR / 2, ..leaf }
    }

    fn issue(&self, name: &str, leaf: &Leaf) -> PathBuf {
        let out = self.directory.path().join(name);
        self.authority.issue(leaf).unwrap().write(&out).unwrap();
        out
    }

    /// A transport with a certificate for `party` at `hosts`.
    fn transport(&self, name: &str, party: Party, hosts: &[&str]) -> Transport {
        Transport::with_tls(Tls::load(&self.issue(name, &Self::leaf(party, hosts))).unwrap())
    }

    /// One that knows the authority and shows no certificate.
    fn anonymous(&self) -> Transport {
        let out = self.directory.path().join("anonymous");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("ca.pem"), self.authority.certificate()).unwrap();
        Transport::with_tls(Tls::load(&out).unwrap())
    }
}

/// A server of artifacts at a free port.
struct Server {
    address: String,
    _store: TempDir,
}

impl Server {
    async fn start(transport: &Transport, gate: Gate) -> Self {
        Self::with_places(transport, gate, 16).await
    }

    async fn with_places(transport: &Transport, gate: Gate, max_connections: u32) -> Self {
        let (listener, server, service) = Self::parts().await;
        let listening = Listening { listener, traffic: Traffic::default(), max_connections };
        let connections = listening.connections(transport).unwrap();
        tokio::spawn(transport::server(gate, 100).add_service(service).serve_with_incoming(connections));
        server
    }

    /// One that does not look at its own certificate first.
    async fn careless(config: ServerTlsConfig) -> Self {
        let (listener, server, service) = Self::parts().await;
        let router = tonic::transport::Server::builder().tls_config(config).unwrap().add_service(service);
        tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        server
    }

    async fn parts() -> (TcpListener, Self, ArtifactsServer<ArtifactService>) {
        let directory = tempfile::tempdir().unwrap();
        let service = ArtifactService::new(
            ArtifactStore::open(directory.path()).unwrap(),
            1 << 20,
            Uploads::new(None, Duration::ZERO),
        );
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, Self { address, _store: directory }, ArtifactsServer::new(service))
    }
}

fn open_gate() -> Gate {
    Gate::new(None, ClientLimits::default())
}

async fn upload(channel: Channel) -> Result<(), TransferError> {
    store(channel, Bytes::from_static(b"content")).await.map(|_| ())
}

async fn refusal(transport: &Transport, server: &Server) -> Trouble {
    match transport.connect(&server.address, Party::Coordinator).await {
        Err(ChannelError::Trouble(trouble)) => trouble,
        other => panic!("expected a handshake that fails, found {other:?}"),
    }
}

/// A client that does not look at its own certificate first.
fn careless_client(server: &Server, trusted: &Authority, own: &std::path::Path) -> Channel {
    let read = |name: &str| std::fs::read(own.join(name)).unwrap();
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.certificate()))
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")));
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap().tls_config(config).unwrap();
    InterceptedService::new(endpoint.connect_lazy(), Credentials::default())
}

async fn own_trouble(channel: Channel) -> Option<Trouble> {
    match upload(channel).await.unwrap_err() {
        TransferError::Remote(status) => trouble(&status),
        other => panic!("expected a connection that fails, found {other}"),
    }
}

#[tokio::test]
async fn a_server_is_refused_for_its_host_authority_role_or_age() {
    let (parties, strangers) = (Parties::new(), Parties::new());
    let client = parties.transport("client", Party::Client, &[]);

    let good = Server::start(&parties.transport("good", Party::Coordinator, &[HOST]), open_gate()).await;
    upload(client.connect(&good.address, Party::Coordinator).await.unwrap()).await.unwrap();

    let elsewhere = Server::start(&parties.transport("away", Party::Coordinator, &["a.example"]), open_gate()).await;
    let found = refusal(&client, &elsewhere).await;
    assert_eq!(found, Trouble::ServerName { expected: HOST.to_owned(), presented: vec!["a.example".to_owned()] });
    assert!(found.to_string().contains("--host 127.0.0.1"), "{found}");

    let foreign = Server::start(&strangers.transport("foreign", Party::Coordinator, &[HOST]), open_gate()).await;
    assert_eq!(refusal(&client, &foreign).await, Trouble::ServerForeign);

    let worker = Server::start(&parties.transport("worker", Party::Worker, &[HOST]), open_gate()).await;
    let found = refusal(&client, &worker).await;
    assert!(matches!(&found, Trouble::ServerParty(_)), "{found:?}");
    assert!(found.to_string().contains("expected a coordinator there, found worker `test`"), "{found}");

    let old = parties.authority.issue(&Parties::expired(Party::Coordinator)).unwrap();
    let config = ServerTlsConfig::new().identity(Identity::from_pem(&old.certificate, &old.key));
    let expired = Server::careless(config).await;
    assert_eq!(refusal(&client, &expired).await, Trouble::ServerExpired);

    let clear = Server::start(&Transport::plaintext(), open_gate()).await;
    assert_eq!(refusal(&client, &clear).await, Trouble::ServerInClear);
}

#[tokio::test]
async fn a_client_is_refused_for_its_authority_age_or_role() {
    let (parties, strangers) = (Parties::new(), Parties::new());
    let server = Server::start(&parties.transport("server", Party::Coordinator, &[HOST]), open_gate()).await;
    let client = |own: &std::path::Path| careless_client(&server, &parties.authority, own);

    let good = parties.issue("good", &Parties::leaf(Party::Client, &[]));
    upload(client(&good)).await.unwrap();

    let foreign = strangers.issue("foreign", &Parties::leaf(Party::Client, &[]));
    assert_eq!(own_trouble(client(&foreign)).await, Some(Trouble::OwnForeign));

    let expired = parties.issue("expired", &Parties::expired(Party::Client));
    assert_eq!(own_trouble(client(&expired)).await, Some(Trouble::OwnExpired));

    let heartbeat = ControlClient::new(client(&good)).heartbeat(HeartbeatRequest { session: 1 }).await.unwrap_err();
    assert_eq!(heartbeat.code(), Code::PermissionDenied, "{heartbeat:?}");
    assert!(
        heartbeat.message().contains("client `test` may not call shardproof.v1.Control/Heartbeat"),
        "{heartbeat:?}"
    );
    // Whoever may call it learns that it is not there.
    let worker = parties.issue("worker", &Parties::leaf(Party::Worker, &[]));
    let unheard = ControlClient::new(client(&worker)).heartbeat(HeartbeatRequest { session: 1 }).await.unwrap_err();
    assert_eq!(unheard.code(), Code::Unimplemented, "{unheard:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_needs_a_token() {
    let parties = Parties::new();
    let token = Token::generate();
    let subject: Subject = "shardproof://client/alice".parse().unwrap();
    let file = parties.directory.path().join("tokens");
    std::fs::write(&file, Tokens::line(&subject, token.digest())).unwrap();
    let gate = Gate::new(Some(Tokens::read(&file).unwrap()), ClientLimits::default());
    let server = Server::start(&parties.transport("server", Party::Coordinator, &[HOST]), gate).await;
    let with = |token| parties.anonymous().with_token(token).lazy_channel(&server.address, Party::Coordinator).unwrap();

    upload(with(Some(token))).await.unwrap();
    for (shown, says) in [(None, "who are you?"), (Some(Token::generate()), "not one that the coordinator knows")] {
        let TransferError::Remote(refused) = upload(with(shown)).await.unwrap_err() else { panic!("not refused") };
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains(says), "{refused:?}");
    }
}

#[tokio::test]
async fn a_client_in_the_clear_gets_nothing_from_a_server_with_tls() {
    let parties = Parties::new();
    let server = Server::start(&parties.transport("server", Party::Coordinator, &[HOST]), open_gate()).await;
    let channel = Transport::plaintext().lazy_channel(&server.address, Party::Coordinator).unwrap();
    assert_eq!(own_trouble(channel).await, Some(Trouble::OtherProtocol));
}

#[tokio::test]
async fn a_server_that_is_another_program_is_told_from_one_that_is_away() {
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let page = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    };
    tokio::spawn(page);
    let channel = Transport::plaintext().lazy_channel(&address, Party::Coordinator).unwrap();
    assert_eq!(own_trouble(channel).await, Some(Trouble::OtherProtocol));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_place_of_one_that_ends_is_free() {
    let server = Server::with_places(&Transport::plaintext(), open_gate(), 1).await;
    let connect = || async { Transport::plaintext().lazy_channel(&server.address, Party::Coordinator).unwrap() };
    let first = connect().await;
    upload(first.clone()).await.unwrap();
    assert!(upload(connect().await).await.is_err(), "a second connection got in");
    upload(first.clone()).await.unwrap();
    drop(first);
    let freed = async {
        while upload(connect().await).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), freed).await.expect("the place stays taken");
}
