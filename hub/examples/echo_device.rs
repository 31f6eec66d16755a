//! The echo quickstart, device side: registers, accepts whoever asks for "echo", and says everything back.
//!
//! ```text
//! towline identity init && towline identity device echo-1 && towline identity service me
//! towline hub
//! cargo run --example echo_device -- ~/.config/towline
//! cargo run --example echo_service -- ~/.config/towline
//! ```

use std::path::PathBuf;

use tokio::io::AsyncWriteExt;
use towline::{CredentialFiles, Device, EndpointConfig, Environment, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: echo_device FOLDER [HUB]")?);
    let hub = args.next().unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    let files = CredentialFiles {
        certificate: folder.join("device/echo-1.pem"),
        key: folder.join("device/echo-1.key"),
        authority: folder.join("ca.pem"),
    };
    let config = EndpointConfig { hub, credentials: files.read()?, route: Route::default() };
    let mut device = Device::register(config, Environment::system())?;
    println!("{} is registering", device.identity());
    loop {
        let offer = device.next_offer().await;
        println!("{} asks for {}", offer.from, offer.service);
        if offer.service.as_str() != "echo" {
            offer.reject("this device only echoes").await;
            continue;
        }
        tokio::spawn(async move {
            let tunnel = offer.accept().await?;
            let (mut reader, mut writer) = tokio::io::split(tunnel);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
}
