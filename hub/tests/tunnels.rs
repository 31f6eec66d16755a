//! Tunnels through a real hub on loopback, with devices and services as libraries.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{World, online, pattern, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use towline::core::Limits;
use towline::message::Profile;
use towline::policy::{AllowAll, Rules};
use towline::refusal::{Refusal, RefusalCode};
use towline::{Device, OpenError, OpenOptions, Service, Status, Transport, Tunnel};

const SOON: Duration = Duration::from_secs(20);

/// A device that answers every offer with an echo until the end.
fn echo(mut device: Device) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let offer = device.next_offer().await;
            tokio::spawn(async move {
                let tunnel = offer.accept().await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(tunnel);
                if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                    writer.shutdown().await.unwrap();
                }
            });
        }
    })
}

fn code(outcome: Result<Tunnel, OpenError>) -> RefusalCode {
    match outcome {
        Err(OpenError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_ends() {
    let world = World::new();
    let hub = world.hub().await;
    let device = world.device("press-7", &hub).await;
    assert_eq!(device.identity().to_string(), "spiffe://test/device/press-7");
    let echo = echo(device);
    let service = world.service("ops", &hub);
    for count in [0, 1, 100_000, 3 << 20] {
        let tunnel = service.open("press-7", "echo").await.unwrap();
        let (mut send, mut recv) = tunnel.into_split();
        let write = async {
            send.write_all(&pattern(count)).await.unwrap();
            send.finish().unwrap();
        };
        let ((), read) = tokio::join!(write, recv.read_to_end(4 << 20));
        assert!(read.unwrap() == pattern(count));
    }
    echo.abort();
}

#[tokio::test]
async fn many_tunnels_at_once() {
    let world = World::new();
    let hub = world.hub().await;
    let _echo = echo(world.device("press-7", &hub).await);
    let service = world.service("ops", &hub);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..150 {
        let service = service.clone();
        tasks.spawn(async move {
            let mut tunnel = service.open("press-7", "echo").await.unwrap();
            tunnel.write_all(&pattern(n * 100)).await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut read = Vec::new();
            tunnel.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, pattern(n * 100));
        });
    }
    tasks.join_all().await;
    until(|| hub.stats().tunnels == 0).await;
}

#[tokio::test]
async fn the_service_learns_one_exact_outcome() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let answer = tokio::spawn(async move {
        let mut ignored = Vec::new();
        loop {
            let offer = device.next_offer().await;
            match offer.service.as_str() {
                "rejected" => offer.reject("not today").await,
                "refused" => {
                    offer.refuse(Refusal::new(RefusalCode::TargetRefused, "127.0.0.1:22")).await;
                }
                "dropped" => drop(offer),
                "ignored" => ignored.push(offer),
                _ => offer.refuse(Refusal::new(RefusalCode::ServiceUnknown, "no such service")).await,
            }
        }
    });
    let open = |device: &'static str, name: &'static str| {
        let service = service.clone();
        async move { service.open(device, name).await }
    };
    assert_eq!(code(open("press-8", "ssh").await), RefusalCode::DeviceUnknown);
    assert_eq!(code(open("a/b", "ssh").await), RefusalCode::BadRequest);
    let long = "x".repeat(5000);
    assert_eq!(code(service.open(&long, "ssh").await), RefusalCode::BadRequest);
    assert_eq!(code(service.open("press-7", &long).await), RefusalCode::BadRequest);
    assert_eq!(code(open("press-7", "ssh").await), RefusalCode::ServiceUnknown);
    assert_eq!(code(open("press-7", "refused").await), RefusalCode::TargetRefused);
    assert_eq!(code(open("press-7", "dropped").await), RefusalCode::Rejected);
    let error = open("press-7", "rejected").await.unwrap_err().to_string();
    assert_eq!(error, "rejected by the device: not today; ask the device's owner");

    let mut options = OpenOptions::default();
    options.deadline = Duration::from_millis(200);
    let opening = service.begin("press-7", "ignored", options).await.unwrap();
    assert_eq!(code(opening.answered().await), RefusalCode::DeadlinePassed);
    answer.abort();
    let _ = answer.await;
    until(|| hub.stats().devices == 0).await;
    assert_eq!(code(open("press-7", "ssh").await), RefusalCode::DeviceOffline);
    until(|| hub.stats().tunnels == 0).await;
}

#[tokio::test]
async fn limits_and_policy_hold() {
    let world = World::new();
    let limits = Limits::default().tunnels_per_device(2).opens(1, 4);
    let rules = Rules(vec!["ops:press-*:echo".parse().unwrap()]);
    let hub = world.hub_with("127.0.0.1:0", limits, Box::new(rules)).await;
    let _echo = echo(world.device("press-7", &hub).await);
    let service = world.service("ops", &hub);
    assert_eq!(code(service.open("press-7", "ssh").await), RefusalCode::Forbidden);
    let first = service.open("press-7", "echo").await.unwrap();
    let _second = service.open("press-7", "echo").await.unwrap();
    assert_eq!(code(service.open("press-7", "echo").await), RefusalCode::TooManyTunnels);
    assert_eq!(code(service.open("press-7", "echo").await), RefusalCode::RateLimited);
    drop(first);
    let stranger = world.service("stranger", &hub);
    assert_eq!(code(stranger.open("press-7", "echo").await), RefusalCode::Forbidden);
}

#[tokio::test]
async fn a_certificate_of_the_wrong_role_gets_nowhere() {
    let world = World::new();
    let hub = world.hub().await;
    let device = world.endpoint("device/press-7", &hub);
    let error = Service::new(device, world.environment.clone()).unwrap_err().to_string();
    assert_eq!(
        error,
        "this is the certificate of spiffe://test/device/press-7, but it takes one of a service"
    );
    let service = world.endpoint("service/ops", &hub);
    assert!(Device::register(service, world.environment.clone()).is_err());
}

#[tokio::test]
async fn the_newer_holder_of_an_identity_wins() {
    let world = World::new();
    let hub = world.hub().await;
    let older = world.device("press-7", &hub).await;
    let newer = world.device("press-7", &hub).await;
    let mut status = older.status();
    let waiting = status.wait_for(|status| matches!(status, Status::Waiting { .. })).await.unwrap().clone();
    let Status::Waiting { why, wait } = waiting else { unreachable!() };
    assert!(wait >= Duration::from_secs(30), "{wait:?}");
    assert!(why.starts_with("superseded: another holder of the identity of press-7 has connected;"), "{why}");
    let _echo = echo(newer);
    let service = world.service("ops", &hub);
    assert!(service.open("press-7", "echo").await.is_ok());
    let devices = service.devices().await.unwrap();
    assert_eq!((devices.len(), devices[0].online, devices[0].takeovers), (1, true, 1));
}

#[tokio::test]
async fn a_device_comes_back_when_the_hub_does() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    let device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    service.devices().await.unwrap();
    drop(hub);
    let mut status = device.status();
    status.wait_for(|status| !matches!(status, Status::Online)).await.unwrap();
    let hub = world.hub_with(&address, Limits::default(), Box::new(AllowAll)).await;
    online(&device).await;
    let _echo = echo(device);
    assert!(service.open("press-7", "echo").await.is_ok(), "and the service connects anew by itself");
    drop(hub);
}

