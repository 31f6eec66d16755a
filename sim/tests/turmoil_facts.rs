//! What we rely on in turmoil, and what we must not rely on. If a new version behaves otherwise, these tell.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};
use turmoil::{Builder, Sim};

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(60))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::ZERO)
        .rng_seed(1);
    builder
}

/// What a reader has read, once that has ended.
type Heard = Rc<RefCell<Option<Result<Vec<u8>, String>>>>;

/// A host that accepts one connection, reads to its end, and writes down what it read and how it ended.
fn reader(sim: &mut Sim<'_>) -> Heard {
    let outcome = Rc::new(RefCell::new(None));
    let told = outcome.clone();
    sim.host("reader", move || {
        let told = told.clone();
        async move {
            let listener = TcpListener::bind("0.0.0.0:1").await?;
            let (mut stream, _) = listener.accept().await?;
            let mut bytes = Vec::new();
            let read = stream.read_to_end(&mut bytes).await;
            *told.borrow_mut() = Some(read.map(|_| bytes).map_err(|error| error.kind().to_string()));
            std::future::pending().await
        }
    });
    outcome
}

/// Somebody who writes a byte to the reader each millisecond, a hundred of them, and then the end.
fn writer(sim: &mut Sim<'_>) {
    sim.host("writer", || async {
        let mut stream = TcpStream::connect("reader:1").await?;
        for _ in 0..100 {
            stream.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.shutdown().await?;
        std::future::pending().await
    });
}

fn steps(sim: &mut Sim<'_>, count: usize) {
    for _ in 0..count {
        sim.step().unwrap();
    }
}

/// Times are whole milliseconds, and what is sent in one tick is there in the next.
#[test]
fn a_message_takes_a_tick() {
    let mut sim = builder().build();
    let arrived = Rc::new(Cell::new(Duration::ZERO));
    let told = arrived.clone();
    sim.host("receiver", move || {
        let told = told.clone();
        async move {
            let socket = UdpSocket::bind("0.0.0.0:1").await?;
            socket.recv_from(&mut [0; 8]).await?;
            told.set(turmoil::sim_elapsed().unwrap());
            std::future::pending().await
        }
    });
    sim.client("sender", async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        assert_eq!(turmoil::sim_elapsed().unwrap().subsec_nanos() % 1_000_000, 0);
        socket.send_to(b"x", "receiver:1").await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(())
    });
    sim.run().unwrap();
    assert!((10..=12).contains(&arrived.get().as_millis()), "{:?}", arrived.get());
}

/// A host that crashes says FIN, as a process does whose kernel lives on. Power loss has to be made otherwise.
#[test]
fn a_crash_looks_like_an_end_of_file() {
    let mut sim = builder().build();
    let outcome = reader(&mut sim);
    sim.host("writer", || async {
        let mut stream = TcpStream::connect("reader:1").await?;
        stream.write_all(b"last words").await?;
        std::future::pending().await
    });
    steps(&mut sim, 10);
    assert_eq!(*outcome.borrow(), None);
    sim.crash("writer");
    steps(&mut sim, 10);
    assert_eq!(*outcome.borrow(), Some(Ok(b"last words".to_vec())));
}

/// A partition that heals leaves a gap in a connection, and nobody hears of it. So we never partition under TCP.
#[test]
fn a_partition_that_heals_leaves_a_connection_dead_for_good() {
    let mut sim = builder().build();
    let outcome = reader(&mut sim);
    writer(&mut sim);
    steps(&mut sim, 20);
    sim.partition("reader", "writer");
    steps(&mut sim, 20);
    sim.repair("reader", "writer");
    steps(&mut sim, 5000);
    assert_eq!(*outcome.borrow(), None);
}

/// What is held is not lost: it comes once it is let go. (We hold lines ourselves, each way by itself.)
#[test]
fn what_is_held_comes_when_it_is_released() {
    let mut sim = builder().build();
    let outcome = reader(&mut sim);
    writer(&mut sim);
    steps(&mut sim, 20);
    sim.hold("reader", "writer");
    steps(&mut sim, 1000);
    assert_eq!(*outcome.borrow(), None);
    sim.release("reader", "writer");
    steps(&mut sim, 200);
    assert_eq!(*outcome.borrow(), Some(Ok(vec![b'x'; 100])));
}

/// Each host has a link with each other one, whether they speak or not, and each step looks at all of them for each host. So
/// a hundred hosts take sixty times as long as twenty-five, which is as many as we have.
#[test]
fn hosts_are_linked_whether_they_speak_or_not() {
    for count in [2, 25] {
        let mut sim = builder().build();
        for number in 0..count {
            sim.host(format!("silent-{number}"), || async { std::future::pending().await });
        }
        steps(&mut sim, 3);
        let links = Cell::new(0);
        sim.links(|all| links.set(all.count()));
        assert_eq!(links.get(), count * (count - 1) / 2);
    }
}

