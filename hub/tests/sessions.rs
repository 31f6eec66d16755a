//! Sessions end to end: through a hub that may crash and cannot read them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{World, online, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use towline::refusal::RefusalCode;
use towline::{Device, EndToEnd, Hub, OpenError, SessionOptions, Tunnel, agent};

const SOON: Duration = Duration::from_secs(60);

/// A target that greets whoever comes, and gives back what it gets.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.write_all(b"hello").await?;
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    address
}

/// A device that serves these targets.
async fn device(world: &World, hub: &Hub, targets: &[(&str, SocketAddr)]) {
    let config = world.endpoint("device/press-7", hub);
    let mut device = Device::register(config, world.environment.clone()).unwrap();
    online(&device).await;
    let targets =
        targets.iter().map(|(name, address)| format!("{name}={address}").parse().unwrap()).collect();
    let environment = world.environment.clone();
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
}

async fn connect(session: &EndToEnd) -> Tunnel {
    session.begin().await.unwrap().answered().await.unwrap()
}

/// Says a pattern and hears it back, behind the greeting.
async fn talks(connection: Tunnel, bytes: usize) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let said = pattern(bytes);
    let says = async {
        for piece in said.chunks(10_000) {
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.shutdown().await.unwrap();
    };
    let hears = async {
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let ((), heard) = tokio::join!(says, hears);
    assert!(heard.starts_with(b"hello") && heard[5..] == said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_share_a_session() {
    let world = World::new();
    let hub = world.hub().await;
    device(&world, &hub, &[("echo", target().await)]).await;
    let service = world.service("ops", &hub);
    let session = service.session("press-7", "echo", SessionOptions::default()).await.unwrap();
    let all = (0..20).map(|number| {
        let session = session.clone();
        tokio::spawn(async move { talks(connect(&session).await, number * 10_000).await })
    });
    for one in all.collect::<Vec<_>>() {
        timeout(SOON, one).await.unwrap().unwrap();
    }
    assert_eq!(hub.stats().tunnels, 1, "one tunnel carries them all");
    session.close();
    session.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_on_through_a_hub_that_crashes() {
    let world = World::new();
    let mut hub = world.hub().await;
    let address = hub.local_addr().to_string();
    device(&world, &hub, &[("echo", target().await)]).await;
    let service = world.service("ops", &hub);
    let session = service.session("press-7", "echo", SessionOptions::default()).await.unwrap();
    let mut quiet = connect(&session).await;
    let mut greeting = [0; 5];
    quiet.read_exact(&mut greeting).await.unwrap();
    let all: Vec<_> = (0..5)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { talks(connect(&session).await, 2 << 20).await })
        })
        .collect();
    for round in 0..3_u8 {
        // A word that comes back over each hub.
        quiet.write_all(&[round]).await.unwrap();
        let mut word = [0];
        timeout(SOON, quiet.read_exact(&mut word)).await.unwrap().unwrap();
        assert_eq!(word, [round]);
        // Its links end without a word: that is what is left of a process that was killed.
        drop(hub);
        hub = world.successor(&address).await;
    }
    for one in all {
        timeout(SOON, one).await.unwrap().unwrap();
    }
    timeout(SOON, talks(connect(&session).await, 1000)).await.unwrap();
    quiet.shutdown().await.unwrap();
    timeout(SOON, quiet.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_device_cannot_reach_is_said_on_the_connection() {
    let world = World::new();
    let hub = world.hub().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    device(&world, &hub, &[("nobody", nobody)]).await;
    let service = world.service("ops", &hub);
    let unknown = service.session("press-7", "other", SessionOptions::default()).await.unwrap_err();
    assert!(matches!(unknown, OpenError::Refused(refusal) if refusal.code == RefusalCode::ServiceUnknown));
    let session = service.session("press-7", "nobody", SessionOptions::default()).await.unwrap();
    for _ in 0..2 {
        let refused = session.begin().await.unwrap().answered().await.unwrap_err();
        assert!(matches!(refused, OpenError::Refused(refusal) if refusal.code == RefusalCode::TargetRefused));
    }
}

/// Where services must be devices, a session with a stranger is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_knows_no_sessions_ends_in_an_error() {
    let world = World::new();
    let hub = world.hub().await;
    let mut device = world.device("press-7", &hub).await;
    let service = world.service("ops", &hub);
    let opens = service.session("press-7", "echo", SessionOptions::default());
    let answers = async {
        // It takes the tunnel, and speaks something else.
        let mut tunnel = device.next_offer().await.accept().await.unwrap();
        tunnel.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        let _ = tunnel.read_to_end(&mut Vec::new()).await;
    };
    let (opened, ()) = timeout(SOON, async { tokio::join!(opens, answers) }).await.unwrap();
    let error = opened.unwrap_err().to_string();
    assert!(
        error
            .starts_with("the other end of the tunnel does not show that it is spiffe://test/device/press-7"),
        "{error}"
    );
}
