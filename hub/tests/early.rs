//! What a service says before the device has answered: where it goes, and where it waits.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{World, hello, until};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use towline::message::{self, Accepted, Answer, Offer, Profile};
use towline::refusal::{Refusal, RefusalCode};
use towline::{Hub, OpenError, OpenOptions, Opening, Service, SessionOptions, link_config};
use towline_transports::{Link, RecvStream, SendStream, Side};

/// As much goes to a device before it has accepted (PROTOCOL §5.7).
const EARLY: usize = 4096;

/// After this long something hangs.
const SOON: Duration = Duration::from_secs(20);

/// A device that does by hand what others have done for them.
struct ByHand {
    link: Link,
    /// The stream of its hello.
    _control: (SendStream, RecvStream),
}

impl ByHand {
    async fn online(world: &World, hub: &Hub) -> Self {
        let credentials = world.credentials("device/press-7");
        let link = world.raw_link(hub.local_addr(), credentials, link_config(Side::Client)).await.unwrap();
        let (mut send, mut recv) = link.open_bi().await.unwrap();
        message::write(&mut send, &hello()).await.unwrap();
        let answer: Answer = timeout(SOON, message::read(&mut recv)).await.unwrap().unwrap();
        assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
        Self { link, _control: (send, recv) }
    }

    /// The next offer, which is not answered yet.
    async fn offer(&self) -> (Offer, SendStream, RecvStream) {
        let (send, mut recv) = timeout(SOON, self.link.accept_bi()).await.unwrap().unwrap();
        let offer = timeout(SOON, message::read(&mut recv)).await.unwrap().unwrap();
        (offer, send, recv)
    }
}

/// A hub with such a device, and a service that would use it.
async fn scene() -> (World, Hub, ByHand, Service) {
    let world = World::new();
    let hub = world.hub().await;
    let device = ByHand::online(&world, &hub).await;
    let service = world.service("ops", &hub);
    (world, hub, device, service)
}

async fn accept(offer: &Offer, send: &mut SendStream) {
    let accepted = Accepted { tunnel: Some(offer.tunnel) };
    message::write(send, &Answer::Accepted(accepted)).await.unwrap();
}

/// Asks for a tunnel, and says something in it at once.
async fn ask(service: &Service, profile: Profile, wait: Duration, words: &[u8]) -> Opening {
    let mut options = OpenOptions::default();
    (options.profile, options.wait) = (profile, wait);
    let mut opening = service.begin("press-7", "x", options).await.unwrap();
    opening.send.write_all(words).await.unwrap();
    opening
}

async fn hears(recv: &mut RecvStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    timeout(SOON, recv.read_exact(&mut heard)).await.expect("it comes").unwrap();
    assert_eq!(heard, words);
}