/// A rate of failures is one of links, not of packets: at one in a hundred, far more than that is lost. So it is not used.
#[test]
fn a_fail_rate_is_no_loss_rate() {
    let mut builder = builder();
    let way = Duration::from_millis(10);
    let mut sim = builder.min_message_latency(way).max_message_latency(way).fail_rate(0.01).build();
    let received = Rc::new(Cell::new(0));
    let told = received.clone();
    sim.host("receiver", move || {
        let told = told.clone();
        async move {
            let socket = UdpSocket::bind("0.0.0.0:1").await?;
            loop {
                socket.recv_from(&mut [0; 8]).await?;
                told.set(told.get() + 1);
            }
        }
    });
    sim.client("sender", async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        for _ in 0..1000 {
            for _ in 0..10 {
                socket.send_to(b"x", "receiver:1").await?;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    });
    sim.run().unwrap();
    assert!(received.get() < 9_000, "{}", received.get());
}

/// More connections waiting for a listener than its capacity end the whole simulation. So ours is large.
#[test]
#[should_panic(expected = "server socket buffer full")]
fn a_full_backlog_is_a_panic() {
    let mut builder = builder();
    let mut sim = builder.tcp_capacity(4).build();
    sim.host("deaf", || async {
        let _listener = TcpListener::bind("0.0.0.0:1").await?;
        std::future::pending().await
    });
    for number in 0..5 {
        sim.host(format!("caller-{number}"), || async {
            let _stream = TcpStream::connect("deaf:1").await?;
            std::future::pending().await
        });
    }
    steps(&mut sim, 10);
}

/// While a host is down, whoever connects to it waits for good. So our network looks whether anybody is there first.
#[test]
fn to_connect_to_a_host_that_is_down_hangs() {
    let mut sim = builder().build();
    let _outcome = reader(&mut sim);
    let connected = Rc::new(Cell::new(false));
    let told = connected.clone();
    sim.host("caller", move || {
        let told = told.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let _stream = TcpStream::connect("reader:1").await;
            told.set(true);
            std::future::pending().await
        }
    });
    sim.crash("reader");
    steps(&mut sim, 5000);
    assert!(!connected.get());
}

/// Who gives up a connection that is not made yet was never there: its server hears nothing of it, where a kernel would have
/// it accept one that ends. So ours is made in a task that nobody gives up, and closed.
#[test]
fn who_gives_up_connecting_was_never_there() {
    let mut sim = builder().build();
    let accepted = Rc::new(Cell::new(false));
    let told = accepted.clone();
    sim.host("server", move || {
        let told = told.clone();
        async move {
            let listener = TcpListener::bind("0.0.0.0:1").await?;
            let _accepted = listener.accept().await?;
            told.set(true);
            std::future::pending().await
        }
    });
    sim.host("caller", || async {
        // Asked once, and then given up.
        assert!(TcpStream::connect("server:1").now_or_never().is_none());
        std::future::pending().await
    });
    steps(&mut sim, 5000);
    assert!(!accepted.get());
}

/// Datagrams that find a socket's queue full are dropped, and nobody is told. So ours has room for all that is on a line.
#[test]
fn datagrams_that_find_no_room_are_dropped() {
    let mut builder = builder();
    let mut sim = builder.udp_capacity(4).build();
    let heard = Rc::new(Cell::new(0));
    let told = heard.clone();
    sim.host("receiver", move || {
        let told = told.clone();
        async move {
            let socket = UdpSocket::bind("0.0.0.0:1").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            loop {
                socket.recv_from(&mut [0; 8]).await?;
                told.set(told.get() + 1);
            }
        }
    });
    sim.host("sender", || async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        for _ in 0..10 {
            socket.send_to(b"x", "receiver:1").await?;
        }
        std::future::pending().await
    });
    steps(&mut sim, 1000);
    assert_eq!(heard.get(), 4);
}

/// A host whose program has ended is not stepped any more, nor are the tasks that it has left. So ours never end.
#[test]
fn a_host_whose_program_has_ended_stands_still() {
    let mut sim = builder().build();
    let ran = Rc::new(Cell::new(0));
    let told = ran.clone();
    sim.host("short", move || {
        let told = told.clone();
        async move {
            tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    told.set(told.get() + 1);
                }
            });
            Ok(())
        }
    });
    steps(&mut sim, 100);
    assert!(ran.get() <= 1, "{}", ran.get());
}

/// What was made of a socket outside of the simulation does not give back its port. So all of a host lies in its program.
#[test]
fn a_socket_that_is_dropped_outside_keeps_its_port() {
    let mut sim = builder().build();
    let kept: Rc<RefCell<Option<UdpSocket>>> = Rc::default();
    let outcome = Rc::new(RefCell::new(Vec::new()));
    let (keeps, told) = (kept.clone(), outcome.clone());
    sim.host("host", move || {
        let (keeps, told) = (keeps.clone(), told.clone());
        async move {
            let bound = UdpSocket::bind("0.0.0.0:1").await;
            told.borrow_mut().push(bound.is_ok());
            *keeps.borrow_mut() = bound.ok();
            std::future::pending().await
        }
    });
    steps(&mut sim, 5);
    sim.crash("host");
    kept.borrow_mut().take();
    sim.bounce("host");
    steps(&mut sim, 5);
    assert_eq!(*outcome.borrow(), [true, false]);
}
