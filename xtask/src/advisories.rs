//! Security advisories, where a tool and a copy of the database are at hand. Nothing is fetched.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell;

/// Runs cargo-deny or cargo-audit against the local copy of the RustSec database, or says what is missing.
pub(crate) fn run() -> Result<()> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_default();
    // Where each tool keeps what it fetched.
    let deny_database = home.join("advisory-dbs");
    let audit_database = home.join("advisory-db");
    let mut cargo = shell::cargo();
    if shell::has_cargo_command("deny") && deny_database.is_dir() {
        return shell::run(cargo.args(["deny", "--offline", "--all-features", "check", "advisories"]));
    }
    if shell::has_cargo_command("audit") && audit_database.is_dir() {
        cargo.args(["audit", "--no-fetch", "--stale", "--deny", "warnings", "--db"]);
        return shell::run(cargo.arg(audit_database));
    }
    println!("SKIPPED advisories: needs cargo-deny or cargo-audit, and its database (`cargo deny fetch db`)");
    Ok(())
}
