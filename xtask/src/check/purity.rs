//! Cores are pure: no runtime, no socket, no file, no clock, no random source of their own.

use super::Finding;
use super::rust::{Source, word};
use crate::metadata::Metadata;

/// Crates that are cores as a whole.
const CORE_CRATES: [&str; 3] = ["crates/codec", "crates/model", "crates/proto"];

/// What no core may name, and what it takes instead.
const IMPURE: [(&str, &str); 17] = [
    ("tokio", "the caller runs it"),
    ("futures_util", "the caller runs it"),
    ("mio", "the caller does the IO"),
    ("socket2", "the caller does the IO"),
    ("quinn", "the caller does the IO"),
    ("hyper", "the caller does the IO"),
    ("TcpStream", "the caller does the IO"),
    ("TcpListener", "the caller does the IO"),
    ("UdpSocket", "the caller does the IO"),
    ("UnixStream", "the caller does the IO"),
    ("fs", "the caller reads files"),
    ("std::process", "the caller starts programs"),
    ("std::thread", "the caller runs it"),
    ("Instant::now", "`now` is an argument"),
    ("SystemTime::now", "`now` is an argument"),
    ("thread_rng", "the random source is an argument"),
    ("rand::rng", "the random source is an argument"),
];

/// Packages that bring a runtime, a socket or a clock.
const IMPURE_PACKAGES: [&str; 11] = [
    "async-io",
    "async-std",
    "axum",
    "hyper",
    "mio",
    "quinn",
    "rusqlite",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// Looks at the sources of cores, outside of their tests.
pub(super) fn sources(sources: &[Source<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_core(source.path)) {
        for (line, code) in source.product() {
            for (name, instead) in IMPURE {
                if word(code, name).is_some() && !is_own_name(code, name) {
                    findings.push(Finding::new(
                        source.path,
                        line,
                        format!("a core uses `{name}`; {instead}"),
                    ));
                }
            }
        }
    }
    findings
}

/// Looks at what core crates depend on, through others too.
pub(super) fn dependencies(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in metadata.members() {
        let folder = member.folder(&metadata.workspace_root);
        if !CORE_CRATES.contains(&folder.as_str()) {
            continue;
        }
        for (used, brought_by) in metadata.closure(&member.id) {
            let name = |id| metadata.package(id).map_or("?", |p| p.name.as_str());
            if IMPURE_PACKAGES.contains(&name(used)) {
                let what = format!("a core depends on `{}`, through `{}`", name(used), name(brought_by));
                findings.push(Finding::new(&format!("{folder}/Cargo.toml"), 1, what));
            }
        }
    }
    findings
}

/// Core crates, and the folder `src/core` of crates that have IO beside their core.
fn is_core(path: &str) -> bool {
    CORE_CRATES
        .iter()
        .any(|core| path.strip_prefix(core).is_some_and(|rest| rest.starts_with("/src/")))
        || path.contains("/src/core/")
        || path.ends_with("/src/core.rs")
        || path.starts_with("src/core/")
}

/// Whether a short name is a variable or field rather than the module of the standard library.
fn is_own_name(code: &str, name: &str) -> bool {
    name == "fs" && !(code.contains("std::fs") || code.contains("fs::"))
}

#[cfg(test)]
mod tests {
    use super::super::{places, rust};
    use super::*;
    use crate::metadata::fixture;
    use crate::tree::file;

    #[test]
    fn every_impure_name_in_a_core_is_found() {
        for (name, _) in IMPURE {
            let text = match name {
                "fs" => "fn f() { std::fs::read(p); }".to_owned(),
                _ => format!("fn f() {{ {name}(); }}"),
            };
            let files = [file("crates/proto/src/a.rs", &text)];
            assert_eq!(
                places(&sources(&rust::read(&files))),
                ["crates/proto/src/a.rs:1"],
                "{name}"
            );
        }
    }

    #[test]
    fn comments_strings_tests_and_other_crates_may_name_them() {
        let files = [
            file(
                "crates/proto/src/a.rs",
                "/// Instead of Instant::now()\nconst A: &str = \"tokio\";\n",
            ),
            file(
                "crates/model/src/a.rs",
                "#[cfg(test)]\nmod tests {\n    fn t() { Instant::now(); }\n}\n",
            ),
            file("crates/proto/tests/pair/main.rs", "fn t() { Instant::now(); }\n"),
            file("crates/carrier/src/a.rs", "fn f() { tokio::spawn(x); }\n"),
        ];
        assert_eq!(sources(&rust::read(&files)), []);
    }

    #[test]
    fn the_core_of_a_crate_with_io_is_a_core_too() {
        let files = [
            file("netmesh/src/core/peer.rs", "fn f() { Instant::now(); }\n"),
            file("netmesh/src/io/tun.rs", "fn f() { Instant::now(); }\n"),
        ];
        assert_eq!(places(&sources(&rust::read(&files))), ["netmesh/src/core/peer.rs:1"]);
    }

    #[test]
    fn a_runtime_behind_a_dependency_is_found() {
        let metadata = fixture(
            &[("tunnel-proto", "crates/proto"), ("tunnel-carrier", "crates/carrier")],
            &["helper", "tokio"],
            &[
                ("tunnel-proto", "helper"),
                ("helper", "tokio"),
                ("tunnel-carrier", "tokio"),
            ],
        );
        let found = dependencies(&metadata);
        assert_eq!(places(&found), ["crates/proto/Cargo.toml:1"]);
        assert!(found[0].what.contains("`tokio`, through `helper`"));
    }
}
