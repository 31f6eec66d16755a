//! UDP as quinn sees it: turmoil's, with the air in between.
//!
//! In and out: packets. What the link model says about a packet is done to it here: it is lost, waits, or comes twice. A
//! task of the socket's own gives each to turmoil when its time has come; turmoil brings it over in the next tick.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::sleep;
use turmoil::net::UdpSocket;

use super::air::{Air, State, Who};
use super::firewall::Kind;
use super::line::{Line, Way};
use crate::event::What;
use crate::link::{Fate, Nat};

/// A socket.
pub(super) struct SimUdp {
    air: Air,
    who: Who,
    inside: Mutex<Inside>,
    outgoing: Arc<Outgoing>,
}

struct Inside {
    io: Arc<UdpSocket>,
    /// The address, as others see it.
    address: SocketAddr,
    /// How often the endpoint had moved when the socket got its address.
    moves: u64,
    readable: Option<BoxFuture<'static, io::Result<()>>>,
    reader: Option<Waker>,
}

/// Packets that are under way.
#[derive(Default)]
struct Outgoing {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// By when they leave, in the order in which they were sent.
    packets: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// The socket is gone; what was sent still arrives.
    closed: bool,
}

struct Packet {
    io: Arc<UdpSocket>,
    to: SocketAddr,
    receiver: Option<Who>,
    bytes: Bytes,
}

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimUdp").field("who", &self.who).finish_non_exhaustive()
    }
}

