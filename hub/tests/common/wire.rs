//! A way to a hub that can be cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Carries connections to a hub, unless it is cut: then those that there are end, and others come to nothing.
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Wire {
    pub async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, looks) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut looks = looks.clone();
                tokio::spawn(async move {
                    let carries = async {
                        let mut far = TcpStream::connect(hub).await?;
                        copy_bidirectional(&mut near, &mut far).await
                    };
                    tokio::select! {
                        biased;
                        _ = looks.wait_for(|is_cut| *is_cut) => {}
                        // A hub that is not there ends it as well.
                        _ = carries => {}
                    }
                });
            }
        });
        Self { address, is_cut }
    }

    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}
