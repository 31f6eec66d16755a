//! Sessions that outlive their pipes: cut anywhere, resumed over the next one, and nobody who reads or writes notices.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/bridge.rs"]
mod bridge;
mod common;

use std::sync::Arc;
use std::time::Duration;

use bridge::{NAME, Network, first_link, gated, nameless, quiet, says, secret, serve};
use common::{config, pattern};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use towline_transports::tls::{self, TlsPipe};
use towline_transports::{
    AcceptError, Accepted, Code, Config, Link, LinkClosed, Refused, Resumption, Secret, SendStream,
    SessionId, Sessions,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_once_and_in_order_however_often_the_pipe_is_cut() {
    const BYTES: usize = 4 << 20;
    let (network, accepts) = Network::new(300_000);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions, accepts);
    let service = network.service(NAME, |_| ()).await;
    let opened = tokio::spawn({
        let service = service.clone();
        async move {
            let (mut send, mut recv) = service.open_bi().await.unwrap();
            let says = tokio::spawn(async move {
                send.write_all(&pattern(BYTES)).await.unwrap();
                send.finish().unwrap();
            });
            let heard = recv.read_to_end(2 * BYTES).await.unwrap();
            says.await.unwrap();
            heard
        }
    });
    let device = first_link(&mut outcomes).await;
    let (mut send, mut recv) = device.accept_bi().await.unwrap();
    let says = tokio::spawn(async move {
        send.write_all(&pattern(BYTES)).await.unwrap();
        send.finish().unwrap();
    });
    assert!(recv.read_to_end(2 * BYTES).await.unwrap() == pattern(BYTES));
    says.await.unwrap();
    assert!(opened.await.unwrap() == pattern(BYTES));
    assert!(network.pipes() > 20, "{} pipes", network.pipes());
    service.close(Code::from(3), "done");
    assert!(matches!(service.closed().await, LinkClosed::Local(_)));
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::from(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_nothing_is_there_after_the_next_pipe() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let service = network.service(NAME, |_| ()).await;
    let device = first_link(&mut outcomes).await;
    let (mut send, mut recv) = service.open_bi().await.unwrap();
    send.write_all(b"before").await.unwrap();
    let (mut answer, mut question) = device.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "before");
    for round in 0..10 {
        network.cut();
        assert!(matches!(outcomes.recv().await.unwrap(), Ok(Accepted::Resumed)), "{round}");
        answer.write_all(b"after").await.unwrap();
        let mut heard = [0; 5];
        recv.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"after");
    }
    assert_eq!((network.pipes(), sessions.count()), (11, 1));
}

/// `no_stall`: the room that a stream gives back is there for others at once, also while there is no pipe.
#[tokio::test(start_paused = true)]
async fn who_waits_for_room_hears_of_it_without_a_pipe() {
    let (network, accepts) = Network::new(usize::MAX);
    let mut outcomes = serve(network.clone(), Sessions::new(Config::default()), accepts);
    let (service, _) = gated(&network, &Arc::new(Semaphore::new(0))).await;
    let _device = first_link(&mut outcomes).await;
    let mut senders = Vec::new();
    for _ in 0..20 {
        let (mut send, _) = service.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        senders.push(send);
    }
    network.cut();
    quiet().await;
    let mut full = Vec::new();
    let mut waits = loop {
        let mut send = senders.pop().unwrap();
        // Until the session has no credit left.
        match timeout(Duration::from_secs(1), send.write_all(&pattern(60_000))).await {
            Ok(written) => written.unwrap(),
            Err(_) => break send,
        }
        full.push(send);
    };
    let written = tokio::spawn(async move { waits.write_all(&pattern(1000)).await });
    quiet().await;
    assert!(!written.is_finished());
    drop(full); // which resets them
    timeout(Duration::from_secs(1), written).await.unwrap().unwrap().unwrap();
}

/// The secret is what counts, and what is answered does not tell a wrong one from a session that never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_prove_that_it_is_theirs_is_refused() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions, accepts);
    let service = network.service(NAME, |_| ()).await;
    let device = first_link(&mut outcomes).await;
    // The same name and another secret: a stranger's session, made to resume ours.
    let mut errors = Vec::new();
    for name in [NAME, SessionId([8; SessionId::LEN])] {
        let mut limits = Config::default();
        limits.resumption = Resumption::Offer(name, Secret::new([1; Secret::LEN]));
        // Its first pipe goes to a server of its own.
        let (other, mut theirs) = Network::new(usize::MAX);
        let (first, server) = tokio::join!(other.clone().connect(), async {
            tls::accept(theirs.recv().await.unwrap(), other.server.clone()).await.unwrap()
        });
        let elsewhere = Sessions::new(Config::default());
        let network = network.clone();
        let link = Link::resumable(first, limits, move || network.clone().connect());
        let Accepted::New(_peer) = elsewhere.accept("x", server).await.unwrap() else { panic!("it is new") };
        let (mut send, _recv) = link.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        other.cut();
        assert!(matches!(outcomes.recv().await.unwrap(), Err(AcceptError::Refused(_))));
        errors.push(link.closed().await.to_string());
    }
    assert_eq!(errors[0], errors[1]);
    // Nothing of that has touched the one who was meant.
    let (mut send, _recv) = service.open_bi().await.unwrap();
    send.write_all(b"fine").await.unwrap();
    let (_answer, mut question) = device.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "fine");
}