impl SimUdp {
    pub(super) fn bind(air: Air, who: Who, host: &str, address: SocketAddr) -> io::Result<Arc<Self>> {
        let moves = air.lock().lines.get(&who).map_or(0, Line::moves);
        let inside = Inside::bind(&air, &who, host, address, moves)?;
        let outgoing = Arc::<Outgoing>::default();
        tokio::spawn(deliver(air.clone(), who.clone(), outgoing.clone()));
        Ok(Arc::new(Self { air, who, inside: Mutex::new(inside), outgoing }))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets another address, if the endpoint has, or if a NAT has forgotten this one. quinn is not told.
    fn follow(&self, inside: &mut Inside) -> io::Result<()> {
        let (moves, remembered) = {
            let mut state = self.air.lock();
            let now = state.now();
            let moves = state.lines.get(&self.who).map_or(0, Line::moves);
            (moves, state.touch_port(inside.address, now))
        };
        if moves != inside.moves || !remembered {
            let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
            self.air
                .emit(&self.who, What::Note { text: "its port of UDP is another one from now on".into() });
            let reader = inside.reader.take();
            let ip = inside.address.ip();
            self.air.lock().ports.remove(&inside.address);
            *inside = Inside::bind_at(&self.air, &self.who, ip, any, moves)?;
            reader.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }
}

impl Inside {
    fn bind(air: &Air, who: &Who, host: &str, address: SocketAddr, moves: u64) -> io::Result<Self> {
        Self::bind_at(air, who, turmoil::lookup(host), address, moves)
    }

    fn bind_at(
        air: &Air,
        who: &Who,
        ip: std::net::IpAddr,
        address: SocketAddr,
        moves: u64,
    ) -> io::Result<Self> {
        let io = UdpSocket::bind(address).now_or_never().expect("turmoil binds at once")?;
        let address = SocketAddr::new(ip, io.local_addr()?.port());
        let mut state = air.lock();
        let timeout = state.lines.get(who).and_then(Line::nat_timeout);
        let nat = Nat::new(timeout, state.now());
        state.ports.insert(address, Port { who: who.clone(), nat });
        drop(state);
        Ok(Self { io: Arc::new(io), address, moves, readable: None, reader: None })
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut inside = self.lock();
        self.follow(&mut inside)?;
        let mut state = self.air.lock();
        let receiver = state.ports.get(&transmit.destination).map(|port| port.who.clone());
        let now = state.now();
        let bytes = transmit.contents;
        let (fate, times) = state.fate(&self.who, receiver.as_ref(), now, bytes.len());
        let packet =
            What::PacketSent { length: bytes.len() as u64, digest: state.digest(bytes), fate: fate.into() };
        state.note(&self.who, packet);
        drop(state);
        let bytes = Bytes::copy_from_slice(bytes);
        let mut queue = self.outgoing.lock();
        for at in times.into_iter().flatten() {
            queue.sent += 1;
            let (io, receiver, number) = (inside.io.clone(), receiver.clone(), queue.sent);
            let packet = Packet { io, to: transmit.destination, receiver, bytes: bytes.clone() };
            queue.packets.insert((at, number), packet);
        }
        drop(queue);
        self.outgoing.changed.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inside = self.lock();
        inside.reader = Some(context.waker().clone());
        let mut count = 0;
        loop {
            // One that waits holds turmoil's lock, so there must be none while packets are taken.
            if let Some(readable) = &mut inside.readable {
                match readable.as_mut().poll(context) {
                    Poll::Ready(result) => {
                        inside.readable = None;
                        result?;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            while count < buffers.len()
                && let Ok((length, from)) = inside.io.try_recv_from(&mut buffers[count])
            {
                meta[count] = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                let length = meta[..count].iter().map(|meta| meta.len).sum();
                drop(inside);
                self.air.lock().carry(&self.who, Kind::Quic, length);
                return Poll::Ready(Ok(count));
            }
            let io = inside.io.clone();
            inside.readable = Some(Box::pin(async move { io.readable().await }));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.lock().io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        let address = self.lock().address;
        self.air.lock().ports.remove(&address);
        self.outgoing.lock().closed = true;
        self.outgoing.changed.notify_one();
    }
}

impl State {
    /// What becomes of a packet, and when it is there: never, once, or twice.
    fn fate(
        &mut self,
        from: &Who,
        to: Option<&Who>,
        now: u64,
        length: usize,
    ) -> (&'static str, [Option<u64>; 2]) {
        let mut times = [Some(now), None];
        for (who, way) in [(Some(from), Way::Up), (to, Way::Down)] {
            let Some(line) = who.and_then(|who| self.lines.get_mut(who)) else { continue };
            if line.loses_datagrams(way) {
                return ("blocked", [None; 2]);
            }
            let mut next = [None; 2];
            let mut lost = None;
            for at in times.into_iter().flatten() {
                match line.carry_datagram(way, at, length) {
                    Fate::Arrives { at, again } => {
                        let free = next.iter_mut().filter(|slot| slot.is_none());
                        free.zip([Some(at), again].into_iter().flatten())
                            .for_each(|(slot, at)| *slot = Some(at));
                    }
                    Fate::TooLarge => lost = Some("too large"),
                    Fate::QueueFull => lost = Some("queue full"),
                    Fate::Lost => lost = Some("lost"),
                }
            }
            if let (Some(lost), [None, None]) = (lost, next) {
                return (lost, [None; 2]);
            }
            times = next;
        }
        (if times[1].is_some() { "twice" } else { "sent" }, times)
    }
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives packets to turmoil when their time has come, until the socket is gone and all are on their way.
async fn deliver(air: Air, who: Who, outgoing: Arc<Outgoing>) {
    loop {
        let changed = outgoing.changed.notified();
        let (next, closed) = {
            let queue = outgoing.lock();
            (queue.packets.keys().next().copied(), queue.closed)
        };
        let Some((at, number)) = next else {
            if closed {
                return;
            }
            changed.await;
            continue;
        };
        let now = air.lock().now();
        if at > now {
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep(Duration::from_nanos(at - now)) => {}
            }
            continue;
        }
        let Some(packet) = outgoing.lock().packets.remove(&(at, number)) else { continue };
        air.let_go(&who, packet.receiver.as_ref()).await;
        let receiver = packet.receiver.as_ref();
        let gets_through = {
            let mut state = air.lock();
            let now = state.now();
            // What comes in for a port that the NAT has forgotten goes nowhere.
            !state.loses(&who, receiver) && state.touch_port(packet.to, now)
        };
        if gets_through {
            // Nobody is told of what turmoil does not want.
            let _ = packet.io.try_send_to(&packet.bytes, packet.to);
        }
    }
}

/// A port of UDP, and what a NAT in front of it remembers.
#[derive(Debug)]
pub(super) struct Port {
    who: Who,
    nat: Nat,
}

impl State {
    /// A packet goes out from a port, or comes in to it. Returns whether the NAT still knows whose it is.
    fn touch_port(&mut self, address: SocketAddr, now: u64) -> bool {
        let Some(port) = self.ports.get_mut(&address) else { return true };
        let remembers = port.nat.remembers(now);
        if remembers {
            port.nat.touch(now);
        }
        remembers
    }

    /// Whether a packet that is under way is lost.
    fn loses(&self, from: &Who, to: Option<&Who>) -> bool {
        let loses = |who: &Who, way| self.lines.get(who).is_some_and(|line| line.loses_datagrams(way));
        loses(from, Way::Up) || to.is_some_and(|to| loses(to, Way::Down))
    }

    fn is_held(&self, from: &Who, to: Option<&Who>) -> bool {
        let held = |who: &Who, way| self.lines.get(who).is_some_and(|line| line.is_held(way));
        held(from, Way::Up) || to.is_some_and(|to| held(to, Way::Down))
    }
}

impl Air {
    /// Waits until neither line is held.
    async fn let_go(&self, from: &Who, to: Option<&Who>) {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if state.is_held(from, to) {
                state.wait(context.waker());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// turmoil takes every packet.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
