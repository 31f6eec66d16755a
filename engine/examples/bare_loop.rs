//! A session in a loop without std: what a firmware's main loop looks like, with a UART or a modem for a pipe.
//!
//! `run` uses `core` and `alloc` only. Here it is linked with std, so that `cargo run --example bare_loop` shows it at
//! work against a peer in the same process; that the engine builds for a bare target is checked by
//! `cargo check -p towline-engine --target thumbv7em-none-eabihf`.

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use towline_engine::{Config, Dir, Epoch, Event, Instant, PipeClosed, Session, Side};

/// What the board gives: a serial line that takes and has some bytes, or none, and a timer.
trait Board {
    /// Takes some of `bytes` and returns how many.
    fn send(&mut self, bytes: &[u8]) -> usize;
    /// Puts what has come into `buffer` and returns how much; `None` when the line is down.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;
    /// The time since the board was started.
    fn now(&self) -> Instant;
    /// Sleeps until something comes, there is room to send, or the time has come.
    fn sleep_until(&mut self, time: Option<Instant>);
}

const EPOCH: Epoch = Epoch(0);

/// Asks the other end for its temperature, and returns the answer once it is complete.
fn run(board: &mut impl Board, config: Config) -> Option<Vec<u8>> {
    let mut session = Session::new(Side::Client, config);
    session.attach(board.now(), EPOCH).ok()?;
    // A record that is on its way out, and how much of it has gone.
    let (mut outbox, mut sent) = (Vec::new(), 0);
    let (mut stream, mut answer) = (None, Vec::new());
    loop {
        // In: whatever has come, whether or not there is room to send.
        let mut buffer = [0; 256];
        match board.receive(&mut buffer) {
            Some(count) => {
                session.handle_input(board.now(), EPOCH, Bytes::copy_from_slice(&buffer[..count]));
            }
            None => session.handle_pipe_closed(board.now(), EPOCH, PipeClosed::Failed),
        }
        session.handle_timeout(board.now());

        // The application.
        while let Some(event) = session.poll_event() {
            match event {
                Event::Attached(_) => {
                    let id = session.open(Dir::Bi).ok()?;
                    session.stream(id).ok()?.write(b"temperature?").ok()?;
                    session.stream(id).ok()?.finish().ok()?;
                    stream = Some(id);
                }
                Event::Closed(_) => return None,
                _ => {}
            }
        }
        if let Some(id) = stream {
            while let Ok(read) = session.stream(id).ok()?.read(usize::MAX) {
                match read {
                    Some(bytes) => answer.extend_from_slice(&bytes),
                    None => return Some(answer),
                }
            }
        }

        // Out: one record at a time, made when the line can take it.
        if sent == outbox.len() {
            let mut slices = Vec::new();
            session.poll_transmit(board.now(), 1024, &mut slices);
            (outbox, sent) = (slices.concat(), 0);
        }
        sent += board.send(&outbox[sent..]);
        board.sleep_until(session.poll_timeout().map(|(at, _)| at));
    }
}

/// A board whose serial line leads to a session in the same process, a few bytes at a time.
struct Bench {
    peer: Session,
    now: Instant,
    to_board: Vec<u8>,
}

impl Board for Bench {
    fn send(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(16);
        self.peer.handle_input(self.now, EPOCH, Bytes::copy_from_slice(&bytes[..count]));
        if let Some(id) = self.peer.accept(Dir::Bi) {
            let mut stream = self.peer.stream(id).expect("it was just accepted");
            stream.write(b"42 degrees").expect("there is room for ten bytes");
            stream.finish().expect("it is open");
        }
        count
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.to_board.is_empty() {
            let mut slices = Vec::new();
            self.peer.poll_transmit(self.now, 1024, &mut slices);
            self.to_board = slices.concat();
        }
        let count = self.to_board.len().min(buffer.len()).min(10);
        buffer[..count].copy_from_slice(&self.to_board[..count]);
        self.to_board.drain(..count);
        Some(count)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn sleep_until(&mut self, time: Option<Instant>) {
        let soon = self.now + Duration::from_millis(1);
        self.now = time.map_or(soon, |time| time.min(soon));
    }
}

fn main() {
    let mut peer = Session::new(Side::Server, Config::default());
    peer.attach(Instant::default(), EPOCH).expect("a new session takes a pipe");
    let mut bench = Bench { peer, now: Instant::default(), to_board: Vec::new() };
    let answer = run(&mut bench, Config::default()).expect("the peer is there");
    println!("{}", String::from_utf8_lossy(&answer));
    assert_eq!(answer, b"42 degrees");
}
