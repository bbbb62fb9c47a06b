//! The checkout stands alone: no path of somebody's machine, no link out of the tree, no host of somebody's network.

use super::Finding;
use crate::tree::TextFile;

/// Folders that are somebody's own. Without the closing slash, for this file is checked too.
const PRIVATE: [&str; 6] = ["/home", "/root", "/work", "/mnt", "/Users", "/tmp"];

/// Hosts that may stand in a URL, with everything below them: where documents that we cite are, and names that are
/// reserved for examples (RFC 2606, RFC 6761); and a service of the cloud side that examples reach.
const HOSTS: [&str; 27] = [
    "apache.org",
    "contributor-covenant.org",
    "datatracker.ietf.org",
    "debian.org",
    "docs.rs",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "freedesktop.org",
    "github.com",
    "google.aip.dev",
    "internal",
    "invalid",
    "ietf.org",
    "json-schema.org",
    "keepachangelog.com",
    "kubernetes.io",
    "localhost",
    "man7.org",
    "prometheus.io",
    "registry.cloud",
    "rfc-editor.org",
    "rust-lang.org",
    "semver.org",
    "test",
    "tunnel",
];

/// Checks every text file.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A fuzzer's corpus is what it is.
    for file in files.iter().filter(|file| !file.path.starts_with("tests/fuzz/corpus/")) {
        for (i, line) in file.text.lines().enumerate() {
            let mut found = |what| findings.push(Finding::new(&file.path, i + 1, what));
            if let Some(folder) = PRIVATE.into_iter().find(|folder| names_folder(line, folder)) {
                found(format!("names a path below {folder}, which is not everybody's"));
            }
            if !file.is_rust() && climbs_out(line, file.folder()) {
                found("names a path outside of the checkout".to_owned());
            }
            for host in hosts(line).filter(|host| !is_known(host)) {
                found(format!(
                    "names the host {host:?}, which is not on the list of known ones"
                ));
            }
        }
    }
    findings
}

fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let starts = before.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}' | '*')));
        starts && line[at + folder.len()..].starts_with('/')
    })
}

/// Whether a relative path in the line leads above the top of the checkout.
fn climbs_out(line: &str, folder: &str) -> bool {
    let depth = folder.split('/').filter(|part| !part.is_empty()).count();
    line.split(|c: char| c.is_whitespace() || "\"'`()[]<>=,|{}".contains(c))
        .filter(|path| path.starts_with("../"))
        .any(|path| path.split('/').take_while(|part| *part == "..").count() > depth)
}

/// The hosts of the URLs in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| {
        let authority = rest
            .split(|c: char| c.is_whitespace() || "/?#\"'`)>]},;\\|".contains(c))
            .next()?;
        let host = authority.rsplit('@').next()?;
        let host = if host.starts_with('[') {
            host
        } else {
            host.split(':').next()?
        };
        Some(host.trim_end_matches('.')).filter(|host| host.contains('.'))
    })
}

fn is_known(host: &str) -> bool {
    let is_address = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    // `{}` and the like: made by the program.
    let is_made = host.contains(['{', '$', '<', '%', '*']);
    // A service of a node, such as `web.edge1`.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_node = last
        .strip_prefix("edge")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let is_below = |known: &str| {
        host.strip_suffix(known)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    is_address || is_made || is_node || HOSTS.into_iter().any(is_below)
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;
    use crate::tree::file;

    #[test]
    fn somebodys_own_folders_are_found() {
        let text = format!("a = \"{}/x\"\nb = \"/var{0}/x\"\nc = \"/etc/x\"\n", PRIVATE[0]);
        assert_eq!(places(&check(&[file("a.toml", &text)])), ["a.toml:1"]);
    }

    #[test]
    fn a_link_out_of_the_tree_is_found_and_one_inside_is_not() {
        let files = [
            file("docs/a.md", "[up](../README.md)\n[out](../../x.md)\n"),
            file("README.md", "see `../notes`\n"),
        ];
        assert_eq!(places(&check(&files)), ["docs/a.md:2", "README.md:1"]);
    }

    #[test]
    fn a_host_that_nobody_else_has_is_found() {
        let scheme = "https:/";
        let text = format!(
            "{scheme}/docs.rs/x\n{scheme}/mirror.corp.lan/x\nhttp:/{}\nhttp:/{}\nhttps:/{}\nhttps:/{}\n",
            "/web.edge1/", "/127.0.0.1:80", "/evildocs.rs", "/user:pw@web.edge1.tunnel:80/"
        );
        assert_eq!(places(&check(&[file("a.toml", &text)])), ["a.toml:2", "a.toml:5"]);
    }
}
