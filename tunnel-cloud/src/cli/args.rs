//! What can be said on the command line. The texts here are the help and the man pages.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use tunnel_daemon::{
    cli::{ConfigCommand, GenerateCommand},
    output::OutputArg,
};
use tunnel_model::{ChosenClass, GatewayAddr, GroupName, Labels, NodeName, Protocol, Subnet, Target, UserName, Zone};

use crate::audit::chain::RecordHash;
use crate::config::parse_target;

/// The gateway: edges dial out to it, operators reach the edges through it
#[derive(Debug, Parser)]
#[command(name = "tunnel-cloud", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TUNNEL_CLOUD_CONFIG",
        default_value = "/etc/tunnel/cloud.toml"
    )]
    pub config: PathBuf,
    /// How data is printed
    #[command(flatten)]
    pub output: OutputArg,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new cluster: keys, store, first user, and the configuration file
    Init(InitArgs),
    /// Run the gateway
    Serve,
    /// Run a gateway and a few edges over a simulated thin link, to try things out
    Lab(LabArgs),
    /// Look at the configuration
    Config {
        /// What to look at
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Join tokens, which let edges become nodes
    Token {
        /// What to do
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Nodes, the edges that have joined
    Nodes {
        /// What to do
        #[command(subcommand)]
        command: NodesCommand,
    },
    /// Routes, by which addresses lead to nodes
    Routes {
        /// What to do
        #[command(subcommand)]
        command: RoutesCommand,
    },
    /// Users, the people and programs that reach nodes
    Users {
        /// What to do
        #[command(subcommand)]
        command: UsersCommand,
    },
    /// The rules: who may reach what
    Policy {
        /// What to do
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Walk the way of a dial and name the hop that says no; the stream is really opened, and closed at once
    Explain {
        /// What to reach
        #[arg(value_name = "NODE:TARGET")]
        destination: String,
        /// As whom
        #[arg(long = "as", value_name = "SUBJECT")]
        subject: String,
    },
    /// Streams that are open
    Streams {
        /// What to do
        #[command(subcommand)]
        command: StreamsCommand,
    },
    /// Watch what passes, by node, class and principal, until interrupted
    Top {
        /// Print one table and exit
        #[arg(long)]
        once: bool,
    },
    /// Have the running gateway read its configuration again; live streams go on
    Reload,
    /// How the running gateway is
    Status,
    /// Measure round trips to a node's agent, through the tunnel
    Ping {
        /// The node's name
        node: String,
        /// How many
        #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Listen on a port that leads to a target, for as long as this command runs
    ///
    /// The running gateway listens, and its policy sees whoever connects as user:operator of the group admins, whatever
    /// they are: whoever may open the admin socket is an administrator. When the command ends, the port is closed and
    /// what runs through it is cut.
    Forward(ForwardArgs),
    /// The audit log: who reached what, who joined, what administrators did
    Audit {
        /// What to do
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Copy the store to a new file, while the gateway works; keep a copy of the keys in STATE/keys too, once
    Backup {
        /// The file to write
        path: PathBuf,
    },
    /// Completions and man pages
    #[command(flatten)]
    Generate(GenerateCommand),
}

/// The arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The directory for keys and store; must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where edges reach this gateway
    #[arg(long, value_name = "HOST:PORT")]
    pub public: GatewayAddr,
    /// Where the proxy for users listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7080")]
    pub proxy: SocketAddr,
    /// The suffix of the nodes' names
    #[arg(long, default_value = "tunnel")]
    pub zone: Zone,
}

/// The arguments of `forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Where it leads: edge1:22, edge1:service:web, edge1:10.42.3.7:80, with udp: before the target for UDP
    #[arg(value_name = "NODE:TARGET")]
    pub to: ForwardTo,
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// How urgent its streams are: interactive, api, metrics or bulk; as the target says unless given
    #[arg(long)]
    pub class: Option<ChosenClass>,
    /// Let it be an address that other machines reach; whoever reaches it acts as an administrator there
    #[arg(long)]
    pub public: bool,
}

/// Where a forward leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTo {
    /// The node.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
    /// By which protocol it is reached.
    pub protocol: Protocol,
}

impl FromStr for ForwardTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, target) = text
            .split_once(':')
            .ok_or_else(|| format!("{text:?} names no target; write NODE:TARGET"))?;
        let (target, protocol) = parse_target(target, None)?;
        let node = node.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { node, target, protocol })
    }
}