#[tokio::test]
async fn a_draining_hub_says_when_to_come_back() {
    let world = World::new();
    let hub = world.hub().await;
    let device = world.device("press-7", &hub).await;
    let mut status = device.status();
    hub.drain(Duration::from_secs(3), Duration::from_secs(1)).await;
    let waiting = status.wait_for(|status| matches!(status, Status::Waiting { .. })).await.unwrap().clone();
    let Status::Waiting { why, wait } = waiting else { unreachable!() };
    assert!(wait >= Duration::from_secs(3), "{wait:?}");
    assert!(why.starts_with("hub draining"), "{why}");
}

/// The hint is a message of the hub, and the same on every kind of link.
#[tokio::test]
async fn a_draining_hub_says_when_to_come_back_over_each_transport() {
    const RETRY: Duration = Duration::from_secs(60);
    let world = World::new();
    let hub = world.hub().await;
    let transports = [Transport::Tls, Transport::Quic, Transport::WebSocket];
    let mut devices = Vec::new();
    for transport in transports {
        let mut endpoint = world.endpoint(&format!("device/by-{transport}"), &hub);
        endpoint.route.transport = Some(transport);
        let device = Device::register(endpoint, world.environment.clone()).unwrap();
        let mut status = device.status();
        let is_online = status.wait_for(|status| matches!(status, Status::Online));
        tokio::time::timeout(SOON, is_online).await.expect("it comes online").unwrap();
        devices.push((transport, device, status));
    }
    hub.drain(RETRY, Duration::from_secs(1)).await;
    for (transport, _device, status) in &mut devices {
        let is_waiting = |status: &Status| matches!(status, Status::Waiting { .. });
        let waiting = timeout(SOON, status.wait_for(is_waiting)).await.expect("it hears so").unwrap().clone();
        let Status::Waiting { why, wait } = waiting else { unreachable!() };
        assert!(wait >= RETRY && why.starts_with("hub draining"), "{transport}: {wait:?}, {why}");
    }
}

