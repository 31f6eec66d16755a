//! `memory_formula` against peers and applications that do their worst, each in its own way. What it costs is printed:
//!
//!     cargo test -p towline-fuzz-bodies --test memory -- --nocapture --test-threads 1
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use towline_engine::{Acceptor, Config, Dir, Epoch, Instant, Resumption, Session, Side, StreamId};
use towline_fuzz_bodies::memory::{Meter, acceptor_bound, bound};
use towline_fuzz_bodies::peer::Peer;
use towline_fuzz_bodies::wire::{self, frame};

const NOW: Instant = Instant::from_nanos(1 << 40);

/// A server, and what it has in memory.
struct Victim {
    session: Session,
    config: Config,
    meter: Meter,
    most_streams: usize,
    worst: i64,
}

impl Victim {
    fn new(resumption: Resumption, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mut peer = Peer::new(Side::Server, resumption != Resumption::Off);
        config.resumption = resumption;
        let (mut meter, mut session) = (Meter::default(), None);
        meter.run(|| session = Some(Session::new(Side::Server, config.clone())));
        let mut victim = Self { session: session.unwrap(), config, meter, most_streams: 0, worst: 0 };
        victim.session.attach(NOW, Epoch(0)).unwrap();
        victim.feed(&peer.greet());
        victim.say();
        victim
    }

    /// Something is done, and measured.
    fn act<T>(&mut self, act: impl FnOnce(&mut Session) -> T) -> T {
        let done = self.meter.run(|| act(&mut self.session));
        self.most_streams = self.most_streams.max(self.session.open_streams());
        self.worst = self.worst.max(self.meter.live());
        done
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.act(|session| {
            session.handle_input(NOW, Epoch(0), Bytes::copy_from_slice(bytes));
            session.copy_out();
        });
        assert!(!self.session.is_closed(), "{:?}", self.session.poll_event());
    }

    fn feed_frame(&mut self, frame: &[u8]) {
        self.feed(&wire::record(frame));
    }

    /// The pipe takes all there is.
    fn say(&mut self) {
        self.act(|session| {
            let mut out = Vec::new();
            while session.poll_transmit(NOW, 1 << 14, &mut out) > 0 {
                out.clear();
            }
        });
    }

    fn accept(&mut self) -> StreamId {
        self.act(|session| session.accept(Dir::Bi)).unwrap()
    }

    /// Prints what it came to, and checks it. `per` is what the worst is to be divided by.
    fn report(&self, what: &str, per: i64) {
        let most = i64::try_from(bound(&self.config, self.most_streams)).unwrap();
        println!("{what}: {} at worst, {} each; the formula says {most}", self.worst, self.worst / per);
        assert!(self.worst <= most, "{what}");
    }
}

/// The `index`-th stream that the client opens.
fn id(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index).unwrap()
}

fn data(id: StreamId, offset: u64, length: usize) -> Vec<u8> {
    let mut out = wire::frame(frame::STREAM | 4, &[id.to_wire(), offset]);
    out.resize(out.len() + length, 7);
    out
}

#[test]
fn pieces_of_the_worst_sizes() {
    // Neighbours that together are small are merged; these are as many nodes, or as much spare room, as there can be.
    for (a, b) in [(1, 1), (10, 10), (100, 100), (512, 1), (1024, 1), (513, 513), (1025, 1025), (9000, 1)] {
        let total = if a < 100 { 60_000 } else { 1 << 20 };
        let mut victim = Victim::new(Resumption::Off, |c| {
            (c.stream_window, c.session_window, c.send_buffer) = (total, total, 0);
        });
        let mut offset = 0;
        for length in [a, b].into_iter().cycle() {
            if offset + length > total {
                break;
            }
            victim.feed_frame(&data(id(0), offset, length.try_into().unwrap()));
            offset += length;
        }
        victim.report(&format!("pieces of {a} and {b} bytes, a KiB"), i64::try_from(offset >> 10).unwrap());
    }
}

