//! What the near end does through a way, in its network: plain TCP to the way's local port.
//!
//! Keys, messages and requests begin at fixed times, so that a way that stands still is not asked less.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::tunnel::target::{Meters, PIECE, Wants, connect, head, request, send};

/// One sample of a transfer's rate is over this.
pub(super) const BIN: Duration = Duration::from_millis(250);

/// Makes `count` requests, each on a connection of its own, one `every` so long. Returns how long each took.
pub(super) fn requests(address: SocketAddr, count: usize, every: Duration) -> io::Result<Vec<Duration>> {
    thread::scope(|scope| {
        let start = Instant::now();
        let begin = |due: Instant| {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            scope.spawn(move || request(address))
        };
        let requests: Vec<_> = (0_u32..).map(|index| start + every * index).take(count).map(begin).collect();
        requests.into_iter().map(|request| request.join().expect("it does not panic")).collect()
    })
}

/// A connection whose bytes come back.
pub(super) struct Echo {
    socket: TcpStream,
    message: Vec<u8>,
}

impl Echo {
    /// One on which a message of so many bytes has come back, so that it is open from end to end.
    pub(super) fn open(address: SocketAddr, bytes: usize) -> io::Result<Self> {
        let mut echo = Self { socket: connect(address)?, message: vec![7; bytes] };
        echo.socket.write_all(&head(Wants::Echo, 0))?;
        echo.socket.write_all(&echo.message)?;
        echo.socket.read_exact(&mut vec![0; bytes])?;
        Ok(echo)
    }

    /// Sends `count` messages, one `every` so long. Returns how long each took to come back.
    pub(super) fn send(&mut self, count: usize, every: Duration) -> io::Result<Vec<Duration>> {
        let (sent, times) = mpsc::channel::<Instant>();
        let mut reader = self.socket.try_clone()?;
        let length = self.message.len();
        thread::scope(|scope| {
            let latencies = scope.spawn(move || {
                let mut message = vec![0; length];
                let mut latencies = Vec::with_capacity(count);
                while latencies.len() < count {
                    reader.read_exact(&mut message)?;
                    let sent = times.recv().map_err(io::Error::other)?;
                    latencies.push(sent.elapsed());
                }
                io::Result::Ok(latencies)
            });
            let start = Instant::now();
            for due in (1_u32..).map(|index| start + every * index).take(count) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // That it waits for the one before to be taken is part of what is measured.
                let _ = sent.send(due);
                self.socket.write_all(&self.message)?;
            }
            latencies.join().expect("it does not panic")
        })
    }
}

/// A transfer that goes on until it is stopped, or this is dropped.
pub(super) struct Bulk {
    socket: TcpStream,
    /// Since before it was connected.
    begun: Instant,
    arrived: Arc<AtomicU64>,
    transfer: Option<JoinHandle<io::Result<()>>>,
}

/// An upload that has not begun, on a connection that is open from end to end.
pub(super) struct Ready {
    socket: TcpStream,
    arrived: Arc<AtomicU64>,
}

impl Ready {
    pub(super) fn open(address: SocketAddr, meters: &Meters) -> io::Result<Self> {
        let (mut socket, arrived) = ask_for_upload(address, meters)?;
        socket.read_exact(&mut [0])?;
        Ok(Self { socket, arrived })
    }

    pub(super) fn begin(self) -> io::Result<Bulk> {
        Bulk::send(self.socket, Instant::now(), self.arrived)
    }
}

fn ask_for_upload(address: SocketAddr, meters: &Meters) -> io::Result<(TcpStream, Arc<AtomicU64>)> {
    let (number, arrived) = meters.add();
    let mut socket = connect(address)?;
    socket.write_all(&head(Wants::Metered, number))?;
    Ok((socket, arrived))
}

impl Bulk {
    /// From here to the target.
    pub(super) fn up(address: SocketAddr, meters: &Meters) -> io::Result<Self> {
        let begun = Instant::now();
        let (socket, arrived) = ask_for_upload(address, meters)?;
        Self::send(socket, begun, arrived)
    }

    fn send(mut socket: TcpStream, begun: Instant, arrived: Arc<AtomicU64>) -> io::Result<Self> {
        let other = socket.try_clone()?;
        let transfer = thread::spawn(move || send(&mut socket, u64::MAX));
        Ok(Self { socket: other, begun, arrived, transfer: Some(transfer) })
    }

    /// From the target to here.
    pub(super) fn down(address: SocketAddr) -> io::Result<Self> {
        let begun = Instant::now();
        let mut socket = Self::ask_for_download(address)?;
        let arrived = Arc::<AtomicU64>::default();
        let (other, counter) = (socket.try_clone()?, arrived.clone());
        let transfer = thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            while let count @ 1.. = socket.read(&mut piece)? {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { socket: other, begun, arrived, transfer: Some(transfer) })
    }

    /// A download of which nothing is read.
    pub(super) fn ask_for_download(address: SocketAddr) -> io::Result<TcpStream> {
        let mut socket = connect(address)?;
        socket.write_all(&head(Wants::Down, u64::MAX))?;
        Ok(socket)
    }

    /// How many bytes have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// What arrives for so long, from when it was begun, each [`BIN`], in Mbit/s. While it is not connected that is nothing.
    pub(super) fn rates(&self, duration: Duration) -> Vec<f64> {
        let (mut before, mut since) = (0, self.begun);
        let mut rates = Vec::new();
        for due in (1_u32..).map(|index| BIN * index).take_while(|&due| due <= duration) {
            let Some(left) = (self.begun + due).checked_duration_since(Instant::now()) else {
                rates.push(0.0);
                since = self.begun + due;
                continue;
            };
            thread::sleep(left);
            let (arrived, now) = (self.arrived(), Instant::now());
            rates.push(mbit_per_s(arrived - before, now - since));
            (before, since) = (arrived, now);
        }
        rates
    }

    /// Whether it goes on.
    pub(super) fn is_alive(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| !transfer.is_finished())
    }

    /// Stops it, with a reset, so that what was accepted on its way is not carried on beside whatever is measured next.
    pub(super) fn stop(mut self) -> io::Result<()> {
        let has_ended = !self.is_alive();
        abort(&self.socket)?;
        let ended = self.transfer.take().map(|transfer| transfer.join().expect("it does not panic"));
        if has_ended {
            return Err(io::Error::other(format!("the transfer ended by itself: {ended:?}")));
        }
        Ok(())
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = abort(&self.socket);
    }
}

/// Ends a connection with a reset.
pub(super) fn abort(socket: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
    socket.shutdown(Shutdown::Both)
}

/// The rate at which so many bytes took so long, to a kbit/s.
pub(super) fn mbit_per_s(bytes: u64, took: Duration) -> f64 {
    (bytes as f64 * 8.0 / 1e3 / took.as_secs_f64()).round() / 1e3
}
