//! What SIGHUP says to a hub.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::os::unix::fs::PermissionsExt;

use field::{Field, until};

#[test]
fn sighup_makes_a_hub_read_its_files_anew() {
    let field = Field::new();
    let (hub, address, log) = field.logging_hub();
    let _device = field.device(address, &[("x", address)]);
    let lines = |what: &str| {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect::<Vec<_>>()
    };
    let key = field.path().join("hub.key");
    let right_key = std::fs::read(&key).unwrap();
    // A key that others can read, one that does not fit, and none at all.
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    field::signal(hub.pid(), "HUP");
    until("it has an objection", || lines("nothing was loaded").len() == 1);
    assert!(lines("nothing was loaded")[0].contains("chmod 600"));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::copy(field.path().join("device/press-7.key"), &key).unwrap();
    field::signal(hub.pid(), "HUP");
    until("it has another", || lines("nothing was loaded").len() == 2);
    std::fs::remove_file(&key).unwrap();
    field::signal(hub.pid(), "HUP");
    until("it has a third", || lines("nothing was loaded").len() == 3);
    assert!(lines("nothing was loaded")[2].contains("there is no private key"));
    std::fs::write(&key, right_key).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    field::signal(hub.pid(), "HUP");
    until("it has read them", || lines("new certificate and key").len() == 1);
    let loaded = lines("new certificate and key");
    assert!(loaded[0].contains("/hub/") && loaded[0].contains("valid_until="), "{loaded:?}");
    // Nobody was disturbed, and whoever comes is let in.
    field.wait_until_online(address);
    assert_eq!(lines("role=device").len(), 1, "the device has its first link");
}
