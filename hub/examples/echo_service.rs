//! The echo quickstart, service side: opens a tunnel to the device by its ID, says something, and hears it again.
//! How to run it stands in `echo_device.rs`.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline::{CredentialFiles, EndpointConfig, Environment, Route, Service};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: echo_service FOLDER [HUB]")?);
    let hub = args.next().unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    let files = CredentialFiles {
        certificate: folder.join("service/me.pem"),
        key: folder.join("service/me.key"),
        authority: folder.join("ca.pem"),
    };
    let config = EndpointConfig { hub, credentials: files.read()?, route: Route::default() };
    let service = Service::new(config, Environment::system())?;

    let mut tunnel = service.open("echo-1", "echo").await?;
    tunnel.write_all(b"Hello, device!").await?;
    tunnel.shutdown().await?;
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await?;
    println!("the device says: {answer}");

    // Another name is another matter, and the device says why.
    if let Err(refusal) = service.open("echo-1", "shell").await {
        println!("{refusal}");
    }
    service.close().await;
    Ok(())
}
