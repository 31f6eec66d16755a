//! rustls through its unbuffered interface, on the socket itself: the least that TLS costs with this library.
//!
//! 128 KiB and what is left of a record are read at a time, and opened where they lie; four records are written at a
//! time. There is one stream, and no muxer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Connect, Listen, Transport, tcp};
use crate::muxer::{AcceptOnce, OpenOnce, Stream, UP};
use crate::transports::trust::{self, Trust};

/// How much is read at a time, and a record that came in part.
const BUFFER: usize = (128 << 10) + (17 << 10);

/// It.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unbuffered;

#[derive(Clone)]
pub(crate) struct Connector(SocketAddr, Arc<ClientConfig>);

pub(crate) struct Listener(TcpListener, Arc<ServerConfig>);

impl Transport for Unbuffered {
    type Connector = Connector;
    type Listener = Listener;

    async fn listen(self, trust: &Trust) -> anyhow::Result<(Listener, SocketAddr)> {
        let (listener, address) = tcp::listen().await?;
        Ok((Listener(listener, trust.server_config()?), address))
    }

    fn connector(self, trust: &Trust, address: SocketAddr) -> anyhow::Result<Connector> {
        Ok(Connector(address, trust.client_config()?))
    }
}

impl Connect for Connector {
    type Opener = OpenOnce<Records<UnbufferedClientConnection>>;

    async fn connect(&self) -> Self::Opener {
        let socket = tcp::dial(self.0).await;
        let connection = UnbufferedClientConnection::new(self.1.clone(), trust::name()).expect(UP);
        OpenOnce::new(Records::shake_hands(socket, connection).await)
    }
}

impl Listen for Listener {
    type Acceptor = AcceptOnce<Records<UnbufferedServerConnection>>;

    async fn accept(&mut self) -> BoxFuture<'static, Self::Acceptor> {
        let (socket, config) = (tcp::take(&self.0).await, self.1.clone());
        Box::pin(async move {
            let connection = UnbufferedServerConnection::new(config).expect(UP);
            AcceptOnce(Some(Records::shake_hands(socket, connection).await))
        })
    }
}

/// Either end's connection.
pub(crate) trait Connection: Send + 'static {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

/// A connection, and its socket.
pub(crate) struct Records<C> {
    socket: TcpStream,
    connection: C,
    input: Vec<u8>,
    /// The part of it that is to be understood.
    start: usize,
    end: usize,
    /// As long as the longest that was ever to be sent, so that it is not cleared each time.
    output: Vec<u8>,
    /// How much of it is to be sent.
    filled: usize,
    /// What came with the end of the handshake.
    early: Vec<u8>,
    is_finished: bool,
}

/// What came of a look at the input.
enum Seen {
    Data(usize),
    /// There is more to be understood, or to be sent.
    Something,
    /// It takes more input.
    Nothing,
    /// Data may be sent.
    Ready,
    End,
}

impl<C: Connection> Records<C> {
    pub(crate) async fn shake_hands(socket: TcpStream, connection: C) -> Self {
        let (input, output, early) = (vec![0; BUFFER], Vec::new(), Vec::new());
        let mut records = Self {
            socket,
            connection,
            input,
            start: 0,
            end: 0,
            output,
            filled: 0,
            early,
            is_finished: false,
        };
        loop {
            let mut early = Vec::new();
            let seen = records.look(&mut |bytes: &[u8]| early.extend_from_slice(bytes));
            records.early.append(&mut early);
            records.flush().await;
            match seen {
                Seen::Nothing => assert!(records.fill().await, "{UP}"),
                Seen::Ready => return records,
                Seen::Data(_) | Seen::Something => {}
                Seen::End => panic!("{UP}"),
            }
        }
    }

