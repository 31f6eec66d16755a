//! The network that the product is given in a simulation behaves as a system's would, and as the link model says.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use towline_sim::link::LinkSpec;
use towline_sim::random::Random;
use towline_sim::scenario::{Rate, Span};
use towline_sim::turmoil::air::Air;
use towline_sim::turmoil::line::{BOTH, Line, Presence};
use towline_sim::turmoil::network::SimNetwork;
use towline_transports::{Network, Socket};
use turmoil::{Builder, Sim};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A server and a client, each with what it does with its end of a connection.
struct Pair<'a> {
    sim: Sim<'a>,
    air: Air,
    said: Rc<RefCell<Vec<String>>>,
}

impl Pair<'_> {
    fn new<S, C>(
        spec: LinkSpec,
        server: impl Fn(Box<dyn Socket>, Said) -> S + Clone + 'static,
        client: impl Fn(Box<dyn Socket>, Said) -> C + Clone + 'static,
    ) -> Self
    where
        S: Future<Output = ()> + 'static,
        C: Future<Output = ()> + 'static,
    {
        let air = Air::default();
        let random = Random::new(1);
        air.connect("client", Line::new([spec.clone(), spec], random, "client"));
        air.connect("server", Line::new([(); 2].map(|()| LinkSpec::default()), random, "server"));
        let said = Rc::<RefCell<Vec<String>>>::default();
        let mut builder = Builder::new();
        builder.tick_duration(Duration::from_millis(1)).min_message_latency(Duration::ZERO);
        let mut sim = builder.max_message_latency(Duration::ZERO).rng_seed(1).build();
        let (network, told) = (SimNetwork::new(air.clone(), "server", "server", None), said.clone());
        sim.host("server", move || {
            let (network, told, server) = (network.clone(), told.clone(), server.clone());
            async move {
                let mut listener = network.listen("0.0.0.0:1").await?;
                let (socket, _) = listener.accept().await?;
                server(socket, Said("server", told)).await;
                idle().await
            }
        });
        let (network, told) = (SimNetwork::new(air.clone(), "client", "client", Some(random)), said.clone());
        sim.host("client", move || {
            let (network, told, client) = (network.clone(), told.clone(), client.clone());
            async move {
                sleep(Duration::from_millis(5)).await;
                match network.connect("server:1").await {
                    Ok(socket) => client(socket, Said("client", told)).await,
                    Err(error) => Said("client", told).say(error.kind().to_string()),
                }
                idle().await
            }
        });
        Self { sim, air, said }
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.air.set_clock(self.sim.elapsed());
            self.sim.step().unwrap();
        }
        self.air.set_clock(self.sim.elapsed());
    }

    fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }
}

async fn idle() -> Outcome {
    std::future::pending().await
}