#[tokio::test]
async fn a_drain_ends_as_soon_as_nothing_is_left() {
    let world = World::new();
    let hub = world.hub().await;
    let _device = world.device("press-7", &hub).await;
    let drained = hub.drain(Duration::from_secs(1), Duration::from_secs(3600));
    tokio::time::timeout(SOON, drained).await.expect("there is no tunnel");
}

/// Says something, and hears it again.
async fn check(tunnel: &mut Tunnel) {
    tunnel.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    tokio::time::timeout(SOON, tunnel.read_exact(&mut read)).await.expect("an echo").unwrap();
    assert_eq!(&read, b"still here");
}

#[tokio::test]
async fn a_drain_leaves_tunnels_alone_and_the_device_comes_back_meanwhile() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    let _echo = echo(world.device("press-7", &hub).await);
    let service = world.service("ops", &hub);
    let mut tunnel = service.open("press-7", "echo").await.unwrap();
    check(&mut tunnel).await;
    let drained = tokio::spawn(hub.drain(Duration::from_millis(100), Duration::from_secs(3600)));
    let successor = world.successor(&address).await;
    until(|| successor.stats().devices == 1).await;
    check(&mut tunnel).await;
    let mut new = world.service("other", &successor).open("press-7", "echo").await.unwrap();
    check(&mut new).await;
    check(&mut tunnel).await;
    // The last tunnel and the last handle end the old link, and that the drain, an hour early.
    tunnel.shutdown().await.unwrap();
    tunnel.read_to_end(&mut Vec::new()).await.unwrap();
    drop((tunnel, service));
    tokio::time::timeout(SOON, drained).await.expect("nothing is left to wait for").unwrap();
    check(&mut new).await;
}

#[tokio::test]
async fn a_service_that_was_told_goodbye_connects_anew_and_keeps_its_tunnels() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    let _echo = echo(world.device("press-7", &hub).await);
    let service = world.service("ops", &hub);
    let mut tunnel = service.open("press-7", "echo").await.unwrap();
    let _drained = tokio::spawn(hub.drain(Duration::from_millis(100), Duration::from_secs(3600)));
    let successor = world.successor(&address).await;
    until(|| successor.stats().devices == 1).await;
    let reopen = async {
        loop {
            match service.open("press-7", "echo").await {
                // The goodbye is on its way.
                Err(OpenError::Refused(refusal)) if refusal.code == RefusalCode::HubDraining => {}
                outcome => return outcome.unwrap(),
            }
        }
    };
    let mut new = tokio::time::timeout(SOON, reopen).await.expect("a new link");
    check(&mut new).await;
    check(&mut tunnel).await;
}

#[tokio::test]
async fn a_device_that_is_closed_takes_its_tunnels_over_a_draining_hub_along() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let (opened, kept) = tokio::join!(service.open("press-7", "x"), async {
        device.next_offer().await.accept().await.unwrap()
    });
    let mut status = device.status();
    let _drained = tokio::spawn(hub.drain(Duration::from_secs(60), Duration::from_secs(3600)));
    status.wait_for(|status| matches!(status, Status::Waiting { .. })).await.unwrap();
    tokio::time::timeout(SOON, device.close()).await.expect("the links are closed");
    assert!(opened.unwrap().read(&mut [0]).await.is_err());
    drop(kept);
}