#[tokio::test]
async fn what_begins_a_session_does_not_wait_for_the_answer() {
    let (_world, _hub, device, service) = scene().await;
    // A tunnel of another kind is asked for first: had its words not waited, they would be there first.
    let words = b"what a program is told".as_slice();
    let native = ask(&service, Profile::Native, Duration::ZERO, words).await;
    let (native_offer, mut native_send, mut native_recv) = device.offer().await;
    let opening = ask(&service, Profile::EndToEnd, Duration::ZERO, b"client hello").await;
    let (offer, mut send, mut recv) = device.offer().await;
    hears(&mut recv, b"client hello").await;
    assert!(native_recv.read_chunk(1).now_or_never().is_none());
    accept(&offer, &mut send).await;
    send.write_all(b"server hello").await.unwrap();
    let mut tunnel = opening.answered().await.unwrap();
    let mut heard = [0; 12];
    timeout(SOON, tunnel.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"server hello");
    // And the rest, once.
    tunnel.write_all(b"finished").await.unwrap();
    tunnel.shutdown().await.unwrap();
    hears(&mut recv, b"finished").await;
    assert_eq!(timeout(SOON, recv.read_chunk(1)).await.unwrap().unwrap(), None);

    accept(&native_offer, &mut native_send).await;
    native.answered().await.unwrap().shutdown().await.unwrap();
    hears(&mut native_recv, words).await;
    assert_eq!(timeout(SOON, native_recv.read_chunk(1)).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_session_begins_tls_before_its_tunnel_is_there() {
    let world = World::new();
    let (hub, another) = (world.hub().await, world.hub().await);
    let device = ByHand::online(&world, &hub).await;
    let endpoint = |hub| world.endpoint("service/ops", hub);
    for hubs in [vec![endpoint(&hub)], vec![endpoint(&hub), endpoint(&another)]] {
        let service = Service::of_hubs(hubs, world.environment.clone()).unwrap();
        let session = service.session("press-7", "x", SessionOptions::default());
        let asked = async {
            let (_offer, _send, mut recv) = device.offer().await;
            // A record of TLS, with a handshake's message in it.
            hears(&mut recv, &[0x16, 0x03, 0x01]).await;
        };
        tokio::select! {
            () = asked => {}
            session = session => panic!("{session:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_refused_hears_why_whatever_was_said_early() {
    let (_world, _hub, device, service) = scene().await;
    let mut opening = ask(&service, Profile::EndToEnd, Duration::ZERO, b"client ").await;
    let (_, mut send, mut recv) = device.offer().await;
    hears(&mut recv, b"client ").await;
    // In pieces, too; and then nothing more comes.
    opening.send.write_all(b"hello").await.unwrap();
    opening.send.finish().unwrap();
    hears(&mut recv, b"hello").await;
    let refusal = Refusal::new(RefusalCode::ServiceUnknown, "there is no x");
    message::write(&mut send, &Answer::Refused(refusal)).await.unwrap();
    let error = timeout(SOON, opening.answered()).await.unwrap().unwrap_err();
    let OpenError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.code, &refusal.text[..]), (RefusalCode::ServiceUnknown, "there is no x"));
}

#[tokio::test]
async fn a_device_that_is_lost_while_it_is_asked_hears_it_again() {
    let (world, hub, device, service) = scene().await;
    let opening = ask(&service, Profile::EndToEnd, Duration::from_secs(60), b"client hello").await;
    let (_, _send, mut recv) = device.offer().await;
    hears(&mut recv, b"client hello").await;
    device.link.close(towline::codes::NONE, "");
    until(|| hub.stats().devices == 0).await;

    let device = ByHand::online(&world, &hub).await;
    let (offer, mut send, mut recv) = device.offer().await;
    hears(&mut recv, b"client hello").await;
    accept(&offer, &mut send).await;
    let mut tunnel = timeout(SOON, opening.answered()).await.unwrap().unwrap();
    tunnel.write_all(b"finished").await.unwrap();
    hears(&mut recv, b"finished").await;
}

/// Nothing is lost, doubled or out of order.
#[tokio::test]
async fn what_is_too_much_to_go_early_follows_the_answer() {
    let (_world, _hub, device, service) = scene().await;
    let words = common::pattern(20_000);
    let opening = ask(&service, Profile::EndToEnd, Duration::ZERO, &words).await;
    let (offer, mut send, mut recv) = device.offer().await;
    hears(&mut recv, &words[..EARLY]).await;
    // What is said later in another tunnel has overtaken the rest.
    let _later = ask(&service, Profile::EndToEnd, Duration::ZERO, b"later").await;
    let (_offer, _send, mut other) = device.offer().await;
    hears(&mut other, b"later").await;
    assert!(recv.read_chunk(1).now_or_never().is_none());
    accept(&offer, &mut send).await;
    let mut tunnel = opening.answered().await.unwrap();
    tunnel.shutdown().await.unwrap();
    hears(&mut recv, &words[EARLY..]).await;
    assert_eq!(timeout(SOON, recv.read_chunk(1)).await.unwrap().unwrap(), None);
}
