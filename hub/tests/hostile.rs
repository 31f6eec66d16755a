//! Bad input: a clear end for whoever sends it, and nobody else disturbed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::honest::{Honest, SOON, is_hung_up_on};
use common::{World, hello, online, until};
use minicbor::Encode;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use towline::agent::{self, Target};
use towline::core::Limits;
use towline::message::{self, Answer, Goodbye, Hello, List, Open, Profile, Request};
use towline::refusal::{MAX_TEXT, Refusal, RefusalCode};
use towline::{Device, Hub, OpenError, Service, Transport, codes, link_config};
use towline_transports::tls::{self, Credentials};
use towline_transports::{Config, Link, LinkClosed, Network, RecvStream, SendStream, Side, TcpNetwork};

#[tokio::test]
async fn random_bytes_on_the_hubs_port() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let mut random = 0x1234_5678_9abc_def1_u64;
    for round in 0..50 {
        let mut socket = honest.dial().await;
        let mut noise = vec![0; round * 37];
        for byte in &mut noise {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = random.to_le_bytes()[0];
        }
        if round % 2 == 0 {
            // As if a TLS record began.
            noise.splice(0..0, [0x16, 0x03, 0x01, 0x02, 0x00]);
        }
        let _ = socket.write_all(&noise).await;
        let _ = socket.shutdown().await;
        is_hung_up_on(socket).await;
    }
    honest.check().await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_dropped_at_the_handshake_deadline() {
    let world = World::new();
    let limits = Limits::default().handshake(Duration::from_millis(300));
    let honest = Honest::new(&world, limits).await;
    // Before TLS, and within it, and after it without a hello.
    is_hung_up_on(honest.dial().await).await;
    let mut half = honest.dial().await;
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    is_hung_up_on(half).await;
    let link = raw_link(&world, &honest, world.credentials("device/silent")).await.unwrap();
    let closed = timeout(SOON, link.closed()).await.unwrap();
    assert!(matches!(closed, LinkClosed::Peer { code, .. } if code == codes::NO_HELLO), "{closed}");
    until(|| honest.hub.stats().unauthenticated == 0).await;
    honest.check().await;
}

/// A link with valid TLS on which nothing was said yet.
async fn raw_link(
    world: &World,
    honest: &Honest,
    credentials: Credentials,
) -> Result<Link, tls::HandshakeError> {
    raw_link_with(world, honest, credentials, link_config(Side::Client)).await
}

/// The same, with limits of its own.
async fn raw_link_with(
    world: &World,
    honest: &Honest,
    credentials: Credentials,
    limits: Config,
) -> Result<Link, tls::HandshakeError> {
    world.raw_link(honest.hub.local_addr(), credentials, limits).await
}

/// Asks for a tunnel to a device that echoes.
fn open(device: &str) -> Request {
    let (device, service) = (device.to_owned(), "echo".to_owned());
    Request::Open(Open { device, service, profile: Profile::Native, deadline_ms: 1000, wait_ms: None })
}

/// Says something on a new stream, and reads the answer.
async fn ask(link: &Link, request: &impl Encode<()>) -> Result<Answer, message::MessageError> {
    let (mut send, mut recv) = link.open_bi().await?;
    message::write(&mut send, request).await?;
    timeout(SOON, message::read(&mut recv)).await.expect("an answer")
}

