//! What stands at the far end, and how it is talked to from the near one: plain TCP, in threads of their own.
//!
//! A connection begins with nine bytes: what is wanted, and how many bytes of it. The near end measures everything,
//! since the last thing that comes back says that all has arrived.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How many bytes are read and written at a time.
pub(crate) const PIECE: usize = 64 << 10;

/// How long anything may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it is from key to key.
const BETWEEN_KEYS: Duration = Duration::from_millis(3);

/// The bytes of a request.
pub(crate) const REQUEST: usize = 1 << 10;

/// What the near end wants of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wants {
    /// To send so many bytes, and to get one byte back when all are there.
    Up,
    /// To get so many bytes.
    Down,
    /// To get back what it sends.
    Echo,
    /// To get a byte at once, and then the same as `Up`.
    UpOnceOpen,
    /// To get a byte at once, and to send as long as it likes; the "how many" is the number of a meter.
    Metered,
}

/// Counts what has arrived at the target, for whoever is in the same process: nothing has to come back for it. And ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    all: Arc<Mutex<Vec<Arc<AtomicU64>>>>,
    is_over: Arc<AtomicBool>,
}

impl Meters {
    /// A new one, and its number.
    pub(crate) fn add(&self) -> (u64, Arc<AtomicU64>) {
        let mut meters = self.all.lock().expect("nobody panics with it");
        let meter = Arc::<AtomicU64>::default();
        meters.push(meter.clone());
        (meters.len() as u64 - 1, meter)
    }

    /// Ends the target at `address`, which is in the network of this thread.
    pub(crate) fn end(&self, address: SocketAddr) {
        self.is_over.store(true, Ordering::Release);
        // It looks when somebody comes; if nobody can, it has ended.
        let _ = TcpStream::connect(address);
    }

    fn get(&self, number: u64) -> Option<Arc<AtomicU64>> {
        let meters = self.all.lock().expect("nobody panics with it");
        meters.get(usize::try_from(number).ok()?).cloned()
    }
}

/// The first bytes of a connection.
pub(crate) fn head(wants: Wants, bytes: u64) -> [u8; 9] {
    let mut head = [0; 9];
    head[0] = match wants {
        Wants::Up => b'u',
        Wants::Down => b'd',
        Wants::Echo => b'e',
        Wants::UpOnceOpen => b'o',
        Wants::Metered => b'm',
    };
    head[1..].copy_from_slice(&bytes.to_be_bytes());
    head
}

/// Starts the target at `host`. It lasts as long as the process, or until `meters` end it.
pub(crate) fn start(host: Ipv4Addr, meters: &Meters) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((host, 0))?;
    let (address, meters) = (listener.local_addr()?, meters.clone());
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            if meters.is_over.load(Ordering::Acquire) {
                return;
            }
            let meters = meters.clone();
            // Whoever leaves early measures nothing.
            thread::spawn(move || _ = serve(socket, &meters));
        }
    });
    Ok(address)
}

fn serve(mut socket: TcpStream, meters: &Meters) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // A line may have ended, on which it would have been told that its peer has left.
    socket.set_read_timeout(Some(2 * PATIENCE))?;
    socket.set_write_timeout(Some(2 * PATIENCE))?;
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let bytes = u64::from_be_bytes(head[1..].try_into().expect("it is eight bytes"));
    match head[0] {
        b'u' => {
            receive(&mut socket, bytes)?;
            socket.write_all(b"!")
        }
        b'o' => {
            socket.write_all(b"!")?;
            receive(&mut socket, bytes)?;
            socket.write_all(b"!")
        }
        b'd' => send(&mut socket, bytes),
        b'm' => {
            let meter = meters.get(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            socket.write_all(b"!")?;
            let mut piece = vec![0; PIECE];
            while let count @ 1.. = socket.read(&mut piece)? {
                meter.fetch_add(count as u64, Ordering::Relaxed);
            }
            Ok(())
        }
        _ => {
            let mut piece = [0; REQUEST];
            while let count @ 1.. = socket.read(&mut piece)? {
                socket.write_all(&piece[..count])?;
            }
            Ok(())
        }
    }
}

