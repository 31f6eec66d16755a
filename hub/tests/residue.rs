//! What is left of many tunnels: nothing. The hub and the device run in this process, so that their tasks and
//! descriptors can be counted.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::time::Duration;

use field::{Field, Sshd, user};
use tokio::runtime::Handle;
use towline::agent::{self, Target};
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{
    CredentialFiles, Device, EndpointConfig, Environment, Hub, HubConfig, HubStats, Route, Status,
};
use towline_transports::tls::Credentials;

fn credentials(field: &Field, stem: &str) -> Credentials {
    let path = |name: &str| field.path().join(name);
    let files = CredentialFiles {
        certificate: path(&format!("{stem}.pem")),
        key: path(&format!("{stem}.key")),
        authority: path("ca.pem"),
    };
    files.read().unwrap()
}

/// Tasks, descriptors, and what the hub counts.
fn left(hub: &Hub) -> (usize, usize, HubStats) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (Handle::current().metrics().num_alive_tasks(), descriptors, hub.stats())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_logins_leave_no_task_socket_or_descriptor_behind() {
    let field = Field::new();
    let Some(sshd) = Sshd::start(&field) else { return };
    let environment = Environment::system();
    let config = HubConfig {
        listen: "127.0.0.1:0".into(),
        credentials: credentials(&field, "hub"),
        limits: Limits::default(),
        policy: Box::new(AllowAll),
        quic: true,
    };
    let hub = Hub::start(config, environment.clone()).await.unwrap();
    let address = hub.local_addr();
    let config = EndpointConfig {
        hub: address.to_string(),
        credentials: credentials(&field, "device/press-7"),
        route: Route::default(),
    };
    let mut device = Device::register(config, environment.clone()).unwrap();
    device.status().wait_for(|status| matches!(status, Status::Online)).await.unwrap();
    let targets = vec![format!("ssh={}", sshd.address).parse::<Target>().unwrap()];
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });

    let login = |n: usize| {
        let mut ssh = tokio::process::Command::from(sshd.client("ssh", &field, address));
        ssh.args([format!("{}@press-7", user()), format!("echo {n}")]);
        async move {
            let output = ssh.output().await.unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{n}\n"), "{output:?}");
        }
    };
    // The first one starts what the process keeps, such as a child reaper.
    login(0).await;
    let before = settled(&hub).await;
    for n in 1..=200 {
        login(n).await;
    }
    let after = settled(&hub).await;
    assert_eq!(before, after, "tasks, descriptors, and what the hub counts");
    assert_eq!((after.2.tunnels, after.2.links, after.2.unauthenticated), (0, 1, 0));
}

/// What is left once nothing more goes away.
async fn settled(hub: &Hub) -> (usize, usize, HubStats) {
    let mut last = left(hub);
    let mut same = 0;
    while same < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = left(hub);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}
