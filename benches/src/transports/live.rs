//! A connection that does one thing again and again, whenever it is asked to: for criterion.

use std::sync::mpsc;
use std::thread;

use anyhow::Context;

use super::contender::{Connect, Name, Transport, Use, Visit};
use super::far::Far;
use super::near;
use super::trust::Trust;
use crate::muxer::Open;

/// A connection of a contender over sockets on loopback, each end in a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Live {
    work: Option<mpsc::Sender<Work>>,
    done: mpsc::Receiver<()>,
    near: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
enum Work {
    Bulk(usize),
    Echo(usize),
    Open(usize),
}

impl Live {
    /// One that is open.
    ///
    /// # Errors
    ///
    /// There are no certificates, sockets or threads to be had.
    pub fn start(name: Name) -> anyhow::Result<Self> {
        let ((work, asked), (tell, done)) = (mpsc::channel(), mpsc::channel());
        let trust = Trust::new()?;
        let near = thread::Builder::new().name("near".into());
        let near = near.spawn(move || name.visit(Use::Work, Serve { trust, asked, tell }))?;
        done.recv().context("the connection is not made")?;
        Ok(Self { work: Some(work), done, near: Some(near) })
    }

    /// Carries so many bytes on one stream.
    ///
    /// # Panics
    ///
    /// If the connection is lost, as all of these.
    pub fn bulk(&self, bytes: usize) {
        self.work(Work::Bulk(bytes));
    }

    /// Carries so many messages of 1 KiB there and back, one after the other, on one stream.
    pub fn echo(&self, times: usize) {
        self.work(Work::Echo(times));
    }

    /// Opens so many streams, one after the other, each of which carries 1 KiB there and back.
    pub fn open(&self, times: usize) {
        self.work(Work::Open(times));
    }

    fn work(&self, work: Work) {
        let asked = self.work.as_ref().map(|ask| ask.send(work));
        assert!(asked.is_some_and(|asked| asked.is_ok()), "the connection is there");
        self.done.recv().expect("the connection is there");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.work = None;
        // If it has panicked, somebody has noticed.
        self.near.take().map(thread::JoinHandle::join);
    }
}

struct Serve {
    trust: Trust,
    asked: mpsc::Receiver<Work>,
    tell: mpsc::Sender<()>,
}

impl Visit for Serve {
    type Output = anyhow::Result<()>;

    fn visit(self, transport: impl Transport) -> anyhow::Result<()> {
        let Self { trust, asked, tell } = self;
        let mut far = Far::start(transport, trust.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opener = runtime
            .block_on(async { anyhow::Ok(transport.connector(&trust, far.address)?.connect().await) })?;
        // Whoever asks waits for the answer; nothing happens in between.
        let mut goes_on = tell.send(()).is_ok();
        while let (true, Ok(work)) = (goes_on, asked.recv()) {
            runtime.block_on(perform(&opener, &far, work));
            goes_on = tell.send(()).is_ok();
        }
        far.stop();
        Ok(())
    }
}

async fn perform(opener: &impl Open, far: &Far, work: Work) {
    match work {
        Work::Bulk(bytes) => _ = near::bulk(opener, far, 1, bytes).await,
        Work::Echo(times) => _ = near::echo(opener, far, times).await,
        Work::Open(times) => _ = near::warm(opener, far, times).await,
    }
}
