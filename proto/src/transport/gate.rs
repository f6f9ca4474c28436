//! The gate: every call to a server passes it, and what is not let in here reaches no service.
//!
//! Who may call what is one table, [`DOORS`]. A service that has no row is closed: a new one cannot be open by oversight. A caller
//! is who its token says, or else its certificate. In the clear there are no parties: whoever reaches the port may call every
//! service of the table, except what tokens guard once there are any, and what is the admin's, which only this machine may call
//! then.
//!
//! Health is answered to anyone: an orchestrator's probe has no certificate, and the answer says no more than an open port does.
//! Reflection, which describes the services, is for whoever may call one of them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Frame;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::limits::{ClientLimits, Counted, Meter, Under};
use super::listener::{Peer, Shown};
use super::party::{Party, Subject, words};
use super::tokens::Tokens;

/// A row of the table: who may call a service.
struct Door {
    /// `package.Service`.
    service: &'static str,
    /// Who may call it.
    parties: &'static [Party],
    /// Whether calls count against a client's limits. What workers and the coordinator say to each other does not.
    metered: bool,
}

/// Who may call what.
const DOORS: [Door; 7] = [
    Door { service: "shardproof.v1.Control", parties: &[Party::Worker], metered: false },
    Door { service: "shardproof.v1.Activations", parties: &[Party::Worker, Party::Coordinator], metered: false },
    Door { service: "shardproof.v1.Artifacts", parties: &[Party::Worker, Party::Client, Party::Admin], metered: true },
    Door { service: "shardproof.v1.Runs", parties: &[Party::Client, Party::Admin], metered: true },
    Door { service: "shardproof.v1.Admin", parties: &[Party::Admin], metered: true },
    Door { service: "grpc.reflection.v1.ServerReflection", parties: &Party::ALL, metered: true },
    Door { service: HEALTH, parties: &Party::ALL, metered: true },
];
/// The one service that anyone may call.
const HEALTH: &str = "grpc.health.v1.Health";
/// What tokens guard in the clear: workers have none, and their calls look like anyone's.
const GUARDED_BY_TOKENS: [&str; 2] = ["shardproof.v1.Runs", "shardproof.v1.Admin"];
const ADMIN: &str = "shardproof.v1.Admin";
/// What the library says of a message that is too large.
const TOO_LARGE: &str = "message length too large";
const UPLOAD: &str = "/shardproof.v1.Artifacts/Store";

/// Who makes a call. Services find it among the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where the call comes from.
    pub address: IpAddr,
    /// Whether that is this machine.
    pub here: bool,
    /// Whose certificate or token came with it; nobody's in the clear.
    pub subject: Option<Subject>,
}

impl Caller {
    /// As whom it is counted.
    pub(super) fn counted(&self) -> Counted {
        self.subject.clone().map_or(Counted::At(self.address), Counted::Named)
    }

    /// Whether it may do what is the admin's: with an admin's certificate or token or, in the clear, from this machine.
    pub fn is_admin(&self) -> bool {
        match &self.subject {
            Some(subject) => subject.party == Party::Admin,
            None => self.here,
        }
    }
}

/// Lets calls in, or not.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    tokens: Option<Tokens>,
    meter: Meter,
}

impl Gate {
    /// A gate that takes `tokens`, and lets each client do as much as `limits` say.
    pub fn new(tokens: Option<Tokens>, limits: ClientLimits) -> Self {
        Self(Arc::new(Rules { tokens, meter: Meter::new(limits) }))
    }
}

/// A call that was let in.
struct Admitted {
    caller: Caller,
    under_way: [Option<Under>; 2],
}

