//! Identities and their keys, as the program makes, keeps and reads them.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use field::{Field, TOWLINE, failed, success};

#[test]
fn identities_are_private_and_never_overwritten_without_force() {
    let field = Field::new();
    let mode = |name: &str| std::fs::metadata(field.path().join(name)).unwrap().permissions().mode() & 0o777;
    for key in ["ca.key", "hub.key", "device/press-7.key", "service/me.key"] {
        assert_eq!(mode(key), 0o600, "{key}");
    }
    let contents = |name: &str| std::fs::read(field.path().join(name)).unwrap();
    let before = (contents("ca.key"), contents("device/press-7.key"));
    for args in [&["init"][..], &["device", "press-7"]] {
        let (status, why) = failed(&field.towline("identity").args(args).output().unwrap());
        assert_eq!(status, 73);
        assert!(why.ends_with("exists; keep it, or replace it with --force"), "{why}");
    }
    assert_eq!((contents("ca.key"), contents("device/press-7.key")), before);
    // A part of a pair in the way is as good as both.
    std::fs::remove_file(field.path().join("device/press-7.pem")).unwrap();
    assert_eq!(failed(&field.towline("identity").args(["device", "press-7"]).output().unwrap()).0, 73);
    success(&field.towline("identity").args(["device", "press-7", "--force"]).output().unwrap());
    assert_ne!(contents("device/press-7.key"), before.1);
    assert_eq!(mode("device/press-7.key"), 0o600);
}

/// The hub's key belongs to the hub alone.
#[test]
fn identities_are_made_without_the_hubs_key() {
    let field = Field::new();
    let device = |name: &str| field.towline("identity").args(["device", name]).output().unwrap();
    std::fs::remove_file(field.path().join("hub.key")).unwrap();
    assert!(success(&device("press-8")).starts_with("spiffe://towline.local/device/press-8 "));
    std::fs::remove_file(field.path().join("hub.pem")).unwrap();
    let (status, why) = failed(&device("press-9"));
    assert_eq!(status, 78);
    assert!(
        why.starts_with("cannot read the hub's certificate at ") && why.ends_with("copy it here"),
        "{why}"
    );
}

#[test]
fn openssl_reads_the_keys() {
    let field = Field::new();
    let Some(openssl) = field::find("openssl") else { return };
    for key in ["ca.key", "hub.key", "device/press-7.key", "service/me.key"] {
        let mut pkey = Command::new(&openssl);
        pkey.args(["pkey", "-noout", "-text", "-in"]).arg(field.path().join(key));
        assert!(success(&pkey.output().unwrap()).starts_with("ED25519 Private-Key:"), "{key}");
    }
}

#[test]
fn keys_that_are_missing_unreadable_malformed_or_exposed_are_named() {
    let field = Field::new();
    let path = |name: &str| field.path().join(name);
    let hub =
        |field: &Field| failed(&field.towline("hub").args(["--listen", "127.0.0.1:0"]).output().unwrap());
    let key = path("hub.key");
    let good = std::fs::read(&key).unwrap();
    let write = |contents: &[u8]| {
        std::fs::write(&key, contents).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    };

    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let (status, why) = hub(&field);
    assert_eq!(status, 78);
    assert!(why.starts_with("others can read the private key at") && why.contains("chmod 600"), "{why}");

    write(b"not a key");
    let (status, why) = hub(&field);
    assert_eq!(status, 78);
    assert!(why.contains("hub.key holds no private key: there is none in it; make a new one with"), "{why}");

    write(b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n");
    assert!(hub(&field).1.contains("hub.key holds no private key"));

    // Another's key.
    write(&std::fs::read(path("device/press-7.key")).unwrap());
    let (status, why) = hub(&field);
    assert_eq!(status, 78, "{why}");

    std::fs::remove_file(&key).unwrap();
    let (status, why) = hub(&field);
    assert_eq!(status, 78);
    assert!(why.starts_with("there is no private key at") && why.contains("towline identity"), "{why}");

    // A folder instead of a file: there, and not to be read.
    std::fs::create_dir(&key).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o700)).unwrap();
    let (status, why) = hub(&field);
    assert_eq!(status, 78);
    assert!(why.starts_with("cannot read the private key at"), "{why}");
    std::fs::remove_dir(&key).unwrap();

    write(&good);
    std::fs::write(path("hub.pem"), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert_eq!(hub(&field).0, 78);
    std::fs::write(path("ca.pem"), b"").unwrap();
    assert_eq!(hub(&field).0, 78);
}

#[test]
fn who_one_is_must_be_clear() {
    let field = Field::new();
    let connect =
        |args: &[&str]| failed(&field.towline("connect").args(["d", "s"]).args(args).output().unwrap());
    success(&field.towline("identity").args(["service", "other"]).output().unwrap());
    let (status, why) = connect(&[]);
    assert_eq!(status, 78);
    assert!(
        why.contains("there are 2 service identities") && why.ends_with("--identity: me, other"),
        "{why}"
    );
    let (status, why) = connect(&["--identity", "nobody"]);
    assert_eq!(status, 78);
    assert!(why.starts_with("there is no certificate at"), "{why}");
    // A device's certificate where a service's belongs.
    let file = |name: &str| field.path().join(name).display().to_string();
    let (status, why) = connect(&[
        "--cert",
        &file("device/press-7.pem"),
        "--key",
        &file("device/press-7.key"),
        "--ca",
        &file("ca.pem"),
    ]);
    assert_eq!(status, 78);
    assert!(why.contains("device/press-7, but it takes one of a service"), "{why}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let output = Command::new(TOWLINE).args(["identity", "init", "--dir", "/proc/nowhere"]).output().unwrap();
    let (status, why) = failed(&output);
    assert_eq!(status, 73);
    assert!(why.starts_with("cannot write /proc/nowhere"), "{why}");
    assert!(!Path::new("/proc/nowhere").exists());
}
