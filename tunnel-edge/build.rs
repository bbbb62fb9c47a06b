//! Tells the program when it was built: a time that has surely passed, for machines whose clock says otherwise.

use std::time::SystemTime;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    // Reproducible builds say when they pretend to happen (reproducible-builds.org/specs/source-date-epoch).
    let stated = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|secs| secs.parse().ok());
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    println!("cargo::rustc-env=TUNNEL_BUILD_TIME={}", stated.unwrap_or_else(now));
}