impl Rules {
    fn admit(&self, request: &http::Request<Body>) -> Result<Admitted, Status> {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.ok_or_else(|| Status::internal("a connection that nobody has looked at"))?;
        let path = request.uri().path();
        let door = door(path);
        let subject = self.identify(peer, request.headers())?;
        let caller = Caller { address: peer.address, here: peer.here, subject };
        if door.is_none_or(|door| door.service != HEALTH) {
            self.check_allowed(door, peer, &caller, path)?;
        }
        let metered = door.is_some_and(|door| door.metered)
            && caller.subject.as_ref().is_none_or(|subject| matches!(subject.party, Party::Client | Party::Admin));
        let under_way = if metered { self.meter.enter(&caller.counted(), path == UPLOAD)? } else { [None, None] };
        Ok(Admitted { caller, under_way })
    }

    /// Whose token came with the call, or else whose certificate with the connection. A token that is unknown is refused even
    /// where a certificate would do: whoever sends it believes in it.
    fn identify(&self, peer: &Peer, headers: &http::HeaderMap) -> Result<Option<Subject>, Status> {
        if let (Some(tokens), Some(header)) = (&self.tokens, headers.get(http::header::AUTHORIZATION)) {
            let holder = header.to_str().ok().and_then(|header| tokens.holder(header));
            return holder.cloned().map(Some).ok_or_else(|| {
                Status::unauthenticated(
                    "the token is not one that the coordinator knows: add its line to the coordinator's --tokens file \
                     and start it again",
                )
            });
        }
        match &peer.shown {
            Shown::Certificate(subject) => Ok(Some(subject.clone())),
            Shown::Unclear(error) => Err(Status::unauthenticated(error.to_string())),
            Shown::InTheClear | Shown::NoCertificate => Ok(None),
        }
    }

    fn check_allowed(&self, door: Option<&Door>, peer: &Peer, caller: &Caller, path: &str) -> Result<(), Status> {
        let service = path.trim_start_matches('/');
        match (&caller.subject, door) {
            (Some(subject), Some(door)) if door.parties.contains(&subject.party) => Ok(()),
            (Some(subject), Some(door)) => Err(Status::permission_denied(format!(
                "{subject} may not call {service}: that is for the role {}",
                words(door.parties)
            ))),
            (Some(subject), None) => Err(Status::permission_denied(format!("{subject} may not call {service}"))),
            (None, _) if peer.shown == Shown::NoCertificate => Err(self.nothing_shown()),
            (None, Some(door)) if self.tokens.is_some() && GUARDED_BY_TOKENS.contains(&door.service) => {
                Err(self.nothing_shown())
            }
            (None, None) => Err(Status::permission_denied(format!("nobody may call {service}"))),
            (None, Some(Door { service: ADMIN, .. })) if !caller.is_admin() => Err(Status::permission_denied(
                "without TLS only the coordinator's own machine may do that: start the coordinator with --tls DIR",
            )),
            (None, Some(_)) => Ok(()),
        }
    }

    fn nothing_shown(&self) -> Status {
        let token = if self.tokens.is_some() { ", or a token (--token-file FILE or SHARDPROOF_TOKEN)" } else { "" };
        Status::unauthenticated(format!("who are you? give --tls DIR with a certificate{token}"))
    }
}

/// The row for a path, `/package.Service/Method`.
fn door(path: &str) -> Option<&'static Door> {
    let (service, _) = path.strip_prefix('/')?.split_once('/')?;
    DOORS.iter().find(|door| door.service == service)
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// Services behind a gate.
#[derive(Clone, Debug)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.gate.0.admit(&request) {
            Ok(Admitted { caller, under_way }) => {
                request.extensions_mut().insert(caller);
                let answered = self.inner.call(request);
                Box::pin(async move {
                    let response = told_of_the_option(answered.await?);
                    Ok(response.map(|body| Body::new(UnderWay { body, _counted: under_way })))
                })
            }
            Err(status) => {
                tracing::debug!(path = request.uri().path(), reason = status.message(), "call refused");
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// A message that is too large is refused where it is decoded, by its size alone; its sender is to learn which limit that is.
fn told_of_the_option(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange && status.message().contains(TOO_LARGE) => {
            Status::resource_exhausted(format!("{}, which is this server's --max-message", status.message()))
                .into_http()
        }
        _ => response,
    }
}