/// The clock stands still while somebody works, so what takes a minute takes none.
#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_resumes_is_given_up_and_forgotten() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(config(|limits| limits.grace = Duration::from_secs(5)));
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let mut limits = config(|limits| limits.grace = Duration::from_secs(5));
    limits.resumption = Resumption::Offer(NAME, secret());
    let first = network.clone().connect().await;
    let service = Link::resumable(first, limits, std::future::pending::<TlsPipe<DuplexStream>>);
    let device = first_link(&mut outcomes).await;
    let (mut send, _recv) = service.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    device.accept_bi().await.unwrap();
    network.cut();
    let (ours, theirs) = tokio::join!(service.closed(), device.closed());
    for closed in [ours, theirs] {
        assert!(matches!(&closed, LinkClosed::Expired), "{closed}");
    }
    assert_eq!(sessions.count(), 1, "who comes late is told");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sessions.count(), 0);
}

/// Those without a name count as well; and who is turned away is told why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_so_many_sessions_and_no_more() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let mut links = vec![nameless(&network).await, first_link(&mut outcomes).await];
    for number in 1..=255 {
        links.push(network.service(SessionId([number; SessionId::LEN]), |_| ()).await);
        links.push(first_link(&mut outcomes).await);
    }
    let one_more = [network.service(SessionId([0; SessionId::LEN]), |_| ()).await, nameless(&network).await];
    for link in one_more {
        assert!(matches!(outcomes.recv().await.unwrap(), Err(AcceptError::TooMany)));
        let closed = link.closed().await;
        assert!(matches!(&closed, LinkClosed::Peer { reason, .. } if reason.contains("256")), "{closed}");
    }
    assert_eq!(sessions.count(), 256);
}

/// Or it could have any number of them under one name, of which only the last would count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_takes_the_name_of_another() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let first = network.service(NAME, |_| ()).await;
    let device = first_link(&mut outcomes).await;
    let second = network.service(NAME, |_| ()).await;
    assert!(matches!(outcomes.recv().await.unwrap(), Err(AcceptError::NameTaken)));
    let closed = second.closed().await;
    assert!(matches!(&closed, LinkClosed::Peer { reason, .. } if reason.contains("name")), "{closed}");
    // The first one goes on, and is found when it comes back.
    first.renew();
    assert!(matches!(outcomes.recv().await.unwrap(), Ok(Accepted::Resumed)));
    let (mut send, _recv) = first.open_bi().await.unwrap();
    send.write_all(b"fine").await.unwrap();
    let (_answer, mut question) = device.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "fine");
    // Of one that this end has closed, the name is taken for as long as who comes late is told.
    device.close(Code::from(3), "done");
    first.closed().await;
    device.closed().await;
    let _third = network.service(NAME, |_| ()).await;
    assert!(matches!(outcomes.recv().await.unwrap(), Err(AcceptError::NameTaken)));
}

/// Sessions that do not offer to resume are served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_resume_ends_with_its_pipe() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let service = nameless(&network).await;
    let device = first_link(&mut outcomes).await;
    assert_eq!(sessions.count(), 1);
    network.cut();
    for link in [service, device] {
        let closed = timeout(Duration::from_secs(30), link.closed()).await.unwrap();
        assert!(matches!(&closed, LinkClosed::Lost(_)), "{closed}");
    }
    let forgotten = async {
        while sessions.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), forgotten).await.unwrap();
}

/// `one_terminal_event`: nobody is waited for, and what comes later is turned away.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_closed_end_with_their_pipes_and_no_other_begins() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let gate = Arc::new(Semaphore::new(0));
    // One that has no pipe, and one that has.
    let (_away, _) = gated(&network, &gate).await;
    let detached = first_link(&mut outcomes).await;
    network.cut();
    quiet().await;
    let there = network.service(SessionId([1; SessionId::LEN]), |_| ()).await;
    let attached = first_link(&mut outcomes).await;
    sessions.close(Code::from(3), "done").await;
    let closed = detached.closed().await;
    assert!(matches!(&closed, LinkClosed::NoWay(_)), "{closed}");
    let closed = attached.closed().await;
    assert!(matches!(&closed, LinkClosed::Local(_)), "{closed}");
    let closed = there.closed().await;
    assert!(matches!(&closed, LinkClosed::Peer { reason, .. } if reason == "done"), "{closed}");
    let late = network.service(SessionId([2; SessionId::LEN]), |_| ()).await;
    assert!(matches!(outcomes.recv().await.unwrap(), Err(AcceptError::Closed)));
    assert!(matches!(late.closed().await, LinkClosed::Peer { .. }));
}

