//! What a hub writes down: who, to which device and service, in which profile, how many bytes, and how it ended.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::log::Log;
use common::{World, echo, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use towline::core::Limits;
use towline::policy::Rules;
use towline::{Hub, OpenOptions, Service, SessionOptions, Tunnel};

const SOON: Duration = Duration::from_secs(60);

/// What every line of a tunnel of these tests says.
const WHO: &str = r#"from="spiffe://test/service/ops" device="press-7" service="echo" profile=Native"#;

async fn open(service: &Service) -> Tunnel {
    timeout(SOON, service.open("press-7", "echo")).await.unwrap().unwrap()
}

/// Says something and hears it back.
async fn talk(tunnel: &mut Tunnel, what: &[u8]) {
    tunnel.write_all(what).await.unwrap();
    let mut heard = vec![0; what.len()];
    timeout(SOON, tunnel.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, what);
}

/// The first line with `what` in it that is logged from now on, and what was logged so far.
async fn line_with(log: &Log, what: &str) -> String {
    let mut all = String::new();
    let found = |all: &str| all.lines().find(|line| line.contains(what)).map(str::to_owned);
    until(|| {
        all += &log.take();
        found(&all).is_some()
    })
    .await;
    found(&all).unwrap()
}

#[track_caller]
fn says(line: &str, what: &str) {
    assert!(line.contains(what), "{what:?} is not in {line}");
}

/// A hub that logs, and a tunnel to a device that says everything back.
struct Scene {
    log: Log,
    world: World,
    hub: Hub,
    _device: JoinHandle<()>,
    _service: Service,
    tunnel: Tunnel,
}

async fn scene() -> Scene {
    let log = Log::new();
    let world = World::new();
    let hub = world.hub().await;
    let _device = echo(world.device("press-7", &hub).await);
    let service = world.service("ops", &hub);
    let tunnel = open(&service).await;
    Scene { log, world, hub, _device, _service: service, tunnel }
}

#[tokio::test]
async fn a_tunnel_is_on_record_when_it_opens_and_when_it_ends() {
    let mut scene = scene().await;
    let opened = line_with(&scene.log, "tunnel open").await;
    says(&opened, WHO);
    says(&opened, &format!("tunnel={} link=", scene.tunnel.id.unwrap()));
    talk(&mut scene.tunnel, b"twelve bytes").await;
    scene.tunnel.shutdown().await.unwrap();
    timeout(SOON, scene.tunnel.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    let closed = line_with(&scene.log, "tunnel closed").await;
    says(&closed, WHO);
    says(&closed, &format!("tunnel={} ", scene.tunnel.id.unwrap()));
    says(&closed, "up=12 down=12 lasted=");
    says(&closed, "ended=[Finished, Finished]");
}

/// The hub joins the two ends of a session, and reads nothing in it; but how much it was, it can say.
#[tokio::test]
async fn of_a_session_the_same_is_on_record() {
    let log = Log::new();
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let environment = world.environment.clone();
    let targets = vec!["echo=127.0.0.1:1".parse().unwrap()];
    tokio::spawn(async move { towline::agent::serve(&mut device, targets, environment).await });
    let service = world.service("ops", &hub);
    let session = service.session("press-7", "echo", SessionOptions::default()).await.unwrap();
    session.close();
    session.closed().await;
    let closed = line_with(&log, "tunnel closed").await;
    says(&closed, &WHO.replace("Native", "EndToEnd"));
    says(&closed, "ended=[Finished, Finished]");
    let bytes = |name: &str| {
        let (_, rest) = closed.split_once(&format!(" {name}=")).unwrap();
        rest.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // At the least there is a certificate each way.
    assert!(bytes("up") > 500 && bytes("down") > 500, "{closed}");
}

#[tokio::test]
async fn a_tunnel_that_is_cut_is_on_record_with_what_has_passed() {
    let mut scene = scene().await;
    talk(&mut scene.tunnel, b"five!").await;
    scene.hub.drain(Duration::ZERO, Duration::ZERO).await;
    let closed = line_with(&scene.log, "tunnel closed").await;
    says(&closed, WHO);
    says(&closed, "up=5 down=5 lasted=");
}

#[tokio::test]
async fn a_tunnel_whose_device_comes_anew_is_on_record_with_what_has_passed() {
    let mut scene = scene().await;
    talk(&mut scene.tunnel, b"five!").await;
    let _again = scene.world.device("press-7", &scene.hub).await;
    let closed = line_with(&scene.log, "tunnel closed").await;
    says(&closed, WHO);
    says(&closed, "up=5 down=5 lasted=");
    says(&closed, "ended=cut: the device has come back over another link");
}

#[tokio::test]
async fn who_was_refused_what_is_on_record() {
    let log = Log::new();
    let world = World::new();
    let rules = Rules(vec!["ops:press-*:ssh".parse().unwrap()]);
    let hub = world.hub_with("127.0.0.1:0", Limits::default(), Box::new(rules)).await;
    let service = world.service("ops", &hub);
    service.begin("press-7", "echo", OpenOptions::default()).await.unwrap().answered().await.unwrap_err();
    let refused = line_with(&log, "tunnel refused").await;
    says(&refused, WHO);
    says(&refused, "refusal=forbidden: ops may not open echo of press-7");
}
