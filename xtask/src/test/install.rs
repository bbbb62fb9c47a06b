//! What the tests need of the machine: installed where this is root on Debian, else named.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// What a test may need, and the Debian package that brings it.
const NEEDS: [(Need, &str); 21] = [
    (Need::Program("ip"), "iproute2"),
    (Need::Program("iptables"), "iptables"),
    (Need::Program("nft"), "nftables"),
    (Need::Program("conntrack"), "conntrack"),
    (Need::Program("tinyproxy"), "tinyproxy-bin"),
    (Need::Program("curl"), "curl"),
    (Need::Program("ncat"), "ncat"),
    (Need::Program("ssh"), "openssh-client"),
    (Need::Program("ssh-keygen"), "openssh-client"),
    (Need::Program("sshd"), "openssh-server"),
    (Need::Program("sftp-server"), "openssh-sftp-server"),
    (Need::Program("kubectl"), "kubernetes-client"),
    (Need::Program("nc"), "netcat-openbsd"),
    (Need::Program("redis-server"), "redis-server"),
    (Need::Program("redis-cli"), "redis-tools"),
    (Need::Program("dig"), "dnsutils"),
    (Need::Program("dnsmasq"), "dnsmasq-base"),
    (Need::Program("iperf3"), "iperf3"),
    (Need::Program("ps"), "procps"),
    // The program stands for its library, whose folder has the architecture's name.
    (Need::Program("faketime"), "faketime"),
    (Need::File("/etc/ssl/certs/ca-certificates.crt"), "ca-certificates"),
];

/// Where programs are that nobody starts by hand.
const LIBEXEC: [&str; 2] = ["/usr/lib/openssh", "/usr/libexec"];

#[derive(Clone, Copy, Debug)]
enum Need {
    Program(&'static str),
    File(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name) => {
                shell::find_program(name).is_some() || LIBEXEC.iter().any(|dir| Path::new(dir).join(name).is_file())
            }
            Self::File(path) => Path::new(path).is_file(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program(name) | Self::File(name) => name,
        }
    }
}

/// Installs what is missing where that is possible, and tells whether every test can run. What cannot, and why, is
/// printed.
pub(super) fn all_there() -> Result<bool> {
    let is_root = shell::read(Command::new("id").arg("-u"))?.trim() == "0";
    let missing = packages(&|need| !need.is_met());
    if !missing.is_empty() && is_root && is_debian() {
        install(&missing)?;
    }
    let still: Vec<_> = NEEDS.into_iter().filter(|(need, _)| !need.is_met()).collect();
    for (need, package) in &still {
        println!(
            "tests that need {} will be skipped: Debian's package {package} is not installed",
            need.name()
        );
    }
    let has_tun = Path::new("/dev/net/tun").exists();
    if !is_root {
        println!("tests that need network namespaces will be skipped: this is not root");
    } else if !has_tun {
        println!("tests that need network namespaces will be skipped: there is no /dev/net/tun");
    }
    Ok(is_root && has_tun && still.is_empty())
}

/// The packages of the needs that are wanted, each once.
fn packages(wanted: &dyn Fn(Need) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDS
        .into_iter()
        .filter(|(need, _)| wanted(*need))
        .map(|(_, package)| package)
        .collect();
    packages.dedup();
    packages
}

fn is_debian() -> bool {
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    describes_debian(&os) && shell::find_program("apt-get").is_some()
}

fn describes_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .any(|(key, value)| {
            matches!(key, "ID" | "ID_LIKE") && value.trim_matches('"').split(' ').any(|id| id == "debian")
        })
}

/// Installs all packages at once, or, where one of them spoils that, each by itself.
fn install(packages: &[&str]) -> Result<()> {
    println!("installing what tests need: {}", packages.join(" "));
    if let Err(error) = shell::run(apt_get().args(["update", "--quiet"])) {
        println!("{error:#}; trying with the package lists that are there");
    }
    if shell::run(apt_get().arg("install").args(packages)).is_ok() {
        return Ok(());
    }
    for package in packages {
        if let Err(error) = shell::run(apt_get().args(["install", package])) {
            println!("{error:#}");
        }
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--yes", "--quiet", "--no-install-recommends"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_installed_once() {
        let ssh = packages(&|need| need.name().starts_with("ssh"));
        assert_eq!(ssh, ["openssh-client", "openssh-server"]);
    }

    #[test]
    fn debian_and_what_is_made_of_it_are_known() {
        assert!(describes_debian("NAME=x\nID=debian\n"));
        assert!(describes_debian("ID=ubuntu\nID_LIKE=\"debian\"\n"));
        assert!(!describes_debian("ID=fedora\nNAME=\"debian lookalike\"\n"));
    }

    #[test]
    fn what_is_not_there_is_not_met() {
        assert!(Need::Program("sh").is_met());
        assert!(!Need::Program("no-such-program").is_met());
        assert!(!Need::File("/no/such/file").is_met());
    }
}
