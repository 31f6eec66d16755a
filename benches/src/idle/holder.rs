//! The process that holds connections: this program, started once more.
//!
//! On its standard input it is told whom to trust, and then how many connections there will be; once there are so many,
//! and all is quiet, it answers on its standard output with what its memory is. It ends with its standard input, whatever it
//! waits for: whoever started it may have been killed.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{Environment, Hub, HubConfig};

use super::{Name, Who, sessions};
use crate::alloc::{self, Sizes};
use crate::clock;
use crate::transports::contender::{Listen, Transport, Use, Visit};
use crate::transports::far::serve;
use crate::transports::trust::{self, HOST, Trust};

/// The name of the command that this program is started with.
pub const COMMAND: &str = "hold";

/// How long it may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take beyond that until it has seen all connections and answers.
const ANSWER: Duration = Duration::from_secs(60);

/// How often it is looked whether all are there.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// What the memory of the process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) rss_bytes: i64,
    pub(crate) heap_bytes: i64,
    /// The CPU time that it has used while it was quiet, in seconds.
    pub(crate) cpu_s: f64,
    /// The sizes of blocks of which there are more than there were the last time, and how many more.
    pub(crate) grown: Vec<(usize, i64)>,
}

/// The process, from the outside. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Holder {
    process: Child,
    input: Option<ChildStdin>,
    /// What it says, line by line.
    said: mpsc::UnboundedReceiver<String>,
    /// How long it is quiet before it answers.
    settle: Duration,
}

impl Holder {
    /// Starts it. A hub listens on `listen`, or on any port.
    pub(crate) fn start(
        name: Name,
        settle: Duration,
        trust: &Trust,
        listen: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(COMMAND)
            .arg(name.text())
            .arg(settle.as_secs().to_string())
            .args(listen.map(|address| address.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().context("this program does not start once more")?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let output = output.context("it was asked to be piped")?;
        let (say, said) = mpsc::unbounded_channel();
        // So that whoever waits for an answer can keep its connections alive meanwhile.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        let mut holder = Self { process, input, said, settle };
        holder.say(trust)?;
        Ok(holder)
    }

    fn say(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("it was asked to be piped")?;
        writeln!(input, "{}", serde_json::to_string(what)?)?;
        Ok(())
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = self.said.recv().await.context("the process that holds the connections has ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Where it listens. To be asked once.
    pub(crate) async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        self.hear().await
    }

    /// What its memory is once it holds `count` connections, and all is quiet.
    pub(crate) async fn measure(&mut self, count: usize) -> anyhow::Result<Held> {
        self.say(&count)?;
        let answer = timeout(self.settle + ANSWER, self.hear()).await;
        answer.context("the process that holds the connections does not see all of them")?
    }

    /// The CPU time that it has used since it was started.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        clock::cpu_of_process(self.process.id()).context("the process that holds the connections has ended")
    }

    /// Kills it, so that it has nothing to say to anybody. Returns once its port is free.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Ends it, before the other ends of its connections end and it has something to say about that.
    pub(crate) fn stop(&mut self) {
        // That is its cue. Whoever watches it, such as a profiler, gets to hear of its end so.
        self.input = None;
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
        // One that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the process is asked: how many connections there will be; and how it answers.
pub(crate) struct Asked {
    counts: mpsc::UnboundedReceiver<usize>,
    sizes: Sizes,
}

impl Asked {
    /// Listens to the standard input, in a thread of its own. The receiver hears of its end.
    fn listen() -> (Self, oneshot::Receiver<()>) {
        let (ask, counts) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let _end: oneshot::Sender<()> = end;
            for line in io::stdin().lines().map_while(Result::ok) {
                let count = serde_json::from_str(&line);
                if !count.is_ok_and(|count| ask.send(count).is_ok()) {
                    break;
                }
            }
        });
        (Self { counts, sizes: alloc::sizes() }, ended)
    }

    /// How many there will be, until nobody asks any more.
    pub(crate) async fn next(&mut self) -> Option<usize> {
        self.counts.recv().await
    }

    pub(crate) fn answer(&mut self, answer: &impl Serialize) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(answer)?);
        self.sizes = alloc::sizes();
        Ok(())
    }

