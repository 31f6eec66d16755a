//! What a hub gets to see: a hub made of the product's parts that writes down every byte which its splice carries.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{World, online};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use towline::identity::{Identity, Role};
use towline::message::{self, Accepted, Answer, Offer, Open, Profile, Request};
use towline::relay::{Gone, Leg, Read, StreamLeg, relay};
use towline::{
    Device, EndpointConfig, Route, Service, SessionOptions, Transport, Tunnel, agent, link_config,
};
use towline_transports::tls::{self, ALPN_LINK};
use towline_transports::{Code, Link, RecvStream, SendStream, Side};

const SOON: Duration = Duration::from_secs(60);

/// What a splice has carried so far, both ways.
type Seen = Arc<Mutex<Vec<u8>>>;

/// A leg of a splice that writes down what is read from it.
struct Recorded {
    leg: StreamLeg,
    seen: Seen,
}

impl Leg for Recorded {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        let read = self.leg.poll_read(context, max);
        if let Poll::Ready(Read::Data(data)) = &read {
            self.seen.lock().unwrap().extend_from_slice(data);
        }
        read
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.leg.poll_write(context, data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.leg.poll_finish(context)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.leg.poll_gone(context)
    }

    fn reset(&mut self, code: Code) {
        self.leg.reset(code);
    }

    fn stop(&mut self, code: Code) {
        self.leg.stop(code);
    }

    fn reset_ends_whole(&self) -> bool {
        self.leg.reset_ends_whole()
    }
}

/// A hub for one device, which grants everything and writes down what it carries.
struct RecordingHub {
    address: SocketAddr,
    seen: Seen,
    /// Which profiles it was asked for.
    profiles: Arc<Mutex<Vec<Profile>>>,
}

#[derive(Clone)]
struct Inner {
    device: Arc<Mutex<Option<Link>>>,
    seen: Seen,
    profiles: Arc<Mutex<Vec<Profile>>>,
}

impl RecordingHub {
    async fn start(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls =
            tls::server_config(world.credentials("hub/h"), &[ALPN_LINK], &world.environment.tls).unwrap();
        let inner = Inner { device: Arc::default(), seen: Arc::default(), profiles: Arc::default() };
        let (seen, profiles) = (inner.seen.clone(), inner.profiles.clone());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let pipe = tls::accept(socket, tls.clone()).await.unwrap();
                let identity = Identity::of_certificate(&pipe.peer_certificates()[0]).unwrap();
                let link = Link::over_tls(pipe, Side::Server, link_config(Side::Server));
                tokio::spawn(inner.clone().serve(link, identity));
            }
        });
        Self { address, seen, profiles }
    }

    fn endpoint(&self, world: &World, who: &str) -> EndpointConfig {
        let route = Route { transport: Some(Transport::Tls), ..Route::default() };
        EndpointConfig { hub: self.address.to_string(), credentials: world.credentials(who), route }
    }

    fn has_seen(&self, text: &[u8]) -> bool {
        self.seen.lock().unwrap().windows(text.len()).any(|window| window == text)
    }
}

impl Inner {
    /// Serves a link. Its first stream stays open with it.
    async fn serve(self, link: Link, identity: Identity) {
        let mut control = None;
        while let Ok((mut send, mut recv)) = link.accept_bi().await {
            match message::read::<Request>(&mut recv).await.unwrap() {
                Request::Hello(_) => {
                    message::write(&mut send, &Answer::Accepted(Accepted::default())).await.unwrap();
                    control = Some((send, recv));
                    if identity.role == Role::Device {
                        *self.device.lock().unwrap() = Some(link.clone());
                    }
                }
                Request::Open(open) => {
                    tokio::spawn(self.clone().splice(identity.clone(), open, send, recv));
                }
                Request::List(_) => {}
            }
        }
        drop(control);
    }

    async fn splice(self, from: Identity, open: Open, mut to_service: SendStream, from_service: RecvStream) {
        self.profiles.lock().unwrap().push(open.profile);
        let device = self.device.lock().unwrap().clone().unwrap();
        let (mut to_device, mut from_device) = device.open_bi().await.unwrap();
        let Open { service, profile, deadline_ms, .. } = open;
        let offer = Offer { tunnel: 1, service, from: from.to_string(), profile, deadline_ms };
        message::write(&mut to_device, &offer).await.unwrap();
        let answer: Answer = message::read(&mut from_device).await.unwrap();
        message::write(&mut to_service, &answer).await.unwrap();
        let recorded = |send, recv| Recorded { leg: StreamLeg::new(send, recv), seen: self.seen.clone() };
        let mut service_leg = recorded(to_service, from_service);
        let mut device_leg = recorded(to_device, from_device);
        relay(&mut service_leg, &mut device_leg, profile).await;
    }
}

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2p1";
const MARKER: &[u8] = b"nobody else shall read these words";

/// An ssh server, as far as its first words go, which gives back what it gets.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { greet(&mut socket).await });
        }
    });
    address
}

async fn greet(socket: &mut TcpStream) -> std::io::Result<()> {
    socket.write_all(BANNER).await?;
    let (mut reader, mut writer) = socket.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

/// The hub, and a service of a device that is online there.
async fn world() -> (RecordingHub, Service) {
    let world = World::new();
    let hub = RecordingHub::start(&world).await;
    let environment = world.environment.clone();
    let mut device = Device::register(hub.endpoint(&world, "device/press-7"), environment.clone()).unwrap();
    online(&device).await;
    let targets = vec![format!("ssh={}", server().await).parse().unwrap()];
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
    let service = Service::new(hub.endpoint(&world, "service/ops"), world.environment.clone()).unwrap();
    (hub, service)
}

/// Says the marker, and hears it back behind the banner.
async fn talk(mut connection: Tunnel) {
    connection.write_all(MARKER).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(SOON, connection.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, [BANNER, MARKER].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_cannot_read_a_session() {
    let (hub, service) = world().await;
    let session = service.session("press-7", "ssh", SessionOptions::default()).await.unwrap();
    talk(session.begin().await.unwrap().answered().await.unwrap()).await;
    assert_eq!(*hub.profiles.lock().unwrap(), [Profile::EndToEnd]);
    assert!(hub.seen.lock().unwrap().len() > 2 * (BANNER.len() + MARKER.len()), "it carries all of it");
    for text in [BANNER, MARKER, b"SSH-2.0"] {
        assert!(!hub.has_seen(text), "{:?}", text.escape_ascii().to_string());
    }
}

/// That the hub of these tests sees what there is to see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_can_read_a_plain_tunnel() {
    let (hub, service) = world().await;
    talk(service.open("press-7", "ssh").await.unwrap()).await;
    assert_eq!(*hub.profiles.lock().unwrap(), [Profile::Native]);
    assert!(hub.has_seen(BANNER) && hub.has_seen(MARKER));
}
