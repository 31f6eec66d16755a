//! Records and frames: arbitrary bytes, cut in arbitrary places, through the public door.
//!
//! Oracles: `split_invariance`: cut otherwise, the same bytes give the same events, the same bytes to read, the same
//! answers and the same fingerprint; and no panic. A pipe that was accepted is read first by an acceptor, which makes
//! no difference either.

use arbitrary::Unstructured;
use bytes::Bytes;
use towline_engine::{Acceptor, Credit, Dir, Epoch, Event, Instant, ReadError, Session, Side, StreamId};

use crate::harness::Harness;
use crate::setup::{Setup, Stage};

/// An input as it was meant.
#[derive(Debug)]
pub struct Input<'a> {
    /// Where the run begins.
    pub setup: Setup,
    /// How many bytes arrive at a time, over and over; 0: all that are left.
    pub cuts: [u8; 4],
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Any bytes are an input.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn new(data: &'a [u8]) -> Self {
        let mut u = Unstructured::new(data);
        let setup = u.arbitrary().expect("missing bytes are zeros");
        let cuts = u.arbitrary().expect("missing bytes are zeros");
        Self { setup, cuts, bytes: u.take_rest() }
    }
}

/// Everything that can be seen of a session.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    fingerprint: u128,
    events: Vec<Event>,
    read: Vec<(StreamId, Vec<u8>, Result<(), ReadError>)>,
    credit: Credit,
    open_streams: usize,
    said: Vec<u8>,
    fingerprint_after: u128,
}

/// Runs an input.
///
/// # Panics
///
/// If it matters where the bytes were cut.
pub fn run(data: &[u8]) {
    let Input { setup, cuts, bytes } = Input::new(data);
    let (session, now, epoch) = Harness::new(setup).into_session();
    let feed = |cuts: [u8; 4]| {
        let mut session = session.clone();
        for chunk in cut(bytes, cuts) {
            session.handle_input(now, epoch, Bytes::copy_from_slice(chunk));
        }
        outcome(session, now)
    };
    let whole = feed([0; 4]);
    assert_eq!(whole, feed(cuts), "split_invariance: cut {cuts:?}");
    if bytes.len() < 600 {
        assert_eq!(whole, feed([1; 4]), "split_invariance: cut at every byte");
    }
    if setup.side == Side::Server && setup.stage == Stage::Fresh {
        for cuts in [[0; 4], cuts] {
            assert_eq!(
                whole,
                accepted(setup, now, epoch, cut(bytes, cuts)),
                "an acceptor makes no difference"
            );
        }
    }
}

/// The bytes, in pieces.
fn cut(bytes: &[u8], cuts: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    let (mut left, mut cuts) = (bytes, cuts.into_iter().cycle());
    std::iter::from_fn(move || {
        let count = cuts.next().filter(|&count| count > 0).map_or(left.len(), usize::from);
        left.split_off(..count.min(left.len())).filter(|chunk| !chunk.is_empty())
    })
}

/// The same through an acceptor.
fn accepted<'a>(setup: Setup, now: Instant, epoch: Epoch, chunks: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let config = setup.config();
    let mut session = Session::new(Side::Server, config.clone());
    let mut acceptor = Some(Acceptor::new(&config));
    for chunk in chunks {
        let chunk = Bytes::copy_from_slice(chunk);
        match &mut acceptor {
            Some(reader) => {
                if reader.handle_input(chunk).is_some()
                    && let Some(reader) = acceptor.take()
                {
                    session.attach_accepted(now, epoch, reader).expect("its first pipe");
                }
            }
            None => session.handle_input(now, epoch, chunk),
        }
    }
    // It never became clear: the owner gives what came to a session in the end.
    if let Some(reader) = acceptor {
        session.attach_accepted(now, epoch, reader).expect("its first pipe");
    }
    outcome(session, now)
}

fn outcome(mut session: Session, now: Instant) -> Outcome {
    session.check_invariants();
    let fingerprint = session.fingerprint(now);
    let events = std::iter::from_fn(|| session.poll_event()).collect();
    let mut read = Vec::new();
    for dir in [Dir::Bi, Dir::Uni] {
        while let Some(id) = session.accept(dir) {
            let (mut bytes, mut stream) = (Vec::new(), session.stream(id).expect("it was just accepted"));
            let end = loop {
                match stream.read(usize::MAX) {
                    Ok(Some(data)) => bytes.extend_from_slice(&data),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            read.push((id, bytes, end));
        }
    }
    let (credit, open_streams) = (session.credit(), session.open_streams());
    let mut said = Vec::new();
    while session.poll_transmit(now, 1 << 14, &mut said) > 0 {}
    session.check_invariants();
    let fingerprint_after = session.fingerprint(now);
    Outcome { fingerprint, events, read, credit, open_streams, said: said.concat(), fingerprint_after }
}