/// Sends `bytes` bytes to the target through `address`. Returns how long it took until all were there.
pub(crate) fn upload(address: SocketAddr, bytes: u64) -> io::Result<Duration> {
    let start = Instant::now();
    let mut socket = connect(address)?;
    socket.write_all(&head(Wants::Up, bytes))?;
    send(&mut socket, bytes)?;
    socket.read_exact(&mut [0])?;
    Ok(start.elapsed())
}

/// An upload that has not begun, on a connection that is open from end to end.
#[derive(Debug)]
pub(crate) struct Upload {
    socket: TcpStream,
    bytes: u64,
}

impl Upload {
    pub(crate) fn open(address: SocketAddr, bytes: u64) -> io::Result<Self> {
        let mut socket = connect(address)?;
        socket.write_all(&head(Wants::UpOnceOpen, bytes))?;
        socket.read_exact(&mut [0])?;
        Ok(Self { socket, bytes })
    }

    /// Sends all of it, and waits until it is there.
    pub(crate) fn run(mut self) -> io::Result<()> {
        send(&mut self.socket, self.bytes)?;
        self.socket.read_exact(&mut [0])
    }
}

/// Gets `bytes` bytes from the target through `address`. Returns how long it took.
pub(crate) fn download(address: SocketAddr, bytes: u64) -> io::Result<Duration> {
    let start = Instant::now();
    let mut socket = connect(address)?;
    socket.write_all(&head(Wants::Down, bytes))?;
    receive(&mut socket, bytes)?;
    Ok(start.elapsed())
}

/// Connects to the target through `address`, gets a kibibyte back, and leaves. Returns how long it took.
pub(crate) fn request(address: SocketAddr) -> io::Result<Duration> {
    let start = Instant::now();
    let mut socket = connect(address)?;
    let mut message = [7; 9 + REQUEST];
    message[..9].copy_from_slice(&head(Wants::Echo, 0));
    socket.write_all(&message)?;
    socket.read_exact(&mut message[9..])?;
    drop(socket);
    Ok(start.elapsed())
}

/// Sends `count` keys through `address`, one at a time, as somebody types who is fast. Returns how long each took to come
/// back.
pub(crate) fn keystrokes(address: SocketAddr, count: usize) -> io::Result<Vec<Duration>> {
    let mut socket = connect(address)?;
    socket.write_all(&head(Wants::Echo, 0))?;
    // The first key waits for the connection to be opened, and counts for nothing.
    socket.write_all(&[7])?;
    socket.read_exact(&mut [0])?;
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        thread::sleep(BETWEEN_KEYS);
        let start = Instant::now();
        socket.write_all(&[7])?;
        socket.read_exact(&mut [0])?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

/// The same while another connection through `address` uploads as much as it can, and has done so for long enough to fill
/// whatever there is on its way.
pub(crate) fn keystrokes_beside_bulk(
    address: SocketAddr,
    count: usize,
    warm_up: Duration,
) -> io::Result<Vec<Duration>> {
    let mut bulk = connect(address)?;
    bulk.write_all(&head(Wants::Up, u64::MAX))?;
    let other = bulk.try_clone()?;
    // It ends when the socket is shut down.
    let bulk = thread::spawn(move || send(&mut bulk, u64::MAX));
    thread::sleep(warm_up);
    let latencies = keystrokes(address, count);
    // With a reset, so that what was accepted on the way is not carried on beside whatever is measured next.
    socket2::SockRef::from(&other).set_linger(Some(Duration::ZERO))?;
    other.shutdown(std::net::Shutdown::Both)?;
    let ended_early = bulk.join().expect("it does not panic").err();
    drop(other);
    match ended_early.map(|error| error.kind()) {
        Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => latencies,
        kind => Err(io::Error::other(format!("the bulk beside the keys ended by itself: {kind:?}"))),
    }
}

/// Connects to the target through `address`.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends so many bytes.
pub(crate) fn send(socket: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let piece = vec![7; PIECE];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PIECE as u64);
        socket.write_all(&piece[..usize::try_from(count).expect("it is at most a piece")])?;
        left -= count;
    }
    Ok(())
}

fn receive(socket: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut got = 0;
    while got < bytes {
        match socket.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count as u64,
        }
    }
    Ok(())
}
