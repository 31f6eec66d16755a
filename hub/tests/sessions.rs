//! Sessions end to end: through a hub that may crash and cannot read them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{World, pattern};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use towline::agent::Target;
use towline::message::Profile;
use towline::policy::Rules;
use towline::refusal::RefusalCode;
use towline::relay::{PairLeg, relay};
use towline::{Connector, EndToEnd, Hub, OpenError, SessionOptions, Tunnel, agent};
use towline_transports::tls::{self, ALPN_END_TO_END, Credentials};
use towline_transports::{LinkClosed, stream_pipe};

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
    let mut device = world.device("press-7", hub).await;
    let targets = named(targets);
    let environment = world.environment.clone();
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
}

fn named(targets: &[(&str, SocketAddr)]) -> Vec<Target> {
    targets.iter().map(|(name, address)| format!("{name}={address}").parse().unwrap()).collect()
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

/// On one thread, so that nobody else does anything while one more is opened and spoken to: no answer can be waited for.
#[tokio::test]
async fn one_more_connection_costs_no_round_trip() {
    let world = World::new();
    let hub = world.hub().await;
    device(&world, &hub, &[("echo", target().await)]).await;
    let (session, _first) = begun(&world, &hub).await;
    let mut opening = session.begin().now_or_never().expect("nobody is asked").unwrap();
    opening.send.write_all(b"words").now_or_never().expect("nobody is waited for").unwrap();
    let mut connection = timeout(SOON, opening.answered()).await.unwrap().unwrap();
    let mut heard = [0; 10];
    timeout(SOON, connection.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hellowords");
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

/// A session in which the greeting was heard, and what it is in.
async fn begun(world: &World, hub: &Hub) -> (EndToEnd, Tunnel) {
    let service = world.service("ops", hub);
    let session = service.session("press-7", "echo", SessionOptions::default()).await.unwrap();
    let mut connection = connect(&session).await;
    timeout(SOON, connection.read_exact(&mut [0; 5])).await.unwrap().unwrap();
    (session, connection)
}

/// Waits until the session is over because there is no way to go on, which is long before its grace period is. Returns why.
async fn no_way(session: &EndToEnd) -> String {
    let closed = timeout(Duration::from_secs(30), session.closed()).await.unwrap();
    let LinkClosed::NoWay(why) = closed else { panic!("{closed}") };
    why.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_may_not_go_on_ends_at_once_and_says_why() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    device(&world, &hub, &[("echo", target().await)]).await;
    let (session, mut connection) = begun(&world, &hub).await;
    drop(hub);
    let rules = || Box::new(Rules(vec!["other:*:*".parse().unwrap()])) as Box<_>;
    let _hub = world.successor_with(&address, rules).await;
    let why = no_way(&session).await;
    assert!(why.starts_with("forbidden: ops may not open echo of press-7"), "{why}");
    let read = timeout(SOON, connection.read(&mut [0])).await.unwrap().unwrap_err();
    assert!(read.to_string().contains("forbidden"), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_service_is_not_offered_any_more_ends_at_once() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    let mut device = world.device("press-7", &hub).await;
    let targets = named(&[("echo", target().await)]);
    let environment = world.environment.clone();
    let begins = async { tokio::join!(begun(&world, &hub)) };
    let ((session, _connection),) = tokio::select! {
        () = agent::serve(&mut device, targets, environment.clone()) => unreachable!("it serves for ever"),
        begun = begins => begun,
    };
    drop(hub);
    let _hub = world.successor(&address).await;
    let others = named(&[("other", target().await)]);
    let why = tokio::select! {
        () = agent::serve(&mut device, others, environment) => unreachable!("it serves for ever"),
        why = no_way(&session) => why,
    };
    assert!(why.starts_with("service unknown: the device offers no service echo"), "{why}");
}

/// Takes the device's place at the hub, and shows these credentials at the ends of tunnels.
async fn impostor(world: &World, hub: &Hub, credentials: Credentials) {
    let mut device = world.device("press-7", hub).await;
    let config = tls::server_config(credentials, &[ALPN_END_TO_END], &world.environment.tls).unwrap();
    tokio::spawn(async move {
        loop {
            let Ok(tunnel) = device.next_offer().await.accept().await else { continue };
            let (send, recv) = tunnel.into_split();
            let _ = tls::accept(stream_pipe(send, recv), config.clone()).await;
        }
    });
}

/// As a hub can do that lies; which somebody who holds the device's certificate can as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_joined_to_somebody_else_ends_at_once() {
    let world = World::new();
    let hub = world.hub().await;
    device(&world, &hub, &[("echo", target().await)]).await;
    let (session, _connection) = begun(&world, &hub).await;
    impostor(&world, &hub, world.credentials("device/press-8")).await;
    let why = no_way(&session).await;
    assert!(
        why.contains(
            "should be spiffe://test/device/press-7, and shows the certificate of spiffe://test/device/press-8"
        ),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_certificate_the_device_does_not_take_any_more_ends_at_once() {
    let world = World::new();
    let hub = world.hub().await;
    device(&world, &hub, &[("echo", target().await)]).await;
    let (session, _connection) = begun(&world, &hub).await;
    let mut credentials = world.credentials("device/press-7");
    credentials.roots = World::new().credentials("device/press-7").roots;
    impostor(&world, &hub, credentials).await;
    let why = no_way(&session).await;
    assert!(why.starts_with("spiffe://test/device/press-7 refuses this end: the certificate is of"), "{why}");
}

/// What the user of `connect` and `forward` reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_connection_reads_why_and_what_was_delivered() {
    let world = World::new();
    let hub = world.hub().await;
    let address = hub.local_addr().to_string();
    device(&world, &hub, &[("echo", target().await)]).await;
    let connector = Connector::new(world.service("ops", &hub), "press-7", "echo", SessionOptions::default());
    let mut leg = connector.begin().await.unwrap().into_leg();
    let (mut program, local) = tokio::io::duplex(1 << 10);
    let relayed = tokio::spawn(async move {
        let (input, output) = tokio::io::split(local);
        let relayed = relay(&mut PairLeg::new(input, output), &mut leg, Profile::Native).await;
        (relayed, leg)
    });
    timeout(SOON, program.read_exact(&mut [0; 5])).await.unwrap().unwrap();
    let mut heard = [0; 1000];
    for _ in 0..100 {
        program.write_all(&[7; 1000]).await.unwrap();
        timeout(SOON, program.read_exact(&mut heard)).await.unwrap().unwrap();
    }
    drop(hub);
    let rules = || Box::new(Rules(vec!["other:*:*".parse().unwrap()])) as Box<_>;
    let _hub = world.successor_with(&address, rules).await;
    let (relayed, leg) = timeout(SOON, relayed).await.unwrap().unwrap();
    assert!(relayed.was_lost());
    let why = connector.why_lost(&leg).await;
    assert!(
        why.starts_with("the session with press-7 is over: there is no way to go on: forbidden: "),
        "{why}"
    );
    let (_, delivered) = why.rsplit_once("; of what was sent, ").unwrap();
    let bytes: u32 = delivered.strip_suffix(" bytes at least had been delivered").unwrap().parse().unwrap();
    // Each 64 KiB are acknowledged at once; of what came last nobody may have heard.
    assert!((30_000..=100_000).contains(&bytes), "{why}");
}

/// And not only once their grace period is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_a_device_that_is_dropped() {
    let world = World::new();
    let hub = world.hub().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = named(&[("echo", listener.local_addr().unwrap())]);
    let mut device = world.device("press-7", &hub).await;
    let environment = world.environment.clone();
    let serving = tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
    let service = world.service("ops", &hub);
    let session = service.session("press-7", "echo", SessionOptions::default()).await.unwrap();
    let (_connection, accepted) = tokio::join!(connect(&session), listener.accept());
    let (mut socket, _) = accepted.unwrap();
    serving.abort();
    let read = timeout(Duration::from_secs(30), socket.read(&mut [0])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// `connect` ends with a failure then: what it has said last may not have arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_after_the_device_is_told_that_not_all_need_have_arrived() {
    let world = World::new();
    for device_is_first in [false, true] {
        let hub = world.hub().await;
        let mut device = world.device("press-7", &hub).await;
        let targets = named(&[("echo", target().await)]);
        let environment = world.environment.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            tokio::select! {
                () = agent::serve(&mut device, targets, environment) => {}
                _ = stopped => device.close().await,
            }
        });
        let connector =
            Connector::new(world.service("ops", &hub), "press-7", "echo", SessionOptions::default());
        let mut connection = connector.begin().await.unwrap().answered().await.unwrap();
        timeout(SOON, connection.read_exact(&mut [0; 5])).await.unwrap().unwrap();
        connection.write_all(b"the end").await.unwrap();
        if device_is_first {
            stop.send(()).unwrap();
            timeout(SOON, serving).await.unwrap().unwrap();
            timeout(SOON, connection.read_to_end(&mut Vec::new())).await.unwrap().unwrap_err();
        }
        drop(connection);
        let all = timeout(SOON, connector.close()).await.unwrap();
        assert_eq!(all, !device_is_first);
    }
}