/// The arguments of `lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// How many edges
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub nodes: u16,
    /// The link of each edge: rate, round-trip delay, loss
    #[arg(long, default_value = "3mbit,60ms,1%", value_name = "RATE,DELAY,LOSS")]
    pub link: String,
    /// Prove the path end to end, and exit
    #[arg(long)]
    pub check: bool,
}

/// The commands for join tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, alone; it is shown this once
    Create(TokenArgs),
    /// List tokens, without their secrets
    Ls,
    /// Make a token useless
    Revoke {
        /// The token's id, as `token ls` lists it
        id: String,
    },
}

/// The arguments of `token create`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The only name that a node may take with it
    #[arg(long)]
    pub name: Option<NodeName>,
    /// A label that the nodes get; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// For how long it is good: 90s, 30m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
}

/// The commands for nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// List nodes
    Ls,
    /// Show one node
    Show {
        /// Its name
        node: String,
    },
    /// Show when a node's link was lost, why, and for how long
    History {
        /// Its name
        node: String,
    },
    /// Set and remove labels of a node
    Label {
        /// Its name
        node: String,
        /// KEY=VALUE sets a label, KEY- removes it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label_edit)]
        edits: Vec<LabelEdit>,
    },
    /// Forget a node: its certificate is worth nothing, its name is free
    Rm {
        /// Its name
        node: String,
    },
    /// Revoke a node: its certificate is worth nothing, its session is cut, its name stays taken
    Revoke {
        /// Its name
        node: String,
    },
}

/// The commands for routes.
#[derive(Debug, Subcommand)]
pub enum RoutesCommand {
    /// List what nodes advertise and what is approved
    Ls,
    /// Let addresses of a subnet lead to a node, for as long as it advertises that subnet
    Approve {
        /// The node's name
        node: String,
        /// The subnet, as the node advertises it
        #[arg(value_name = "ADDRESS/LENGTH")]
        subnet: Subnet,
    },
    /// Take an approval back
    Revoke {
        /// The node's name
        node: String,
        /// The subnet
        #[arg(value_name = "ADDRESS/LENGTH")]
        subnet: Subnet,
    },
}

/// The commands for users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Make a user and print the secret, alone; it is shown this once
    Create {
        /// The user's name
        name: UserName,
        /// The groups it belongs to, with commas between; members of `admins` reach everything that edges allow
        #[arg(long = "groups", alias = "group", value_name = "GROUP", value_delimiter = ',')]
        groups: Vec<GroupName>,
    },
    /// List users
    Ls,
    /// Issue a client certificate for TLS to the proxy port, and print it; it is good while the user exists
    Certificate(CertificateArgs),
    /// Remove a user, whose secret and certificates are worth nothing from then on
    Rm {
        /// The user's name
        name: String,
    },
}

/// The arguments of `users certificate`.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// The user's name
    pub name: UserName,
    /// Whose key
    #[command(flatten)]
    pub key: CertificateKey,
    /// For how long it is good: 90s, 30m, 1h, 7d
    #[arg(long, default_value = "7d", value_parser = duration)]
    pub ttl: Duration,
    /// Write the cluster's root certificate here, by which clients know the gateway
    #[arg(long, value_name = "FILE")]
    pub out_root: Option<PathBuf>,
}

/// Whose key the certificate is for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct CertificateKey {
    /// A certificate request (PKCS#10, PEM) with a P-256 or Ed25519 key, made where the key is to be used
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Make a P-256 key, here, and write it to this new file
    #[arg(long, value_name = "FILE")]
    pub out_key: Option<PathBuf>,
}

