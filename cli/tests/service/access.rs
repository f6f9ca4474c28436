//! Who gets in: TLS between all parties, tokens for clients, and nothing in the clear beyond this machine.

use std::path::Path;
use std::time::Duration;

use shardproof_authority::{Authority, Leaf};
use shardproof_proto::transport::{Party, Subject, Tls, Token, Tokens, Transport};
use shardproof_proto::v1::{RunState, StatusRequest};
use tempfile::TempDir;
use tonic::Code;

use crate::cluster::{Program, Service, answer, assert_close, assert_state, fails, samples, strings};

/// An authority whose certificates are in directories named after their holders.
struct Certificates(TempDir);

impl Certificates {
    fn new(parties: &[Party]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path()).unwrap();
        for &party in parties {
            let subject = Subject { party, name: "test".parse().unwrap() };
            let leaf = Leaf::new(subject, vec!["127.0.0.1".to_owned()], Duration::from_secs(3600));
            authority.issue(&leaf).unwrap().write(&directory.path().join(party.as_str())).unwrap();
        }
        Self(directory)
    }

    fn of(&self, party: Party) -> String {
        self.0.path().join(party.as_str()).display().to_string()
    }

    fn transport(&self, party: Party) -> Transport {
        Transport::with_tls(Tls::load(Path::new(&self.of(party))).unwrap())
    }
}

#[tokio::test]
async fn a_service_with_tls_answers_its_clients_and_nobody_else() {
    let certificates = Certificates::new(&Party::ALL);
    let token = Token::generate();
    let tokens = certificates.0.path().join("tokens");
    let subject: Subject = "shardproof://client/alice".parse().unwrap();
    std::fs::write(&tokens, Tokens::line(&subject, token.digest())).unwrap();
    let tls = certificates.of(Party::Coordinator);
    let extra = ["--backend", "float", "--tls", &tls, "--tokens", tokens.to_str().unwrap()];
    let mut service = Service::start("mlp", &[], 2, &extra);
    service.transport = certificates.transport(Party::Client);
    for role in ["LAST", "FIRST"] {
        service.add_worker(role, &["--tls", &certificates.of(Party::Worker)]);
    }
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.infer(input).await;
    assert_state(&run, RunState::Answered);
    assert_close(&answer(&run), expected, 1e-5);

    // A token alone does as well as a certificate.
    let anonymous = certificates.0.path().join("anonymous");
    std::fs::create_dir(&anonymous).unwrap();
    std::fs::copy(certificates.0.path().join("ca.pem"), anonymous.join("ca.pem")).unwrap();
    let anonymous = || Transport::with_tls(Tls::load(&anonymous).unwrap());
    service.transport = anonymous().with_token(Some(token));
    assert_state(&service.infer(input).await, RunState::Answered);

    for (transport, code) in
        [(anonymous(), Code::Unauthenticated), (certificates.transport(Party::Worker), Code::PermissionDenied)]
    {
        service.transport = transport;
        let refused = service.client().status(StatusRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    service.transport = Transport::plaintext();
    assert!(service.client().status(StatusRequest {}).await.is_err());
}

#[test]
fn a_worker_that_does_not_trust_the_coordinator_says_so_and_waits() {
    let (ours, theirs) = (Certificates::new(&[Party::Coordinator]), Certificates::new(&[Party::Worker]));
    let mut service = Service::start("mlp", &[], 1, &["--backend", "float", "--tls", &ours.of(Party::Coordinator)]);
    service.add_worker("SOLO", &["--tls", &theirs.of(Party::Worker)]);
    service.workers[0].until_logged("certificate is from another authority");
    assert!(service.workers[0].terminate().success());
}

#[test]
fn certificates_of_others_are_refused_before_anything_starts() {
    let certificates = Certificates::new(&Party::ALL);
    let at = |party| certificates.of(party);
    let coordinator =
        |tls: &str| fails(&["coordinator", "127.0.0.1", "0", "1", "mlp", "--data-dir", "x", "--tls", tls]);
    let (code, said) = coordinator(&at(Party::Worker));
    assert!(code == Some(1) && said.contains("is for worker `test`") && said.contains("coordinator"), "{said}");
    let (_, said) = coordinator("no-such-directory");
    assert!(said.contains("no-such-directory/ca.pem") && said.contains("cert issue"), "{said}");
    let (_, said) = fails(&["status", "--tls", &at(Party::Worker)]);
    assert!(said.contains("is for worker `test`") && said.contains("client or admin"), "{said}");
}

#[test]
fn in_the_clear_programs_listen_on_this_machine_only_unless_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "").unwrap();
    let tokens = tokens.to_str().unwrap();
    let coordinator = ["coordinator", "0.0.0.0", "0", "1", "mlp", "--backend", "float", "--data-dir", &data];
    let worker = ["worker", "0.0.0.0", "0", "127.0.0.1", "9", "SOLO", "--data-dir", &data];
    for program in [coordinator.as_slice(), &worker] {
        let (code, said) = fails(program);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("0.0.0.0") && said.contains("--tls DIR") && said.contains("--insecure"), "{said}");
    }
    let (_, said) = fails(&[coordinator.as_slice(), &["--insecure", "--tokens", tokens]].concat());
    assert!(said.contains("--tokens in the clear"), "{said}");

    for program in [coordinator.as_slice(), &worker] {
        // What stands for all addresses is none that others could be told.
        let (code, said) = fails(&[program, &["--insecure"]].concat());
        assert!(code == Some(1) && said.contains("0.0.0.0") && said.contains("--advertise HOST:PORT"), "{said}");
        for wrong in ["here", "10.0.0.1", "10.0.0.1:0", "::1:8000"] {
            let (code, said) = fails(&[program, &["--insecure", "--advertise", wrong]].concat());
            assert!(code == Some(2) && said.contains("--advertise") && said.contains("HOST:PORT"), "{said}");
        }
        let arguments = strings(&[program, &["--insecure", "--advertise", "127.0.0.1:9"]].concat());
        let mut started = Program::start(directory.path(), program[0], &arguments);
        started.until_logged("INSECURE");
        started.kill();
        assert_eq!(started.logged().matches("INSECURE").count(), 1, "{}", started.logged());
    }
}