    /// `cpu` is what it has used while it was quiet.
    pub(crate) fn answer_with_memory(&mut self, cpu: Duration) -> anyhow::Result<()> {
        let now = alloc::sizes();
        let grown = now.since(&self.sizes);
        let (rss_bytes, heap_bytes) = (rss_bytes()?, alloc::heap().live_bytes);
        let held = Held { rss_bytes, heap_bytes, cpu_s: cpu.as_secs_f64(), grown };
        println!("{}", serde_json::to_string(&held)?);
        self.sizes = now;
        Ok(())
    }
}

/// Is that process.
///
/// # Errors
///
/// What it is told makes no sense, or the connections cannot be held.
pub fn run(name: Name, settle: Duration, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut trust = String::new();
    io::stdin().lock().read_line(&mut trust)?;
    let trust: Trust = serde_json::from_str(&trust)?;
    let (asked, ended) = Asked::listen();
    let hold = async {
        match name.who() {
            Who::Contender(contender) => contender.visit(Use::Idle, Hold { trust, settle, asked }).await,
            Who::Hub(_) => hold_hub(trust, settle, asked, listen).await,
            Who::DetachedSessions => sessions::hold(trust, settle, asked).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            held = hold => held,
            _ = ended => Ok(()),
        }
    })
}

struct Hold {
    trust: Trust,
    settle: Duration,
    asked: Asked,
}

impl Visit for Hold {
    type Output = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

    fn visit(self, transport: impl Transport) -> Self::Output {
        Box::pin(async move {
            let (listener, address) = transport.listen(&self.trust).await?;
            let count = Arc::new(AtomicUsize::new(0));
            tokio::spawn(accept_all(listener, count.clone()));
            answer(address, self.settle, self.asked, || count.load(Ordering::Relaxed)).await
        })
    }
}

async fn accept_all(mut listener: impl Listen, count: Arc<AtomicUsize>) {
    loop {
        let handshake = listener.accept().await;
        let count = count.clone();
        tokio::spawn(async move {
            let acceptor = handshake.await;
            // In a task of its own, so that nothing of the handshake's stays.
            tokio::spawn(serve(acceptor));
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
}

async fn hold_hub(
    trust: Trust,
    settle: Duration,
    asked: Asked,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let environment = Environment { tls: trust::environment(), ..Environment::system() };
    let config = HubConfig {
        listen: listen.map_or_else(|| format!("{HOST}:0"), |address| address.to_string()),
        credentials: trust.far()?,
        limits: Limits::default(),
        policy: Box::new(AllowAll),
        quic: true,
    };
    let hub = Hub::start(config, environment).await?;
    answer(hub.local_addr(), settle, asked, || hub.stats().devices).await
}

/// Says where it listens, and answers until nobody asks any more.
async fn answer(
    address: SocketAddr,
    settle: Duration,
    mut asked: Asked,
    count: impl Fn() -> usize,
) -> anyhow::Result<()> {
    asked.answer(&address)?;
    while let Some(wanted) = asked.next().await {
        while count() < wanted {
            sleep(LOOK).await;
        }
        let before = clock::process_cpu();
        sleep(settle).await;
        let cpu = clock::process_cpu() - before;
        if count() != wanted {
            bail!("there should be {wanted} connections, and there are {}", count());
        }
        asked.answer_with_memory(cpu)?;
    }
    Ok(())
}

/// This process's resident memory (proc(5): the second field of `statm`, in pages).
fn rss_bytes() -> anyhow::Result<i64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).context("/proc has another form than proc(5) says")?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.context("the system does not tell how large its pages are")?;
    Ok(pages.parse::<i64>()? * page)
}