/// A network that has just gone is noticed late: the device is asked over a link that leads nowhere.
#[tokio::test]
async fn who_waits_for_a_device_waits_for_one_that_is_lost_while_it_is_asked() {
    let world = World::new();
    let hub = world.hub().await;
    let service = world.service("ops", &hub);
    for wait in [Duration::from_secs(60), Duration::ZERO] {
        let mut device = world.device("press-7", &hub).await;
        let mut options = OpenOptions::default();
        options.wait = wait;
        let opening = service.begin("press-7", "echo", options).await.unwrap();
        let answer = tokio::spawn(opening.answered());
        // It is asked, and says nothing.
        let _offer = device.next_offer().await;
        drop(device);
        until(|| hub.stats().devices == 0).await;
        let device = echo(world.device("press-7", &hub).await);
        let answer = timeout(Duration::from_secs(30), answer).await.unwrap().unwrap();
        if wait.is_zero() {
            assert_eq!(code(answer), RefusalCode::DeviceOffline);
        } else {
            check(&mut answer.unwrap()).await;
        }
        device.abort();
        until(|| hub.stats().devices == 0).await;
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let (opened, offer) = tokio::join!(service.open("press-7", "x"), async {
        device.next_offer().await.accept().await.unwrap()
    });
    let mut tunnel = opened.unwrap();
    tunnel.write_all(b"before").await.unwrap();
    offer.reset(towline::codes::RESET);
    let error = tunnel.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lost_device_is_a_reset_and_never_an_end_of_file() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let (opened, kept) = tokio::join!(service.open("press-7", "x"), async {
        device.next_offer().await.accept().await.unwrap()
    });
    let mut tunnel = opened.unwrap();
    // All of the device's network goes away at once: its runtime is what holds it here.
    drop(device);
    drop(kept);
    let error = tunnel.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_device_that_is_dropped_goes_offline_and_takes_its_tunnels_along() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let (opened, kept) = tokio::join!(service.open("press-7", "x"), async {
        device.next_offer().await.accept().await.unwrap()
    });
    drop(device);
    until(|| hub.stats().devices == 0).await;
    assert!(opened.unwrap().read(&mut [0]).await.is_err());
    drop(kept);
}

#[tokio::test]
async fn what_a_device_said_before_it_left_arrives() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let said = tokio::spawn(async move {
        let mut tunnel = device.next_offer().await.accept().await.unwrap();
        tunnel.write_all(&pattern(100_000)).await.unwrap();
        tunnel.shutdown().await.unwrap();
        device.close().await;
    });
    let mut tunnel = service.open("press-7", "x").await.unwrap();
    let mut read = Vec::new();
    tunnel.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, pattern(100_000));
    said.await.unwrap();
}

#[tokio::test]
async fn a_strict_tunnel_is_gone_when_either_side_closes() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let mut options = OpenOptions::default();
    options.profile = Profile::Strict;
    let (opening, offer) =
        tokio::join!(service.begin("press-7", "x", options), async { device.next_offer().await });
    assert_eq!(offer.profile, Profile::Strict);
    let (opened, theirs) = tokio::join!(opening.unwrap().answered(), offer.accept());
    let (mut ours, mut theirs) = (opened.unwrap(), theirs.unwrap());
    ours.write_all(b"last words").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut read = Vec::new();
    theirs.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last words");
    // It has not closed, but the tunnel is gone.
    let error = ours.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let (mut send, _recv) = theirs.into_split();
    assert_eq!(send.stopped().await.unwrap(), Some(towline::codes::STRICT));
}

#[tokio::test]
async fn data_may_follow_the_request_at_once() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let mut opening = service.begin("press-7", "x", OpenOptions::default()).await.unwrap();
    opening.send.write_all(b"early").await.unwrap();
    opening.send.finish().unwrap();
    let mut theirs = device.next_offer().await.accept().await.unwrap();
    let mut read = Vec::new();
    theirs.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"early");
    opening.answered().await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_writer_and_nobody_else() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let (opened, stalled) = tokio::join!(service.open("press-7", "slow"), async {
        device.next_offer().await.accept().await.unwrap()
    });
    let mut slow = opened.unwrap();
    let writer = tokio::spawn(async move {
        let mut written = 0;
        let block = pattern(64 << 10);
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), slow.write_all(&block)).await {
            written += block.len();
        }
        written
    });
    let _echo = echo(device);
    for _ in 0..20 {
        let mut tunnel = service.open("press-7", "echo").await.unwrap();
        tunnel.write_all(&pattern(200_000)).await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut read = Vec::new();
        tunnel.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 200_000);
    }
    // Windows on two links, what the hub holds, and what waits to be sent at the service.
    let written = writer.await.unwrap();
    assert!(written <= 2 * (64 << 10) + (64 << 10) + 4 * (128 << 10), "{written} bytes were taken");
    drop(stalled);
}

/// More tunnels than there were stream windows in a session's once, all of whose readers stall, both ways.
#[tokio::test]
async fn many_readers_that_stall_hold_up_nobody_else() {
    const TUNNELS: usize = 130;
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..TUNNELS {
        let (opened, accepted) = tokio::join!(service.open("press-7", "slow"), async {
            device.next_offer().await.accept().await.unwrap()
        });
        for mut tunnel in [opened.unwrap(), accepted] {
            // What fills the window of the leg that is not read, and holds up the other leg.
            stalled.spawn(async move {
                tunnel.write_all(&pattern(120 << 10)).await.unwrap();
                tunnel
            });
        }
    }
    let stalled = tokio::time::timeout(SOON, stalled.join_all()).await.expect("there is room for all");
    let _echo = echo(device);
    let mut tunnel = service.open("press-7", "echo").await.unwrap();
    check(&mut tunnel).await;
    drop(stalled);
}