    fn look(&mut self, look: &mut impl FnMut(&[u8])) -> Seen {
        let UnbufferedStatus { mut discard, state } =
            self.connection.process(&mut self.input[self.start..self.end]);
        let seen = match state.expect(UP) {
            ConnectionState::ReadTraffic(mut traffic) => {
                let mut count = 0;
                while let Some(record) = traffic.next_record() {
                    let record = record.expect(UP);
                    discard += record.discard;
                    look(record.payload);
                    count += record.payload.len();
                }
                Seen::Data(count)
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, &mut self.output, &mut self.filled);
                Seen::Something
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Seen::Something
            }
            ConnectionState::BlockedHandshake => Seen::Nothing,
            ConnectionState::WriteTraffic(_) => Seen::Ready,
            ConnectionState::PeerClosed | ConnectionState::Closed => Seen::End,
            _ => panic!("{UP}"),
        };
        self.start += discard;
        seen
    }

    /// Whether something came.
    async fn fill(&mut self) -> bool {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.socket.read(&mut self.input[self.end..]).await.expect(UP);
        self.end += count;
        count > 0
    }

    async fn flush(&mut self) {
        self.socket.write_all(&self.output[..self.filled]).await.expect(UP);
        self.filled = 0;
    }

    /// Opens all that is there, and lets `to` send it. It is not opened to anywhere but where it lies, and sealed from there.
    async fn carry<D: Connection>(&mut self, to: &mut Records<D>) {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            to.append(&early);
        }
        loop {
            match self.look(&mut |bytes| to.append(bytes)) {
                Seen::Data(_) | Seen::Something => {}
                Seen::Nothing | Seen::Ready => break to.flush().await,
                Seen::End => {
                    self.is_finished = true;
                    break to.finish().await;
                }
            }
        }
    }

    fn append(&mut self, data: &[u8]) {
        self.write_with(|traffic, output| written(traffic.encrypt(data, output)));
    }

    /// Lets `write` append to what is to be sent; it returns how many bytes it has written, or needs.
    fn write_with(
        &mut self,
        mut write: impl FnMut(&mut WriteTraffic<'_, C::Data>, &mut [u8]) -> Result<usize, usize>,
    ) {
        let UnbufferedStatus { discard, state } = self.connection.process(&mut []);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else { panic!("{UP}") };
        assert_eq!(discard, 0);
        self.filled += loop {
            match write(&mut traffic, &mut self.output[self.filled..]) {
                Ok(count) => break count,
                Err(needed) => self.output.resize(self.filled + needed, 0),
            }
        };
    }
}

/// Carries what comes from either to the other, until both have ended.
pub(crate) async fn splice<C: Connection, D: Connection>(mut one: Records<C>, mut other: Records<D>) {
    one.carry(&mut other).await;
    other.carry(&mut one).await;
    while !(one.is_finished && other.is_finished) {
        tokio::select! {
            has_more = one.fill(), if !one.is_finished => {
                assert!(has_more, "{UP}");
                one.carry(&mut other).await;
            }
            has_more = other.fill(), if !other.is_finished => {
                assert!(has_more, "{UP}");
                other.carry(&mut one).await;
            }
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Vec<u8>, filled: &mut usize) {
    loop {
        match data.encode(&mut output[*filled..]) {
            Ok(count) => return *filled += count,
            Err(EncodeError::InsufficientSize(missing)) => output.resize(*filled + missing.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

fn written(outcome: Result<usize, EncryptError>) -> Result<usize, usize> {
    outcome.map_err(|error| match error {
        EncryptError::InsufficientSize(missing) => missing.required_size,
        EncryptError::EncryptExhausted => panic!("{UP}"),
    })
}

impl<C: Connection> Stream for Records<C> {
    async fn write(&mut self, data: Bytes) {
        self.append(&data);
        self.flush().await;
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            look(&early);
            return early.len();
        }
        let mut count = 0;
        while !self.is_finished {
            match self.look(&mut look) {
                Seen::Data(more) => count += more,
                Seen::Something => {}
                Seen::End => self.is_finished = true,
                Seen::Nothing | Seen::Ready if count > 0 => break,
                Seen::Nothing | Seen::Ready => self.is_finished = !self.fill().await,
            }
        }
        count
    }

    async fn finish(&mut self) {
        self.write_with(|traffic, output| written(traffic.queue_close_notify(output)));
        self.flush().await;
        self.socket.shutdown().await.expect(UP);
    }
}