#[test]
fn readers_who_leave_a_byte_of_each_record() {
    let mut victim = Victim::new(Resumption::Off, |c| {
        (c.stream_window, c.session_window, c.send_buffer) = (20_000, 40_000, 0);
    });
    for index in 0..128 {
        victim.feed_frame(&data(id(index), 0, 16_000));
        let id = victim.accept();
        victim.act(|session| drop(session.stream(id).unwrap().read(15_999)));
        victim.say();
    }
    victim.report("a byte of a record", 128);
}

#[test]
fn a_peer_who_acknowledges_all_but_a_byte() {
    let mut victim = Victim::new(Resumption::Accept, |c| (c.session_window, c.send_buffer) = (0, 1 << 17));
    victim.feed_frame(&wire::frame(frame::MAX_DATA, &[1 << 30]));
    for _ in 0..100 {
        let (id, written) = victim.act(|session| {
            let id = session.open(Dir::Uni).unwrap();
            (id, session.stream(id).unwrap().write(&[0; 100_000]).unwrap())
        });
        victim.say();
        victim.feed_frame(&wire::frame(frame::STREAM_ACK, &[id.to_wire(), written as u64 - 1]));
    }
    victim.report("a byte of a write", 100);
}

#[test]
fn streams_that_are_only_there() {
    for resumption in [Resumption::Off, Resumption::Accept] {
        let mut victim = Victim::new(resumption.clone(), |c| {
            (c.max_streams_bidi, c.session_window, c.send_buffer) = (4000, 0, 0);
        });
        victim.feed_frame(&wire::frame(frame::STREAM, &[id(3999).to_wire()]));
        victim.report(&format!("streams, resumption {resumption:?}"), 4000);
    }
}

#[test]
fn streams_that_owe_everything() {
    for resumption in [Resumption::Off, Resumption::Accept] {
        let mut victim = Victim::new(resumption.clone(), |c| {
            (c.max_streams_bidi, c.stream_window, c.session_window) = (4000, 2, 8000);
            c.send_buffer = 8000;
        });
        for index in 0..4000 {
            // The session promises little at first; it is asked when that is used up.
            if victim.session.credit().promised < 2 {
                victim.say();
            }
            victim.feed_frame(&data(id(index), 0, 2));
            let id = victim.accept();
            victim.act(|session| {
                let mut stream = session.stream(id).unwrap();
                drop(stream.read(1));
                let _ = stream.write(&[1]);
                drop(stream.read(9));
                drop(stream.read(9));
            });
        }
        victim.say();
        for index in 0..4000 {
            victim.feed_frame(&wire::frame(frame::STREAM | 5, &[id(index).to_wire(), 2]));
        }
        victim.report(&format!("busy streams, resumption {resumption:?}"), 4000);
    }
}

#[test]
fn a_session_that_is_only_there() {
    let victim = Victim::new(Resumption::Off, |c| (c.session_window, c.send_buffer) = (0, 0));
    victim.report("a session", 1);
}

/// `pre_auth_bounded`
#[test]
fn an_acceptor_that_is_kept_waiting() {
    let mut config = Config::default();
    config.resumption = Resumption::Accept;
    let (mut meter, mut acceptor) = (Meter::default(), None);
    meter.run(|| acceptor = Some(Acceptor::new(&config)));
    let mut acceptor = acceptor.unwrap();
    let mut body = Vec::new();
    wire::put_parameter_bytes(&mut body, wire::parameter::RESUME, &[5]);
    let hello = wire::record(&wire::frame_with_block(frame::QX_TRANSPORT_PARAMETERS, &[], &body));
    let padding = wire::record(&[0; 16_000]);
    let mut worst = 0;
    let mut feed = |bytes: &[u8]| {
        let known = meter.run(|| acceptor.handle_input(Bytes::copy_from_slice(bytes)).is_some());
        worst = worst.max(meter.peak());
        known
    };
    assert!(!feed(&hello));
    assert!((0..100).any(|_| padding.chunks(100).any(&mut feed)), "it loses patience");
    println!("an acceptor: {worst} at worst; the formula says {}", acceptor_bound(&config));
    assert!(worst <= i64::try_from(acceptor_bound(&config)).unwrap());
}