/// What was to be said is owed for as long as the pipe lasts.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_abandoned_ends_with_its_pipe() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let (service, _) = gated(&network, &Arc::new(Semaphore::new(0))).await;
    let device = first_link(&mut outcomes).await;
    says(&service, &device).await;
    let (mut answer, _question) = device.open_bi().await.unwrap();
    // More than the network holds.
    answer.write_all(&pattern(60_000)).await.unwrap();
    sessions.abandon(Code::from(3), "done");
    network.cut();
    let closed = device.closed().await;
    assert!(matches!(&closed, LinkClosed::NoWay(_)), "{closed}");
}

/// Accepts the next pipe, as one of `peer`'s.
async fn accept(
    network: &Network,
    sessions: &Sessions<DuplexStream>,
    accepts: &mut mpsc::UnboundedReceiver<DuplexStream>,
    peer: &str,
) -> Result<Accepted, AcceptError> {
    let pipe = tls::accept(accepts.recv().await.unwrap(), network.server.clone()).await.unwrap();
    sessions.accept(peer, pipe).await
}

/// Whose it is counts as much as the secret; and neither is told from a session that never was.
#[tokio::test(start_paused = true)]
async fn a_session_of_another_peer_is_as_good_as_none() {
    let (network, mut accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut refusals = Vec::new();
    for (number, comes_back_as) in [(1, "someone else"), (2, "ops"), (3, "ops")] {
        let name = SessionId([number; SessionId::LEN]);
        // The last one comes back to who has never heard of it.
        let there = if number == 3 { Sessions::new(Config::default()) } else { sessions.clone() };
        let first = accept(&network, &sessions, &mut accepts, "ops");
        let (service, accepted) = tokio::join!(network.service(name, |_| ()), first);
        let Ok(Accepted::New(device)) = accepted else { panic!("{accepted:?}") };
        says(&service, &device).await;
        network.cut();
        match accept(&network, &there, &mut accepts, comes_back_as).await {
            Ok(Accepted::Resumed) => says(&service, &device).await,
            Err(AcceptError::Refused(why)) => refusals.push((why, service.closed().await.to_string())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals.len(), 2, "who comes back as themselves goes on");
    assert_eq!(refusals[0], refusals[1]);
    assert_eq!(refusals[0].0, Refused::Unknown);
}

/// A session of which five bytes have arrived, and may not have been acknowledged; its ends, and who has sent them.
async fn five_bytes(
    network: &Arc<Network>,
    gate: &Arc<Semaphore>,
    outcomes: &mut mpsc::UnboundedReceiver<Result<Accepted, AcceptError>>,
) -> (Link, Link, SendStream) {
    let (service, _) = gated(network, gate).await;
    let device = first_link(outcomes).await;
    let (mut send, _recv) = service.open_bi().await.unwrap();
    send.write_all(b"five!").await.unwrap();
    let (_answer, mut question) = device.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "five!");
    (service, device, send)
}

/// `closed_truth`: after a valid proof the caller reads how it ended, and what had been delivered.
#[tokio::test(start_paused = true)]
async fn who_comes_back_to_a_session_that_was_closed_reads_so_and_what_was_delivered() {
    let (network, accepts) = Network::new(usize::MAX);
    let mut outcomes = serve(network.clone(), Sessions::new(Config::default()), accepts);
    let gate = Arc::new(Semaphore::new(0));
    let (service, device, send) = five_bytes(&network, &gate, &mut outcomes).await;
    assert_eq!(send.acknowledged(), Some(0), "it comes later");
    network.cut();
    quiet().await;
    device.close(Code::from(3), "done");
    // Nobody comes to hear it before the close timeout is over.
    device.closed().await;
    gate.add_permits(10);
    let closed = service.closed().await;
    assert!(
        matches!(&closed, LinkClosed::NotResumed(Refused::Closed(code)) if *code == Code::from(3)),
        "{closed}"
    );
    assert_eq!(closed.to_string(), "the session was not resumed: the peer closed the session with code 0x3");
    assert_eq!(send.acknowledged(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_to_a_session_that_was_given_up_reads_so_and_what_was_delivered() {
    let (network, accepts) = Network::new(usize::MAX);
    let sessions = Sessions::new(Config::default());
    let mut outcomes = serve(network.clone(), sessions.clone(), accepts);
    let gate = Arc::new(Semaphore::new(10));
    let (service, device, send) = five_bytes(&network, &gate, &mut outcomes).await;
    assert_eq!(send.acknowledged(), Some(0), "it comes later");
    // This end finds out only when nothing has come for a while.
    network.half_cut.notify_one();
    quiet().await;
    sessions.abandon(Code::from(3), "done");
    assert!(matches!(device.closed().await, LinkClosed::NoWay(_)));
    let closed = service.closed().await;
    assert!(matches!(&closed, LinkClosed::NotResumed(Refused::Expired)), "{closed}");
    let text = "the session was not resumed: the peer gave the session up before it was resumed";
    assert_eq!(closed.to_string(), text);
    assert_eq!(send.acknowledged(), Some(5));
}