/// An answer that counts as under way until it is sent or given up.
struct UnderWay {
    body: Body,
    _counted: [Option<Under>; 2],
}

impl http_body::Body for UnderWay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::transport::tokens::Token;

    fn peer(address: [u8; 4], shown: Shown) -> Peer {
        Peer { address: IpAddr::from(address), here: address == HOME, shown }
    }

    fn certified(party: Party) -> Shown {
        Shown::Certificate(Subject { party, name: "x".parse().unwrap() })
    }

    fn call(gate: &Gate, path: &str, peer: Peer, token: Option<&Token>) -> Result<Caller, Status> {
        let mut request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {}", token.reveal()).parse().unwrap());
        }
        request.extensions_mut().insert(peer);
        gate.0.admit(&request).map(|admitted| admitted.caller)
    }

    fn code(answer: Result<Caller, Status>) -> Option<Code> {
        answer.err().map(|status| status.code())
    }

    const HOME: [u8; 4] = [127, 0, 0, 1];
    const AWAY: [u8; 4] = [10, 0, 0, 9];

    #[test]
    fn every_service_has_a_row() {
        #[derive(Clone, PartialEq, Message)]
        struct Named {
            #[prost(string, tag = "1")]
            name: String,
        }
        #[derive(Clone, PartialEq, Message)]
        struct File {
            #[prost(string, tag = "2")]
            package: String,
            #[prost(message, repeated, tag = "6")]
            services: Vec<Named>,
        }
        #[derive(Clone, PartialEq, Message)]
        struct Files {
            #[prost(message, repeated, tag = "1")]
            files: Vec<File>,
        }
        let contracts = Files::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let mut seen = 0;
        for file in &contracts.files {
            for service in &file.services {
                seen += 1;
                let path = format!("/{}.{}/Any", file.package, service.name);
                assert!(door(&path).is_some(), "{path} has no row in the table");
            }
        }
        assert!(seen >= 4, "the contracts were not read");
    }

    #[test]
    fn each_party_gets_through_its_own_doors_only() {
        let gate = Gate::new(None, ClientLimits::default());
        let open = [
            ("/shardproof.v1.Control/Work", vec![Party::Worker]),
            ("/shardproof.v1.Activations/Deliver", vec![Party::Worker, Party::Coordinator]),
            ("/shardproof.v1.Artifacts/Store", vec![Party::Worker, Party::Client, Party::Admin]),
            ("/shardproof.v1.Runs/Submit", vec![Party::Client, Party::Admin]),
            ("/shardproof.v1.Admin/Anything", vec![Party::Admin]),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Party::ALL.to_vec()),
            ("/grpc.health.v1.Health/Check", Party::ALL.to_vec()),
            ("/shardproof.v1.Unheard/Of", vec![]),
            ("/shardproof.v1.Runs", vec![]),
        ];
        for (path, parties) in open {
            for party in Party::ALL {
                let answer = code(call(&gate, path, peer(HOME, certified(party)), None));
                let expected = (!parties.contains(&party)).then_some(Code::PermissionDenied);
                assert_eq!(answer, expected, "{party} calls {path}");
            }
        }
    }

    #[test]
    fn whoever_shows_nothing_over_tls_gets_health_alone() {
        let gate = Gate::new(None, ClientLimits::default());
        let stranger = |path: &str| code(call(&gate, path, peer(HOME, Shown::NoCertificate), None));
        assert_eq!(stranger("/grpc.health.v1.Health/Check"), None);
        for path in DOORS.iter().map(|door| door.service).filter(|path| *path != HEALTH) {
            assert_eq!(stranger(&format!("/{path}/Any")), Some(Code::Unauthenticated), "{path}");
        }
        assert_eq!(stranger("/no.such.Service/Any"), Some(Code::Unauthenticated));
        let unclear = peer(HOME, Shown::Unclear(super::super::party::SubjectError::Nobody));
        let refused = call(&gate, "/shardproof.v1.Runs/Get", unclear, None).unwrap_err();
        assert!(refused.code() == Code::Unauthenticated && refused.message().contains("names no role"));
    }

    #[test]
    fn a_token_opens_what_its_role_may_call() {
        let (client, admin, unknown) = (Token::generate(), Token::generate(), Token::generate());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let text = format!("alice client {}\nbob admin {}\n", client.digest(), admin.digest());
        std::fs::write(&path, text).unwrap();
        let gate = Gate::new(Some(Tokens::read(&path).unwrap()), ClientLimits::default());
        let (runs, admins, control) =
            ("/shardproof.v1.Runs/Get", "/shardproof.v1.Admin/Any", "/shardproof.v1.Control/Work");
        for shown in [Shown::NoCertificate, Shown::InTheClear] {
            let with = |path: &str, token| code(call(&gate, path, peer(HOME, shown.clone()), token));
            assert_eq!(with(runs, Some(&client)), None);
            assert_eq!(with(admins, Some(&client)), Some(Code::PermissionDenied));
            assert_eq!(with(admins, Some(&admin)), None);
            assert_eq!(with(control, Some(&admin)), Some(Code::PermissionDenied));
            assert_eq!(with(runs, Some(&unknown)), Some(Code::Unauthenticated));
            assert_eq!(with(runs, None), Some(Code::Unauthenticated));
            assert_eq!(with(admins, None), Some(Code::Unauthenticated));
        }
        let caller = call(&gate, runs, peer(HOME, Shown::NoCertificate), Some(&client)).unwrap();
        assert_eq!(caller.subject.unwrap().to_string(), "client `alice`");
        // Workers in the clear have no token.
        assert_eq!(code(call(&gate, control, peer(HOME, Shown::InTheClear), None)), None);
    }

    #[test]
    fn in_the_clear_only_this_machine_does_what_is_the_admins() {
        let gate = Gate::new(None, ClientLimits::default());
        let clear = |path: &str, from| code(call(&gate, path, peer(from, Shown::InTheClear), None));
        assert_eq!(clear("/shardproof.v1.Admin/Any", HOME), None);
        assert_eq!(clear("/shardproof.v1.Admin/Any", AWAY), Some(Code::PermissionDenied));
        let runs = "/shardproof.v1.Runs/Get";
        assert_eq!(clear(runs, AWAY), None);
        assert_eq!(clear("/no.such.Service/Any", HOME), Some(Code::PermissionDenied));
        let may = |from, shown| call(&gate, runs, peer(from, shown), None).unwrap().is_admin();
        assert!(may(HOME, Shown::InTheClear) && may(AWAY, certified(Party::Admin)));
        assert!(!may(AWAY, Shown::InTheClear) && !may(HOME, certified(Party::Client)));
    }

    #[test]
    fn limits_count_clients_and_leave_workers_alone() {
        let gate = Gate::new(None, ClientLimits { rate: Some(1), ..Default::default() });
        let exhausted = |path: &str, peer: &Peer| {
            (0..100).filter_map(|_| call(&gate, path, peer.clone(), None).err()).map(|status| status.code()).next()
        };
        let upload = "/shardproof.v1.Artifacts/Store";
        assert_eq!(exhausted(upload, &peer(HOME, certified(Party::Client))), Some(Code::ResourceExhausted));
        assert_eq!(exhausted(upload, &peer(HOME, certified(Party::Worker))), None);
        assert_eq!(exhausted(upload, &peer(HOME, Shown::InTheClear)), Some(Code::ResourceExhausted));
        assert_eq!(exhausted("/shardproof.v1.Control/Heartbeat", &peer(HOME, Shown::InTheClear)), None);
    }
}
