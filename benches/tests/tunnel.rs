//! `towline-bench tunnel`, as a program.

use std::process::Command;

use serde_json::Value;

#[test]
fn each_way_carries_bytes_and_the_middle_is_a_part_of_what_it_costs() {
    let output = Command::new(env!("CARGO_BIN_EXE_towline-bench"))
        .args(["tunnel", "--size", "16", "--opens", "3", "--rounds", "1", "--peers", "none", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ways = results["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 6);
    for way in ways {
        let name = way["way"].as_str().unwrap();
        for moved in ["up", "down"] {
            assert!(way[moved]["gb_per_s"]["median"].as_f64().unwrap() > 0.0, "{name}");
            let cost = |what: &str| way[moved][what]["median"].as_f64();
            match (cost("cpu_s_per_gb"), cost("middle_cpu_s_per_gb")) {
                (None, None) => assert_eq!(way["legs"], 0, "{name}"),
                (Some(all), Some(middle)) => {
                    assert_eq!(way["legs"], 2, "{name}");
                    assert!(0.0 < middle && middle < all, "{name}: {middle} of {all}");
                }
                costs => panic!("{name}: {costs:?}"),
            }
        }
        assert_eq!(way["requests"] == 3, name != "splice, unbuffered", "{name}");
    }
}
