use std::process::Command;

use serde_json::Value;

use crate::operator::Did;

#[test]
fn the_lab_proves_the_path_from_end_to_end_over_a_thin_link() {
    let report = lab(&["--nodes", "2", "--link", "10mbit,30ms,1%", "--check", "-o", "json"]).json();
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() >= 10, "{report}");
    assert!(steps.iter().all(|step| step["ok"] == Value::Bool(true)), "{report}");
}

#[test]
fn a_link_that_cannot_be_read_is_refused_with_an_example() {
    lab(&["--link", "fast", "--check"]).failed(2, "lab-link");
}

fn lab(args: &[&str]) -> Did {
    let lab = Command::new(env!("CARGO_BIN_EXE_tunnel-cloud"))
        .arg("lab")
        .args(args)
        .output();
    lab.unwrap().into()
}
