use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::Instant;

use super::*;

/// Somebody who has said what there was to say, and wants to hear nothing, for this reason.
#[derive(Debug)]
struct Deaf(Option<Bytes>, Code);

impl Leg for Deaf {
    fn poll_read(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Read> {
        Poll::Ready(self.0.take().map_or(Read::End, Read::Data))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &mut Bytes) -> Poll<Result<(), Gone>> {
        Poll::Ready(Err(Gone::Stopped(self.1)))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Err(Gone::Stopped(self.1)))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Gone> {
        Poll::Ready(Gone::Stopped(self.1))
    }

    fn reset(&mut self, _: Code) {}

    fn stop(&mut self, _: Code) {}

    fn reset_ends_whole(&self) -> bool {
        false
    }
}

/// A local program's socket, whether it was reset, and how much each write to it took.
#[derive(Debug)]
struct Local(DuplexStream, Arc<AtomicBool>, Arc<Mutex<Vec<usize>>>);

impl Socket for Local {
    fn abort(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Local {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let parts: Vec<_> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let count = ready!(Pin::new(&mut self.0).poll_write(context, &parts))?;
        self.2.lock().unwrap().push(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A program, what becomes of the relay between it and somebody who is deaf, and whether its socket was reset.
fn relaying(why: Code) -> (DuplexStream, tokio::task::JoinHandle<Relayed>, Arc<AtomicBool>) {
    let (program, ours) = tokio::io::duplex(16);
    let was_reset = Arc::<AtomicBool>::default();
    let local = Local(ours, was_reset.clone(), Arc::default());
    let relaying = tokio::spawn(async move {
        let mut deaf = Deaf(Some(Bytes::from_static(b"words")), why);
        relay(&mut deaf, &mut SocketLeg::new(Box::new(local)), Profile::Native).await
    });
    (program, relaying, was_reset)
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_kept_until_the_program_has_nothing_more_to_say() {
    let (mut program, relaying, was_reset) = relaying(codes::RESET);
    let mut heard = Vec::new();
    program.write_all(&[0; 1000]).await.unwrap();
    program.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"words");
    // Both ways are over, and to close the socket now would be to send a RST.
    program.write_all(&[0; 1000]).await.unwrap();
    assert!(!relaying.is_finished());
    drop(program);
    let relayed = relaying.await.unwrap();
    assert_eq!(relayed.ended, [Ended::Finished, Ended::Stopped(codes::RESET)]);
    assert!(!relayed.was_lost() && !was_reset.load(Ordering::Relaxed));
}

/// Somebody who says all these, and then ends so, or not at all.
#[derive(Debug)]
struct Says(VecDeque<Bytes>, Option<Read>);

impl Leg for Says {
    fn poll_read(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Read> {
        match self.0.pop_front() {
            Some(data) => Poll::Ready(Read::Data(data)),
            None => self.1.take().map_or(Poll::Pending, Poll::Ready),
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        data.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Gone> {
        Poll::Pending
    }

    fn reset(&mut self, _: Code) {}

    fn stop(&mut self, _: Code) {}

    fn reset_ends_whole(&self) -> bool {
        false
    }
}

/// What is there at once goes to the program at once, 64 KiB and more with a write; the end comes after all of it.
#[tokio::test]
async fn a_socket_is_given_much_at_a_time_and_nothing_waits() {
    for end in [None, Some(Read::End)] {
        let (mut program, ours) = tokio::io::duplex(1 << 20);
        let writes = Arc::<Mutex<Vec<usize>>>::default();
        let local = Local(ours, Arc::default(), writes.clone());
        let pieces = (0..10).map(|n| Bytes::from(vec![n; 16 << 10])).collect();
        let ends = end.is_some();
        let relaying = tokio::spawn(async move {
            let mut says = Says(pieces, end);
            relay(&mut says, &mut SocketLeg::new(Box::new(local)), Profile::Native).await
        });
        let mut heard = vec![0; 160 << 10];
        program.read_exact(&mut heard).await.unwrap();
        assert!(heard.chunks(16 << 10).zip(0..).all(|(piece, n)| piece.iter().all(|&byte| byte == n)));
        assert_eq!(*writes.lock().unwrap(), [64 << 10, 64 << 10, 32 << 10]);
        if ends {
            assert_eq!(program.read(&mut heard).await.unwrap(), 0);
            drop(program);
            let relayed = relaying.await.unwrap();
            assert_eq!((relayed.ended, relayed.bytes), ([Ended::Finished; 2], [160 << 10, 0]));
        } else {
            relaying.abort();
        }
    }
}

/// Also where both have come at once: a program reads what came before a RST.
#[tokio::test]
async fn what_was_said_before_a_reset_comes_before_it() {
    for end in [Read::Reset(codes::RESET), Read::Lost(codes::LEG_LOST)] {
        let (mut program, ours) = tokio::io::duplex(1 << 20);
        let was_reset = Arc::<AtomicBool>::default();
        let local = Local(ours, was_reset.clone(), Arc::default());
        let mut says = Says((0..20).map(|n| Bytes::from(vec![n; 1000])).collect(), Some(end));
        relay(&mut says, &mut SocketLeg::new(Box::new(local)), Profile::Native).await;
        let mut heard = Vec::new();
        program.read_to_end(&mut heard).await.unwrap();
        assert_eq!((heard.len(), was_reset.load(Ordering::Relaxed)), (20_000, true));
    }
}

/// What waits for it does not hold on to the buffers that it was cut from.
#[tokio::test]
async fn what_waits_for_a_program_is_copied_if_it_is_little() {
    let (_program, ours) = tokio::io::duplex(1);
    let mut leg = SocketLeg::new(Box::new(Local(ours, Arc::default(), Arc::default())));
    let buffer = Bytes::from(vec![7; 128 << 10]);
    poll_fn(|context| {
        assert!(leg.poll_write(context, &mut buffer.slice(..1000)).is_ready());
        assert!(leg.poll_gone(context).is_pending());
        assert!(leg.poll_write(context, &mut buffer.slice(..1000)).is_pending(), "it is stuck");
        Poll::Ready(())
    })
    .await;
    assert!(buffer.is_unique());
}

/// It is not given more than that before it takes some.
#[tokio::test]
async fn a_program_that_does_not_read_holds_up_whoever_writes() {
    let (_program, ours) = tokio::io::duplex(1 << 10);
    let mut leg = SocketLeg::new(Box::new(Local(ours, Arc::default(), Arc::default())));
    let mut pieces = 0;
    poll_fn(|context| {
        let mut piece = Bytes::from(vec![7; 16 << 10]);
        while leg.poll_write(context, &mut piece).is_ready() {
            pieces += 1;
            piece = Bytes::from(vec![7; 16 << 10]);
        }
        assert_eq!(piece.len(), 16 << 10, "it is still whole");
        Poll::Ready(())
    })
    .await;
    assert_eq!(pieces, 4);
}

#[tokio::test(start_paused = true)]
async fn a_program_hears_that_what_it_said_was_lost() {
    let (mut program, relaying, was_reset) = relaying(codes::LEG_LOST);
    program.write_all(&[0; 10]).await.unwrap();
    let relayed = relaying.await.unwrap();
    assert_eq!(relayed.ended, [Ended::Finished, Ended::Stopped(codes::LEG_LOST)]);
    assert!(relayed.was_lost() && was_reset.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_says_things_for_ever_is_not_listened_to_for_ever() {
    let start = Instant::now();
    let (mut program, relaying, _) = relaying(codes::RESET);
    while program.write_all(&[0; 10]).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    relaying.await.unwrap();
    assert!((LINGER..LINGER + Duration::from_secs(2)).contains(&start.elapsed()));
}