fn refused(answer: Result<Answer, message::MessageError>) -> RefusalCode {
    match answer {
        Ok(Answer::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_is_told_why_it_gets_nowhere() {
    let (world, elsewhere) = (World::new(), World::new());
    let honest = Honest::new(&world, Limits::default()).await;
    // A wrong authority: the hub ends the link with an alert.
    let mut credentials = elsewhere.credentials("device/stranger");
    credentials.roots = world.credentials("device/x").roots;
    let link = raw_link(&world, &honest, credentials).await.unwrap();
    let LinkClosed::Lost(error) = timeout(SOON, link.closed()).await.unwrap() else { panic!("lost") };
    let reason = tls::refused_certificate(tls::as_tls(&error).unwrap());
    assert_eq!(reason, Some("the certificate is of an authority that it does not trust"));
    // And the library says it in a sentence.
    let mut config = elsewhere.endpoint("service/stranger", &honest.hub);
    config.credentials.roots = world.credentials("device/x").roots;
    let service = Service::new(config, world.environment.clone()).unwrap();
    let error = service.open("press-7", "echo").await.unwrap_err().to_string();
    assert!(error.contains("refuses this end: the certificate is of an authority"), "{error}");
    // Whom the hub itself does not satisfy says so, too.
    let service =
        Service::new(elsewhere.endpoint("service/x", &honest.hub), world.environment.clone()).unwrap();
    let error = service.open("press-7", "echo").await.unwrap_err().to_string();
    assert!(error.contains("is not a hub that this end trusts"), "{error}");
    honest.check().await;
}

#[tokio::test]
async fn a_hub_of_another_trust_domain_gets_no_hello() {
    let world = World::new();
    let hub = world.hub_of(world.credentials_in("elsewhere", "hub/h")).await;
    let error = world.service("ops", &hub).open("press-7", "echo").await.unwrap_err().to_string();
    let shows = format!("{} shows the certificate of spiffe://elsewhere/hub/h, and", hub.local_addr());
    assert!(error.starts_with(&shows), "{error}");
}

#[tokio::test]
async fn a_device_cannot_do_what_a_service_does() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("device/curious")).await.unwrap();
    assert!(matches!(ask(&link, &hello()).await, Ok(Answer::Accepted(_))));
    assert_eq!(refused(ask(&link, &open("press-7")).await), RefusalCode::Forbidden);
    assert_eq!(refused(ask(&link, &Request::List(List {})).await), RefusalCode::Forbidden);
    assert_eq!(refused(ask(&link, &hello()).await), RefusalCode::BadRequest, "hello, twice");
    // A hub's certificate is for being one.
    let link = raw_link(&world, &honest, world.credentials("hub/other")).await;
    if let Ok(link) = link {
        let answer = ask(&link, &hello()).await;
        assert!(answer.is_err() || refused(answer) == RefusalCode::Forbidden);
    }
    honest.check().await;
}

#[tokio::test]
async fn only_a_service_may_open_many_streams() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    for (who, may) in [("device/busy", false), ("service/busy", true)] {
        let link = raw_link(&world, &honest, world.credentials(who)).await.unwrap();
        let mut opened = vec![link.open_bi().await.unwrap(), link.open_bi().await.unwrap()];
        // The hub's limits are known with the second stream: to open one more takes no time, or all of it.
        let many = loop {
            tokio::select! {
                biased;
                streams = link.open_bi() => opened.push(streams.unwrap()),
                () = std::future::ready(()) => break false,
            }
            if opened.len() > 100 {
                break true;
            }
        };
        assert_eq!(many, may, "{who} opened {}", opened.len());
    }
    honest.check().await;
}

#[tokio::test]
async fn a_link_that_begins_with_anything_but_hello_is_refused() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("service/hasty")).await.unwrap();
    assert_eq!(refused(ask(&link, &Request::List(List {})).await), RefusalCode::BadRequest);
    let closed = timeout(SOON, link.closed()).await.unwrap();
    assert!(matches!(closed, LinkClosed::Peer { code, .. } if code == codes::REFUSED), "{closed}");
    honest.check().await;
}

/// Writes raw bytes on a new stream of a link that has said hello.
async fn write_raw(link: &Link, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, recv) = link.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, recv)
}

#[tokio::test]
async fn a_device_that_takes_no_answer_to_its_hello_is_not_online() {
    let world = World::new();
    let limits = Limits::default().handshake(Duration::from_secs(1));
    let honest = Honest::new(&world, limits).await;
    let registered = || (honest.hub.stats().devices, honest.hub.stats().links);
    let before = registered();
    let mut deaf = link_config(Side::Client);
    deaf.stream_window = 0;
    let link = raw_link_with(&world, &honest, world.credentials("device/deaf"), deaf).await.unwrap();
    let (mut send, _recv) = link.open_bi().await.unwrap();
    message::write(&mut send, &hello()).await.unwrap();
    timeout(SOON, link.closed()).await.expect("the hub hangs up");
    until(|| registered() == before).await;
    assert!(honest.service.devices().await.unwrap().iter().any(|d| d.device == "deaf" && !d.online));
    honest.check().await;
}

