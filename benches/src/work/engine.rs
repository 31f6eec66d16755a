//! The work, over two sessions that are pumped by hand: what the engine alone costs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use towline_engine::{Code, Dir, Event, Session, StreamId};

use super::streams::shares;
use super::{ECHO, PIECE, Sample, Workload};
use crate::alloc;
use crate::clock;
use crate::figures::UNIT;
use crate::muxer::{self, Windows};
use crate::pair::{Pair, read_all, write};

/// Two sessions at work.
#[derive(Debug)]
pub struct Bench {
    pair: Pair,
    source: Bytes,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new(Windows::Default)
    }
}

/// As [`run`](super::run), of the engine.
pub(crate) fn run(windows: Windows, workload: Workload, warm_up: u64, times: u64) -> Sample {
    let mut bench = Bench::new(windows);
    bench.work(workload, warm_up);
    let before = bench.wire_bytes();
    let (heap, cpu, wall) = (alloc::heap(), clock::thread_cpu(), Instant::now());
    let latencies = bench.work(workload, times);
    let (heap, cpu, wall) = (alloc::heap() - heap, clock::thread_cpu() - cpu, wall.elapsed());
    Sample { times, wall, cpu, wire_bytes: bench.wire_bytes() - before, heap, latencies }
}

impl Bench {
    fn new(windows: Windows) -> Self {
        Self { pair: Pair::new(muxer::config(windows)), source: Bytes::from(vec![7; PIECE]) }
    }

    /// Does `workload` so many times. Returns how long each took, of echoes.
    pub fn work(&mut self, workload: Workload, times: u64) -> Vec<Duration> {
        let streams = workload.streams();
        match workload {
            Workload::Bulk | Workload::Bulk64 => self.send(streams, times),
            Workload::OpenClose | Workload::OpenClose64 => self.open_and_close(streams, times),
            Workload::Echo => return self.echo(times),
        }
        Vec::new()
    }

    fn wire_bytes(&self) -> u64 {
        self.pair.opener.stats().bytes_sent + self.pair.acceptor.stats().bytes_sent
    }

    /// Sends `times` units on `streams` streams, read as they come; who writes and who reads goes by the events, as
    /// from a driver.
    fn send(&mut self, streams: usize, times: u64) {
        let shares = shares(times, streams);
        let shares =
            shares.map(|share| usize::try_from(share * UNIT).expect("it was told on the command line"));
        let mut left: BTreeMap<_, _> = shares.map(|share| (self.pair.stream(), share)).collect();
        let ids: Vec<_> = left.keys().copied().collect();
        let (mut got, all) = (0, left.values().sum());
        let mut writable = ids.clone();
        while got < all {
            for id in writable.drain(..) {
                let left = left.get_mut(&id).expect("only these are open");
                *left -= self.write_some(id, *left);
            }
            self.pair.carry_forth(|acceptor| {
                while let Some(event) = acceptor.poll_event() {
                    if let Event::Readable(id) = event {
                        got += read_all(acceptor, id);
                    }
                }
            });
            self.pair.carry_back(|_| ());
            while let Some(event) = self.pair.opener.poll_event() {
                if let Event::Writable(id) = event {
                    writable.push(id);
                }
            }
        }
        self.end(&ids);
    }

    /// Writes at most `most` bytes, in pieces; returns how many were taken.
    fn write_some(&mut self, id: StreamId, most: usize) -> usize {
        let mut done = 0;
        while done < most {
            let piece = PIECE.min(most - done);
            let count = write(&mut self.pair.opener, id, &mut self.source.slice(..piece));
            done += count;
            if count < piece {
                break;
            }
        }
        done
    }

    fn echo(&mut self, times: u64) -> Vec<Duration> {
        let id = self.pair.stream();
        let message = self.source.slice(..ECHO);
        let echoes = (0..times).map(|_| {
            let start = Instant::now();
            write(&mut self.pair.opener, id, &mut message.clone());
            self.pair.carry_forth(|acceptor| {
                let count = read_all(acceptor, id);
                write(acceptor, id, &mut message.slice(..count));
            });
            let mut got = 0;
            self.pair.carry_back(|opener| got += read_all(opener, id));
            assert_eq!(got, ECHO);
            self.pair.drop_events();
            start.elapsed()
        });
        let latencies = echoes.collect();
        self.end(&[id]);
        latencies
    }

    /// Opens and closes `times` streams, `at_once` at a time.
    fn open_and_close(&mut self, at_once: usize, times: u64) {
        let mut left = times;
        while left > 0 {
            let count = left.min(at_once as u64);
            left -= count;
            let ids: Vec<_> = (0..count).map(|_| self.open()).collect();
            self.pair.carry_forth(|acceptor| {
                while let Some(id) = acceptor.accept(Dir::Bi) {
                    let count = read_all(acceptor, id);
                    write(acceptor, id, &mut Bytes::from_static(b"!").slice(..count));
                }
            });
            self.pair.carry_back(|opener| {
                assert_eq!(ids.iter().map(|&id| read_all(opener, id)).sum::<usize>(), ids.len());
            });
            self.end(&ids);
        }
    }

    fn open(&mut self) -> StreamId {
        let opener = &mut self.pair.opener;
        let id = opener.open(Dir::Bi).expect("the limit on streams is high enough");
        write(opener, id, &mut Bytes::from_static(b"?"));
        id
    }

    /// Finishes and releases streams at both ends: first the opener, then the acceptor once it has seen that.
    fn end(&mut self, ids: &[StreamId]) {
        let finish = |session: &mut Session, id| {
            session.stream(id).expect("it is open").finish().expect("it was not finished before");
        };
        ids.iter().for_each(|&id| finish(&mut self.pair.opener, id));
        self.pair.carry_forth(|acceptor| {
            for &id in ids {
                assert_eq!(read_all(acceptor, id), 0);
                finish(acceptor, id);
                acceptor.release(id, Code::default());
            }
        });
        self.pair.carry_back(|opener| {
            for &id in ids {
                assert_eq!(read_all(opener, id), 0);
                opener.release(id, Code::default());
            }
        });
        self.pair.run();
    }
}
