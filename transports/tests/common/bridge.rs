//! A way for sessions that outlive their pipes: it can be cut, fall silent, and have a gate for whoever would come back.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use towline_transports::tls::{self, ALPN_LINK, TlsPipe};
use towline_transports::{
    AcceptError, Accepted, Config, Link, NoWay, Occasion, Reconnect, Resumption, Secret, SessionId, Sessions,
    Side,
};

use crate::common::{Authority, config, environment};

pub const NAME: SessionId = SessionId([7; SessionId::LEN]);

pub fn secret() -> Secret {
    Secret::new([9; Secret::LEN])
}

/// A way from the client to the server that can be cut.
pub struct Network {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    pub listener: mpsc::UnboundedSender<DuplexStream>,
    /// What carries the present pipe, what it asks before it passes anything on, and how many there were.
    pub carrier: Mutex<Option<(JoinHandle<()>, Passes)>>,
    pub pipes: AtomicUsize,
    /// After how many bytes each pipe is cut by itself.
    pub cut_after: usize,
    /// Cuts the present pipe so that the server alone notices.
    pub half_cut: Arc<Notify>,
}

impl Network {
    pub fn new(cut_after: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<DuplexStream>) {
        let authority = Authority::new();
        let client = tls::client_config(authority.issue("service"), &[ALPN_LINK], &environment()).unwrap();
        let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
        let (listener, accepts) = mpsc::unbounded_channel();
        let (carrier, pipes) = (Mutex::default(), AtomicUsize::new(0));
        let half_cut = Arc::default();
        (Arc::new(Self { client, server, listener, carrier, pipes, cut_after, half_cut }), accepts)
    }

    pub async fn connect(self: Arc<Self>) -> TlsPipe<DuplexStream> {
        loop {
            let (ours, near) = duplex(32 << 10);
            let (far, theirs) = duplex(32 << 10);
            self.listener.send(theirs).unwrap();
            let left = self.cut_after;
            let [up, down] = [(); 2].map(|()| Arc::new(Semaphore::new(1)));
            let (passes, half_cut) = (Passes { up, down }, self.half_cut.clone());
            let carrying = tokio::spawn(carry(near, far, left, passes.clone(), half_cut));
            *self.carrier.lock().unwrap() = Some((carrying, passes));
            self.pipes.fetch_add(1, Ordering::Relaxed);
            // It may be cut in the middle of the handshake.
            if let Ok(pipe) = tls::connect(ours, "hub.test".try_into().unwrap(), self.client.clone()).await {
                return pipe;
            }
        }
    }

    pub fn cut(&self) {
        self.carrier.lock().unwrap().take().unwrap().0.abort();
    }

    /// What the present pipe asks before it passes anything on.
    pub fn passes(&self) -> Passes {
        self.carrier.lock().unwrap().as_ref().unwrap().1.clone()
    }

    /// From now on nothing passes through the present pipe, which is not cut.
    pub fn silence(&self) -> Passes {
        let passes = self.passes();
        Passes::close(&passes.up);
        Passes::close(&passes.down);
        passes
    }

    pub fn pipes(&self) -> usize {
        self.pipes.load(Ordering::Relaxed)
    }

    pub async fn service(self: &Arc<Self>, name: SessionId, change: impl FnOnce(&mut Config)) -> Link {
        let mut limits = config(change);
        limits.resumption = Resumption::Offer(name, secret());
        let first = self.clone().connect().await;
        let network = self.clone();
        Link::resumable(first, limits, move || network.clone().connect())
    }
}

/// A session that does not offer to resume.
pub async fn nameless(network: &Arc<Network>) -> Link {
    Link::over_tls(network.clone().connect().await, Side::Client, Config::default())
}

/// Carries bytes both ways until so many have passed, and then drops both ends with whatever is in between.
async fn carry(near: DuplexStream, far: DuplexStream, left: usize, passes: Passes, half_cut: Arc<Notify>) {
    let left = AtomicUsize::new(left);
    let (mut near, mut far) = (split(near), split(far));
    let is_half_cut = tokio::select! {
        () = half_cut.notified() => true,
        () = pass(&mut near.0, &mut far.1, &left, &passes.up) => false,
        () = pass(&mut far.0, &mut near.1, &left, &passes.down) => false,
    };
    if is_half_cut {
        drop(far);
        // The client's end stays as it is, and nothing comes out of it.
        std::future::pending::<()>().await;
    }
}

