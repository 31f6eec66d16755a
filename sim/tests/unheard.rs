//! A session that nobody listens to allocates what it would without a log.
#![allow(clippy::unwrap_used, reason = "tests")]

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use towline_engine::{Config, Dir, Epoch, Instant, Session, Side};
use towline_transports::qlog::Recorded;

const NOW: Instant = Instant::from_nanos(0);
const FIRST: Epoch = Epoch(0);

/// Two ends that a macro can make of either kind: a stream with some data, and its end.
macro_rules! conversation {
    ($new:expr) => {
        measure(|| {
            let new = $new;
            let (mut client, mut server) = (new(Side::Client), new(Side::Server));
            client.attach(NOW, FIRST).unwrap();
            server.attach(NOW, FIRST).unwrap();
            let mut pipe: Vec<Bytes> = Vec::with_capacity(64);
            for round in 0..20 {
                while client.poll_transmit(NOW, 16 << 10, &mut pipe) > 0 {}
                pipe.drain(..).for_each(|bytes| server.handle_input(NOW, FIRST, bytes));
                while server.poll_transmit(NOW, 16 << 10, &mut pipe) > 0 {}
                pipe.drain(..).for_each(|bytes| client.handle_input(NOW, FIRST, bytes));
                while client.poll_event().is_some() || server.poll_event().is_some() {}
                if let Ok(id) = client.open(Dir::Bi) {
                    client.stream(id).unwrap().write(&[round; 3_000]).unwrap();
                    client.stream(id).unwrap().finish().unwrap();
                }
                while let Some(id) = server.accept(Dir::Bi) {
                    while let Ok(Some(_)) = server.stream(id).unwrap().read(1_000) {}
                    server.copy_out();
                    server.release(id, Default::default());
                }
            }
            client.close(NOW, Default::default(), b"enough");
        })
    };
}

#[test]
fn a_log_that_nobody_wants_allocates_nothing() {
    let bare = conversation!(|side| Session::new(side, Config::default()));
    let unheard = conversation!(|side| Recorded::unheard(side, Config::default()));
    let start = tokio::time::Instant::now();
    let not_asked_for = conversation!(|side| Recorded::new(side, Config::default(), start, "link"));
    assert!(bare.count_total > 50, "something was measured: {bare:?}");
    let totals = |info: &AllocationInfo| (info.count_total, info.bytes_total);
    assert_eq!(totals(&unheard), totals(&bare));
    assert_eq!(totals(&not_asked_for), totals(&bare));
}