/// The commands for rules.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say which rule allows something, or what is lacking; exits with 5 if none does
    Test {
        /// Who asks: user:NAME, group:NAME, cidr:ADDRESS or node:NAME
        subject: String,
        /// What for
        #[arg(value_name = "NODE:TARGET")]
        destination: String,
    },
}

/// The commands for streams.
#[derive(Debug, Subcommand)]
pub enum StreamsCommand {
    /// List streams, the oldest first
    Ls,
    /// Cut streams: all that fit what is given
    Kill(KillArgs),
}

/// The arguments of `streams kill`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct KillArgs {
    /// The stream's number, as `streams ls` lists it
    pub id: Option<u64>,
    /// Those of one principal, such as user:alice
    #[arg(long)]
    pub principal: Option<String>,
    /// Those to one node
    #[arg(long)]
    pub node: Option<NodeName>,
}

/// The commands for the audit log. They read its files, whether a gateway runs or not.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the last records
    Tail {
        /// How many
        #[arg(short, long, default_value_t = 20, value_name = "N")]
        number: usize,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Check that the log is as it was written, and print its head
    Verify(VerifyArgs),
}

/// The arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The files, the oldest first; those of the configuration unless given
    pub files: Vec<PathBuf>,
    /// The head that an earlier `verify` printed: its record must still be there
    #[arg(long, value_name = "HASH")]
    pub expect: Option<RecordHash>,
}

/// One change of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelEdit {
    /// The label is to have this value.
    Set(String, String),
    /// The label is to go.
    Remove(String),
}

fn label(text: &str) -> Result<(String, String), String> {
    Labels::parse([text]).map_err(|error| error.to_string())?;
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((key.to_owned(), value.to_owned()))
}

fn label_edit(text: &str) -> Result<LabelEdit, String> {
    match text.strip_suffix('-').filter(|key| !key.contains('=')) {
        Some("") => Err("there is no key before the '-'".to_owned()),
        Some(key) => Ok(LabelEdit::Remove(key.to_owned())),
        None => label(text).map(|(key, value)| LabelEdit::Set(key, value)),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = |text: &str| match text {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(at);
    let seconds = number
        .parse::<u64>()
        .ok()
        .zip(unit(rest))
        .and_then(|(n, unit)| n.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("write a whole number and a unit: 90s, 30m, 1h, 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_forward_leads_to_a_node_and_a_target() {
        for (text, target, protocol) in [
            ("edge1:22", "port:22", Protocol::Tcp),
            ("edge1:service:web", "service:web", Protocol::Tcp),
            ("edge1:10.42.3.7:80", "tcp:10.42.3.7:80", Protocol::Tcp),
            ("edge1:udp:53", "udp:53", Protocol::Udp),
        ] {
            let to = text.parse::<ForwardTo>().unwrap();
            assert_eq!(
                (to.node.as_str(), to.target, to.protocol),
                ("edge1", target.parse().unwrap(), protocol)
            );
        }
        for bad in ["", "edge1", "edge1:", ":22", "Edge1:web", "edge1:0"] {
            assert!(bad.parse::<ForwardTo>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        for bad in [
            "",
            "1",
            "h",
            "0h",
            "-1h",
            "1.5h",
            "1h30m",
            "99999999999999999999d",
            "1 h",
            "١h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trailing_hyphen_removes_a_label() {
        assert_eq!(label_edit("a=b"), Ok(LabelEdit::Set("a".to_owned(), "b".to_owned())));
        assert_eq!(label_edit("a=b-"), Ok(LabelEdit::Set("a".to_owned(), "b-".to_owned())));
        assert_eq!(label_edit("a-"), Ok(LabelEdit::Remove("a".to_owned())));
        assert!(label_edit("-").is_err() && label_edit("a").is_err());
    }
}
