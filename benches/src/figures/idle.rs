//! The heap of streams and sessions that do nothing, before and after use.

use std::sync::Arc;

use bytes::Bytes;
use towline_engine::{Dir, Session, Side};

use super::{Before, Figure, config};
use crate::pair::{self, Pair, Wire};

/// How much passes each way before a thing is idle again.
const USE: usize = 64 << 10;

/// Streams on one pair of sessions.
pub(crate) fn streams(count: usize) -> Vec<Figure> {
    const WHAT: &str = "idle stream, an end";
    let piece = Bytes::from(vec![7; USE]);
    let mut figures = Vec::new();
    let mut ids = Vec::with_capacity(count);
    // The thread's pool of read buffers has one then, which no stream of those below has to answer for.
    Pair::new(config(1)).stream();

    // Both ends differ only while one of them does not know the stream.
    let mut pair = Pair::new(config(count));
    pair.drop_buffers();
    let before = Before::now();
    ids.extend((0..count).map(|_| pair.opener.open(Dir::Bi).expect("the limit is high enough")));
    figures.push(before.figure(WHAT, "just opened, the opener's", count));

    let mut pair = Pair::new(config(count));
    pair.drop_buffers();
    let before = Before::now();
    ids.clear();
    ids.extend((0..count).map(|_| pair.stream()));
    pair.drop_buffers();
    figures.push(before.figure(WHAT, "after 1 B each way", count * 2));

    let mut wire = Wire::default();
    for &id in &ids {
        pair::pass(&mut wire, [&mut pair.opener, &mut pair.acceptor], id, USE, &piece);
        pair::pass(&mut wire, [&mut pair.acceptor, &mut pair.opener], id, USE, &piece);
    }
    drop(wire);
    figures.push(before.figure(WHAT, "after 64 KiB each way", count * 2));
    figures
}

/// Many pairs of sessions.
pub(crate) fn sessions(count: usize) -> Vec<Figure> {
    const WHAT: &str = "idle session, an end";
    let piece = Bytes::from(vec![7; USE]);
    let mut sessions: Vec<[Session; 2]> = Vec::with_capacity(count);
    let struct_bytes = size_of::<Session>() as f64;
    let mut figures = vec![Figure {
        what: WHAT,
        when: "always".into(),
        value: struct_bytes,
        unit: "B, the struct",
        made_of: "size_of::<Session>(), wherever its owner keeps it".into(),
    }];

    let before = Before::now();
    let config = Arc::new(config(count));
    let new = |side| Session::new(side, config.clone());
    sessions.extend((0..count).map(|_| [new(Side::Client), new(Side::Server)]));
    figures.push(before.figure(WHAT, "new", count * 2));

    let mut wire = Wire::default();
    for [opener, acceptor] in &mut sessions {
        pair::acquaint(opener, acceptor, &mut wire);
    }
    drop(wire);
    figures.push(before.figure(WHAT, "attached, no stream", count * 2));

    let mut wire = Wire::default();
    for [opener, acceptor] in &mut sessions {
        let id = opener.open(Dir::Bi).expect("the limit is high enough");
        pair::write(opener, id, &mut Bytes::from_static(b"?"));
        wire.carry(opener, acceptor, |_| ());
        assert_eq!(acceptor.accept(Dir::Bi), Some(id));
        pair::pass(&mut wire, [opener, acceptor], id, USE, &piece);
        pair::pass(&mut wire, [acceptor, opener], id, USE, &piece);
        pair::end(&mut wire, [opener, acceptor], id);
    }
    drop(wire);
    figures.push(before.figure(WHAT, "after a stream with 64 KiB each way", count * 2));

    // Silence until the keepalive is due, at which a session gives back what it does not need.
    for session in sessions.iter_mut().flatten() {
        let (due, _) = session.poll_timeout().expect("a session with a pipe has a keepalive");
        session.handle_timeout(due);
    }
    let mut wire = Wire::default();
    for [opener, acceptor] in &mut sessions {
        pair::run(&mut wire, opener, acceptor);
    }
    drop(wire);
    figures.push(before.figure(WHAT, "after that, and a keepalive", count * 2));
    figures
}