#[tokio::test]
async fn a_device_that_takes_no_goodbye_is_dismissed_all_the_same() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let mut deaf = link_config(Side::Client);
    // As many bytes as the answer to the hello has.
    deaf.stream_window = 5;
    let link = raw_link_with(&world, &honest, world.credentials("device/deaf"), deaf).await.unwrap();
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    message::write(&mut send, &hello()).await.unwrap();
    until(|| honest.hub.stats().devices == 2).await;
    let _newer = world.device("deaf", &honest.hub).await;
    let closed = timeout(SOON, link.closed()).await.expect("the hub hangs up");
    assert!(matches!(closed, LinkClosed::Peer { code, .. } if code == codes::DISMISSED), "{closed}");
    assert!(matches!(message::read(&mut recv).await, Ok(Answer::Accepted(_))));
    honest.check().await;
}

#[tokio::test]
async fn a_request_after_the_goodbye_is_answered() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("service/late")).await.unwrap();
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    message::write(&mut send, &hello()).await.unwrap();
    assert!(matches!(message::read(&mut recv).await, Ok(Answer::Accepted(_))));
    let Honest { hub, .. } = honest;
    let hour = Duration::from_secs(3600);
    let _drain = tokio::spawn(hub.drain(Duration::from_secs(1), hour));
    let goodbye: Goodbye = timeout(SOON, message::read(&mut recv)).await.unwrap().unwrap();
    assert_eq!(goodbye.refusal.code, RefusalCode::HubDraining);
    for request in [open("press-7"), Request::List(List {})] {
        assert_eq!(refused(ask(&link, &request).await), RefusalCode::HubDraining, "{request:?}");
    }
}

#[tokio::test]
async fn a_drain_that_is_over_has_closed_every_link() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("service/stays")).await.unwrap();
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    message::write(&mut send, &hello()).await.unwrap();
    assert!(matches!(message::read(&mut recv).await, Ok(Answer::Accepted(_))));
    let Honest { hub, .. } = honest;
    hub.drain(Duration::from_secs(1), Duration::ZERO).await;
    assert!(link.is_closed(), "whoever ends the program now cuts off nobody");
    assert!(matches!(link.closed().await, LinkClosed::Peer { code, .. } if code == codes::NONE));
}

#[tokio::test]
async fn malformed_and_oversized_messages_are_refused_one_by_one() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("service/sloppy")).await.unwrap();
    assert!(matches!(ask(&link, &hello()).await, Ok(Answer::Accepted(_))));
    for (bytes, why) in [
        (&[0xff, 0xff][..], "65,535 bytes"),
        (&[0x10, 0x01], "one byte too many"),
        (&[0x00, 0x00], "nothing"),
        (&[0x00, 0x04, 0xff, 0xff, 0xff, 0xff], "no CBOR"),
        (&[0x00, 0x03, 0x82, 0x63, 0xa0], "an unknown request"),
        (&[0x00, 0x04, 0x82, 0x02, 0xa0, 0x00], "bytes after the message"),
    ] {
        let (_send, mut recv) = write_raw(&link, bytes).await;
        let answer = timeout(SOON, message::read(&mut recv)).await.unwrap();
        assert_eq!(refused(answer), RefusalCode::BadRequest, "{why}");
    }
    // One that ends in the middle, and one that is reset.
    let (mut send, mut recv) = write_raw(&link, &[0x00, 0x10, 0x82]).await;
    send.finish().unwrap();
    assert_eq!(refused(message::read(&mut recv).await), RefusalCode::BadRequest);
    drop(write_raw(&link, &[0x00, 0x10, 0x82]).await);
    // The link lives on: each was answered on its own stream.
    assert!(matches!(ask(&link, &Request::List(List {})).await, Ok(Answer::Accepted(_))));
    honest.check().await;
}

#[tokio::test]
async fn a_device_that_answers_nonsense_is_the_tunnels_end_and_not_the_hubs() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("device/odd")).await.unwrap();
    assert!(matches!(ask(&link, &hello()).await, Ok(Answer::Accepted(_))));
    let odd = tokio::spawn(async move {
        for bytes in [&[0xff, 0xff, 1][..], &[0x00, 0x01, 0xff], &[]] {
            let (mut send, mut recv) = link.accept_bi().await.unwrap();
            let _: message::Offer = message::read(&mut recv).await.unwrap();
            send.write_all(bytes).await.unwrap();
            let _ = send.finish();
        }
        link.closed().await;
    });
    for _ in 0..3 {
        match honest.service.open("odd", "x").await {
            Err(OpenError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Rejected),
            other => panic!("{other:?}"),
        }
    }
    odd.abort();
    honest.check().await;
}