/// Carries bytes one way.
async fn pass(
    from: &mut ReadHalf<DuplexStream>,
    to: &mut WriteHalf<DuplexStream>,
    left: &AtomicUsize,
    may: &Semaphore,
) {
    let mut bytes = [0; 1000];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let _pass = may.acquire().await;
        let sum = left.load(Ordering::Relaxed);
        left.store(sum.saturating_sub(count), Ordering::Relaxed);
        if to.write_all(&bytes[..count]).await.is_err() || sum <= count {
            return;
        }
    }
}

/// What is asked before anything is passed on, in each direction.
#[derive(Clone)]
pub struct Passes {
    pub up: Arc<Semaphore>,
    pub down: Arc<Semaphore>,
}

impl Passes {
    /// Nothing passes this way any more. It must be at rest.
    pub fn close(way: &Semaphore) {
        assert_eq!(way.forget_permits(1), 1, "somebody is passing, or nobody may");
    }
}

/// Accepts pipes until nobody makes any; new links come out.
pub fn serve(
    network: Arc<Network>,
    sessions: Sessions<DuplexStream>,
    mut accepts: mpsc::UnboundedReceiver<DuplexStream>,
) -> mpsc::UnboundedReceiver<Result<Accepted, AcceptError>> {
    let (news, outcomes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(pipe) = accepts.recv().await {
            let (network, sessions, news) = (network.clone(), sessions.clone(), news.clone());
            tokio::spawn(async move {
                if let Ok(pipe) = tls::accept(pipe, network.server.clone()).await {
                    let _ = news.send(sessions.accept("service", pipe).await);
                }
            });
        }
    });
    outcomes
}

pub async fn first_link(outcomes: &mut mpsc::UnboundedReceiver<Result<Accepted, AcceptError>>) -> Link {
    match outcomes.recv().await.unwrap() {
        Ok(Accepted::New(link)) => link,
        other => panic!("{other:?}"),
    }
}

/// A way that is asked for and comes about when there is a permit, or never if there is none to be had.
pub struct Gated {
    pub network: Arc<Network>,
    pub gate: Arc<Semaphore>,
    pub told: Arc<Told>,
}

/// What somebody who brings pipes was told.
#[derive(Default)]
pub struct Told {
    pub asked: AtomicUsize,
    pub gone_on: AtomicUsize,
    pub needless: AtomicUsize,
}

impl Told {
    /// How often it was asked for a pipe, and how often the session has gone on.
    pub fn counts(&self) -> [usize; 2] {
        [&self.asked, &self.gone_on].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Reconnect<DuplexStream> for Gated {
    async fn connect(&mut self, _: Occasion) -> Result<TlsPipe<DuplexStream>, NoWay> {
        self.told.asked.fetch_add(1, Ordering::Relaxed);
        match self.gate.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(Arc::new(std::io::Error::other("the bridge is gone"))),
        }
        Ok(self.network.clone().connect().await)
    }

    fn has_gone_on(&mut self) {
        self.told.gone_on.fetch_add(1, Ordering::Relaxed);
    }

    fn is_needless(&mut self) {
        self.told.needless.fetch_add(1, Ordering::Relaxed);
    }
}

/// The two ends of a session whose later pipes come through a gate.
pub async fn gated(network: &Arc<Network>, gate: &Arc<Semaphore>) -> (Link, Arc<Told>) {
    let mut limits = Config::default();
    limits.resumption = Resumption::Offer(NAME, secret());
    let (network, gate, told) = (network.clone(), gate.clone(), Arc::<Told>::default());
    let first = network.clone().connect().await;
    (Link::resumable(first, limits, Gated { network, gate, told: told.clone() }), told)
}

/// A session whose later pipes come through a gate, and both of its ends.
pub struct Across {
    pub network: Arc<Network>,
    pub gate: Arc<Semaphore>,
    pub told: Arc<Told>,
    pub service: Link,
    pub device: Link,
}

/// As many pipes as there are permits come at once.
pub async fn across(permits: usize) -> Across {
    let (network, accepts) = Network::new(usize::MAX);
    let mut outcomes = serve(network.clone(), Sessions::new(Config::default()), accepts);
    let gate = Arc::new(Semaphore::new(permits));
    let (service, told) = gated(&network, &gate).await;
    let device = first_link(&mut outcomes).await;
    Across { network, gate, told, service, device }
}

/// Waits until everybody waits: the clock, which is paused, goes on only then.
pub async fn quiet() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Says a word on a new stream.
pub async fn says(from: &Link, to: &Link) {
    let (mut send, _recv) = from.open_bi().await.unwrap();
    send.write_all(b"fine").await.unwrap();
    let (_answer, mut question) = to.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "fine");
}
