//! One buffer to read into for all who copy: so that a stream that is open for a moment does not pay for its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::ready;

use tokio::io::{AsyncRead, ReadBuf};

use super::UP;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

/// Reads once, and lets `look` see what it was. Returns how many bytes came; 0 at the end.
pub(crate) async fn read(mut source: Pin<&mut impl AsyncRead>, mut look: impl FnMut(&[u8])) -> usize {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(source.as_mut().poll_read(context, &mut buffer)).expect(UP);
            look(buffer.filled());
            buffer.filled().len().into()
        })
    })
    .await
}