#[tokio::test]
async fn a_device_that_talks_too_much_is_cut_short() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let link = raw_link(&world, &honest, world.credentials("device/chatty")).await.unwrap();
    // As long as a message can be, so that a list with all of it in it would be longer.
    let agent = "\u{1f99c}".repeat(1020);
    let hello = Request::Hello(Hello { version: message::VERSION, instance: 1, agent });
    assert!(matches!(ask(&link, &hello).await, Ok(Answer::Accepted(_))));
    let devices = honest.service.devices().await.unwrap();
    let chatty = devices.iter().find(|device| device.device == "chatty").unwrap();
    assert_eq!(chatty.agent, "\u{1f99c}".repeat(message::MAX_AGENT));

    let opened = tokio::spawn({
        let service = honest.service.clone();
        async move { service.open("chatty", "x").await }
    });
    let (mut send, mut recv) = link.accept_bi().await.unwrap();
    let _: message::Offer = message::read(&mut recv).await.unwrap();
    let text = "\u{1f99c}".repeat(1000);
    let refusal = Refusal { code: RefusalCode::Rejected, text, retry_after_ms: None };
    message::write(&mut send, &Answer::Refused(refusal)).await.unwrap();
    match opened.await.unwrap() {
        Err(OpenError::Refused(refusal)) => assert_eq!(refusal.text, "\u{1f99c}".repeat(MAX_TEXT)),
        other => panic!("{other:?}"),
    }
    honest.check().await;
}

/// A device whose agent offers exactly these targets.
async fn agent(world: &World, hub: &Hub, targets: &[String]) {
    let config = world.endpoint("device/agent", hub);
    let mut device = Device::register(config, world.environment.clone()).unwrap();
    online(&device).await;
    let targets = targets.iter().map(|target| target.parse::<Target>().unwrap()).collect();
    let environment = world.environment.clone();
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
}

#[tokio::test]
async fn targets_that_refuse_hang_or_cannot_be_routed() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    // A server that accepts nothing: once its queue is full, connections to it hang.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(socket)) =
        timeout(Duration::from_millis(300), TcpNetwork.connect(&address.to_string())).await
    {
        queued.push(socket);
    }
    let targets = [
        "refuses=127.0.0.1:1".to_owned(),
        format!("hangs={address}"),
        "nowhere=255.255.255.255:9".to_owned(),
        "nameless=does-not-exist.invalid:80".to_owned(),
    ];
    agent(&world, &honest.hub, &targets).await;
    let code = |name: &'static str| {
        let service = honest.service.clone();
        async move {
            match service.open("agent", name).await {
                Err(OpenError::Refused(refusal)) => refusal.code,
                other => panic!("{name}: {other:?}"),
            }
        }
    };
    assert_eq!(code("refuses").await, RefusalCode::TargetRefused);
    assert_eq!(code("nowhere").await, RefusalCode::TargetUnreachable);
    assert_eq!(code("nameless").await, RefusalCode::TargetUnreachable);
    assert_eq!(code("unheard-of").await, RefusalCode::ServiceUnknown);
    assert_eq!(code("hangs").await, RefusalCode::TargetTimedOut);
    honest.check().await;
}

#[tokio::test]
async fn the_oldest_of_too_many_visitors_is_dropped_first() {
    let world = World::new();
    // Nobody is dropped because its handshake takes too long.
    let limits = Limits::default().unauthenticated(5).handshake(Duration::from_secs(600));
    let honest = Honest::new(&world, limits).await;
    let first = honest.dial().await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(honest.dial().await);
    }
    is_hung_up_on(first).await;
    assert!(honest.hub.stats().unauthenticated <= 5);
    honest.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_to_a_full_hub_waits_and_nobody_is_dropped_in_the_middle_of_a_handshake() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default().unauthenticated(1)).await;
    let mut visits = tokio::task::JoinSet::new();
    for number in 0..20 {
        let mut config = world.endpoint(&format!("service/visitor-{number}"), &honest.hub);
        // Who is dropped has no other way in.
        config.route.transport = Some(Transport::Tls);
        let service = Service::new(config, world.environment.clone()).unwrap();
        visits.spawn(async move { service.open("press-7", "echo").await.map(|_| ()) });
    }
    for outcome in timeout(SOON, visits.join_all()).await.unwrap() {
        outcome.unwrap();
    }
    until(|| honest.hub.stats().unauthenticated == 0).await;
    honest.check().await;
}
