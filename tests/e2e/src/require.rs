//! What a test needs of the machine, and what happens where that is missing.

use std::io::Write;
use std::path::Path;

/// Set by CI: a test that cannot run fails instead of being skipped.
const REQUIRE_ALL: &str = "TUNNEL_REQUIRE_ALL";

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// What a [`Lab`](crate::Lab) is made with: root, `ip`, `iptables`, `conntrack` and TUN devices.
    Lab,
    /// A program in `PATH`.
    Program(&'static str),
    /// What a [`FakeClock`](crate::FakeClock) is made with: libfaketime.
    FakeClock,
}

impl Need {
    /// What is missing, in words, or `None` where the need is met.
    fn missing(self) -> Option<String> {
        match self {
            Self::Lab if !nix::unistd::geteuid().is_root() => Some("root".to_owned()),
            Self::Lab if !Path::new("/dev/net/tun").exists() => Some("TUN devices (/dev/net/tun)".to_owned()),
            Self::Lab => ["ip", "iptables", "conntrack"]
                .into_iter()
                .find_map(|program| Self::Program(program).missing()),
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
                (!found).then(|| format!("the program {name}"))
            }
            Self::FakeClock => crate::clock::library().is_none().then(|| "libfaketime".to_owned()),
        }
    }
}

/// Leaves a test that returns a `Result` unless all its needs are met: with `SKIPPED <test>: needs
/// <what>` on stderr, or in a panic where `TUNNEL_REQUIRE_ALL=1`.
///
/// ```no_run
/// # use tunnel_e2e::{Need, require};
/// # fn main() -> anyhow::Result<()> {
/// require!(Need::Lab, Need::Program("curl"));
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! require {
    ($($need:expr),+ $(,)?) => {{
        fn here() {}
        if !$crate::require::met(::std::any::type_name_of_val(&here), &[$($need),+]) {
            return Ok(());
        }
    }};
}

/// The function behind [`require!`](crate::require!): `here` is the type name of a function inside
/// the test.
///
/// # Panics
/// Where something is missing and `TUNNEL_REQUIRE_ALL=1`.
#[must_use]
pub fn met(here: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let message = format!("{}: needs {}", test_name(here), missing.join(", "));
    assert!(
        std::env::var_os(REQUIRE_ALL).is_none_or(|value| value != "1"),
        "{message}, and {REQUIRE_ALL} is set"
    );
    // Not eprintln: the test runner keeps that from passing tests to itself. Where stderr is closed
    // there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {message}");
    false
}

/// `e2e::lab::the_test::{{closure}}::here` without its crate and what is inside the test.
fn test_name(here: &str) -> &str {
    let name = here.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    name.split_once("::").map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_met_and_what_is_not_is_named() {
        assert_eq!(Need::Program("sh").missing(), None);
        assert_eq!(
            Need::Program("no-such-program").missing().unwrap(),
            "the program no-such-program"
        );
    }

    #[test]
    fn a_test_is_called_by_its_name() {
        assert_eq!(
            test_name("e2e::clients::curl_works::{{closure}}::here"),
            "clients::curl_works"
        );
        assert_eq!(test_name("e2e::curl_works::here"), "curl_works");
    }
}