#[derive(Clone)]
struct Said(&'static str, Rc<RefCell<Vec<String>>>);

impl Said {
    fn say(&self, what: impl std::fmt::Display) {
        self.1.borrow_mut().push(format!("{} {what}", self.0));
    }

    /// Reads to the end, and says how that went.
    async fn read(&self, socket: &mut Box<dyn Socket>) {
        let mut bytes = Vec::new();
        match socket.read_to_end(&mut bytes).await {
            Ok(_) => self.say(format!("read {}", bytes.len())),
            Err(error) => self.say(format!("read {}, then {}", bytes.len(), error.kind())),
        }
    }
}

fn milliseconds() -> u64 {
    u64::try_from(turmoil::sim_elapsed().unwrap().as_millis()).unwrap()
}

#[test]
fn a_fin_is_an_end_of_file_and_the_other_way_goes_on() {
    let server = |mut socket: Box<dyn Socket>, said: Said| async move {
        said.read(&mut socket).await;
        socket.write_all(b"answer").await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let client = |mut socket: Box<dyn Socket>, said: Said| async move {
        socket.write_all(b"question").await.unwrap();
        socket.shutdown().await.unwrap();
        said.read(&mut socket).await;
    };
    let mut pair = Pair::new(LinkSpec::default(), server, client);
    pair.run(100);
    assert_eq!(pair.said(), ["server read 8", "client read 6"]);
    assert_eq!(pair.air.connections(), 0);
}

#[test]
fn an_abort_is_a_reset_after_what_was_written() {
    let server = |mut socket: Box<dyn Socket>, said: Said| async move {
        said.read(&mut socket).await;
        said.say(socket.write_all(b"x").await.unwrap_err().kind());
    };
    let client = |mut socket: Box<dyn Socket>, _| async move {
        socket.write_all(b"words").await.unwrap();
        socket.abort();
    };
    let mut pair = Pair::new(LinkSpec::default(), server, client);
    pair.run(100);
    let reset = ErrorKind::ConnectionReset;
    assert_eq!(pair.said(), [format!("server read 5, then {reset}"), format!("server {reset}")]);
}

#[test]
fn bytes_that_nobody_reads_are_a_reset() {
    let server = |socket: Box<dyn Socket>, _| async move {
        sleep(Duration::from_millis(50)).await;
        drop(socket);
    };
    let client = |mut socket: Box<dyn Socket>, said: Said| async move {
        socket.write_all(b"words").await.unwrap();
        said.read(&mut socket).await;
    };
    let mut pair = Pair::new(LinkSpec::default(), server, client);
    pair.run(200);
    assert_eq!(pair.said(), [format!("client read 0, then {}", ErrorKind::ConnectionReset)]);
}

/// turmoil drops what is under way with the reset that answers a later word.
#[test]
fn a_reset_is_heard_even_if_what_was_said_before_is_lost() {
    let server = |mut socket: Box<dyn Socket>, _| async move {
        sleep(Duration::from_millis(50)).await;
        socket.write_all(&[1; 100_000]).await.unwrap();
        socket.shutdown().await.unwrap();
        drop(socket);
    };
    let client = |mut socket: Box<dyn Socket>, said: Said| async move {
        while socket.write_all(b"words").await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        let mut bytes = Vec::new();
        let error = socket.read_to_end(&mut bytes).await.unwrap_err();
        said.say(error.kind());
    };
    let spec = LinkSpec { delay: Span(20_000_000), ..LinkSpec::default() };
    let mut pair = Pair::new(spec, server, client);
    pair.run(500);
    assert_eq!(pair.said(), [format!("client {}", ErrorKind::ConnectionReset)]);
}

/// 1 MB at 8 Mbit/s and 50 ms: a second on the line, and the way. turmoil adds a tick or two.
#[test]
fn a_connection_is_as_fast_as_its_line() {
    let server = |mut socket: Box<dyn Socket>, said: Said| async move {
        said.read(&mut socket).await;
        said.say(milliseconds());
    };
    let client = |mut socket: Box<dyn Socket>, said: Said| async move {
        said.say(milliseconds());
        socket.write_all(&vec![7; 1_000_000]).await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let spec = LinkSpec { delay: Span::millis(50), rate: Some(Rate(8_000_000)), ..LinkSpec::default() };
    let mut pair = Pair::new(spec, server, client);
    pair.run(3000);
    let said = pair.said();
    let time = |line: &String| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!((105..=110).contains(&time(&said[0])), "a round trip until it is connected: {said:?}");
    assert_eq!(said[1], "server read 1000000");
    assert!((1045..=1070).contains(&(time(&said[2]) - time(&said[0]))), "{said:?}");
}

/// Reads ten bytes, one each 100 ms, and says when the last one came.
fn ticking() -> Pair<'static> {
    let server = |mut socket: Box<dyn Socket>, said: Said| async move {
        said.read(&mut socket).await;
        said.say(milliseconds() / 1000);
    };
    let client = |mut socket: Box<dyn Socket>, said: Said| async move {
        for _ in 0..10 {
            if let Err(error) = socket.write_all(b"x").await {
                return said.say(error.kind());
            }
            sleep(Duration::from_millis(100)).await;
        }
        socket.shutdown().await.unwrap();
        said.read(&mut socket).await;
    };
    Pair::new(LinkSpec::default(), server, client)
}

#[test]
fn a_line_that_is_repaired_goes_on_where_it_was() {
    let mut pair = ticking();
    pair.run(500);
    pair.air.change("client", |line| BOTH.iter().for_each(|&way| line.set_cut(way, true)));
    pair.run(4500);
    assert!(pair.said().is_empty());
    pair.air.change("client", |line| BOTH.iter().for_each(|&way| line.set_cut(way, false)));
    pair.run(100);
    assert_eq!(pair.said(), ["server read 10", "server 5", "client read 0"]);
}

#[test]
fn who_lost_power_says_nothing_and_then_that_it_knows_nothing() {
    let mut pair = ticking();
    pair.run(500);
    pair.air.change("server", |line| line.set_presence(Presence::Gone));
    pair.air.forget("server");
    pair.air.let_die(|| pair.sim.crash("server"));
    pair.run(200);
    assert!(pair.said().is_empty());
    pair.air.change("server", |line| line.set_presence(Presence::Here));
    pair.air.deny("server");
    pair.sim.bounce("server");
    pair.run(1000);
    assert_eq!(pair.said(), [format!("client {}", ErrorKind::ConnectionReset)]);
}

#[test]
fn where_a_program_has_died_a_connection_is_refused() {
    let nothing = |_, _| async {};
    let mut pair = Pair::new(LinkSpec::default(), nothing, nothing);
    pair.air.change("server", |line| line.set_presence(Presence::Dead));
    pair.run(100);
    assert_eq!(pair.said(), [format!("client {}", ErrorKind::ConnectionRefused)]);
}

/// Who ends its half and then only listens hears of it all the same, since a FIN that nobody acknowledges is sent again: said
/// while the other is without power, or when it is back.
#[test]
fn a_fin_that_nobody_heard_is_answered_once_somebody_is_there() {
    for (before, between) in [(300, 500), (700, 100)] {
        let server = |mut socket: Box<dyn Socket>, said: Said| async move { said.read(&mut socket).await };
        let client = move |mut socket: Box<dyn Socket>, said: Said| async move {
            sleep(Duration::from_millis(before)).await;
            socket.shutdown().await.unwrap();
            said.read(&mut socket).await;
        };
        let mut pair = Pair::new(LinkSpec::default(), server, client);
        pair.run(100);
        pair.air.change("server", |line| line.set_presence(Presence::Gone));
        pair.air.forget("server");
        pair.air.let_die(|| pair.sim.crash("server"));
        pair.run(400);
        assert!(pair.said().is_empty(), "nobody is there to say anything");
        pair.air.change("server", |line| line.set_presence(Presence::Here));
        pair.air.deny("server");
        pair.sim.bounce("server");
        pair.run(between + 200);
        assert_eq!(pair.said(), [format!("client read 0, then {}", ErrorKind::ConnectionReset)], "{before}");
    }
}
