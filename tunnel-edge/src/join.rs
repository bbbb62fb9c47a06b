//! Becoming a node: from a join token to an identity on disk and a first answer through the tunnel.
//!
//! The order matters. Nothing is overwritten, and that is found out before the token is spent; the gateway proves itself
//! before it sees a byte of the request; the new key is on disk before the gateway certifies it; the configuration is
//! written last, so that a file that is there means a node that was enrolled.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant as StdInstant, SystemTime},
};

use tokio::time::Instant;
use tunnel_carrier::{Connection, Dialer, Patience, exchange, quic, tls::Proxy};
use tunnel_daemon::{
    error::{CliError, Exit},
    file::{self, Mode},
};
use tunnel_identity::{
    Clock, EnrolRequest, GatewayIdentity, Issued, JoinToken, NodeFiles, Reply, Request, TimeFloor, UnixTime, tls,
};
use tunnel_model::{NodeName, Reason, Refusal};

pub use crate::stages::Stage;
use crate::{
    config::{self, Config},
    echo::echo,
    fault::{file_error, load_error, refused},
    host_name,
    identity::{Identity, time_floor},
    proxies::{self, ProxySetting},
    stages::Stages,
};

/// What to join, and where to keep it.
#[derive(Debug)]
pub struct Plan {
    /// The token.
    pub token: JoinToken,
    /// The configuration file to write.
    pub config: PathBuf,
    /// The directory for keys and certificates.
    pub state: PathBuf,
    /// The node's name; else this machine's, or the one that the token fixes.
    pub name: Option<NodeName>,
}

/// A node that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its name, as the gateway has it.
    pub name: String,
}

/// Joins; `say` is told of each stage when it ends.
///
/// # Errors
/// Codes: `join-exists` and `join-config-exists` (nothing was touched), `join-resolve`, `join-connect`, `join-pin` (the
/// token was not spent), `token-refused` and `name-refused` (exit 5), `join-clock`, `join-enrol`, `join-config` and
/// `join-echo`; those of [`tunnel_identity::FileError::code`] where the state directory cannot be used.
pub async fn join(plan: &Plan, say: impl FnMut(Stage)) -> Result<Joined, CliError> {
    let files = prepare(plan)?;
    let floor = time_floor(&files);
    let mut stages = Stages::new(say);

    let gateways = plan.token.gateways();
    let written = Config::load(&plan.config).ok();
    let proxies = ProxySetting::proxies(written.as_ref().and_then(|config| config.link_proxy.as_ref()))
        .map_err(|error| CliError::new(Exit::Usage, "proxy-invalid", error.to_string()))?;
    let proxy = gateways.iter().find_map(|gateway| proxies.of(gateway)).cloned();
    let resolved = async {
        proxies::resolve(gateways, &proxies)
            .await
            .map_err(|error| not_resolved(&error))
    };
    stages.run("resolve", resolved, String::clone).await?;

    let dialer = Dialer::bind(0, proxies).map_err(|error| {
        let message = format!("there is no UDP socket to dial from: {error}");
        CliError::new(Exit::Failure, "join-connect", message)
    })?;
    let carrier = written.and_then(|config| config.link_carrier);
    let dialer = dialer.only(carrier.map(Into::into));
    let enrolment = Enrolment {
        plan,
        files: &files,
        floor: &floor,
        dialer: &dialer,
    };
    let connection = enrolment.connect(&mut stages).await?;
    let issued = enrolment.enrol(connection, &mut stages).await?;

    write_config(plan, proxy.as_ref())?;
    let identity = Identity::load(&plan.state).map_err(load_error)?;
    let echoed = async {
        echo(&identity, &dialer, gateways)
            .await
            .map_err(|why| no_echo(plan, &why))
    };
    let echoed = stages
        .run("echo", echoed, |echo| {
            format!(
                "{:.1} ms through the tunnel, as {}",
                echo.rtt.as_secs_f64() * 1000.0,
                echo.name
            )
        })
        .await;
    // The gateway is told that this was all; it finds out by itself otherwise.
    let _ = tokio::time::timeout(Duration::from_secs(1), dialer.wait_idle()).await;
    echoed.map(|_| Joined {
        name: issued.name.to_string(),
    })
}

/// Makes sure that everything can be written and nothing is lost.
fn prepare(plan: &Plan) -> Result<NodeFiles, CliError> {
    let files = NodeFiles::open(&plan.state).map_err(file_error)?;
    if files.node().load().map_err(file_error)?.is_some() {
        let message = format!("{} holds the identity of a node already", plan.state.display());
        return Err(CliError::new(Exit::Failure, "join-exists", message)
            .with_hint("start it with `tunnel-edge run`, or give another directory with --state"));
    }
    if plan.config.exists() {
        let kept = Config::load(&plan.config)?;
        if kept.state != absolute(plan) || kept.gateways != plan.token.gateways() {
            let message = format!("{} is there and names another state or gateway", plan.config.display());
            return Err(CliError::new(Exit::Failure, "join-config-exists", message)
                .with_hint("move it away, or give another path with --config"));
        }
    }
    if let Some(dir) = plan.config.parent() {
        fs::create_dir_all(dir).map_err(|error| config_failed(plan, &error))?;
    }
    Ok(files)
}

struct Enrolment<'a> {
    plan: &'a Plan,
    files: &'a NodeFiles,
    floor: &'a TimeFloor,
    dialer: &'a Dialer,
}

impl Enrolment<'_> {
    /// The stages `connect` and `pin`: one handshake does both.
    async fn connect(&self, stages: &mut Stages<impl FnMut(Stage)>) -> Result<Connection, CliError> {
        let start = Instant::now();
        let dialled = self.dial().await;
        match dialled {
            Ok(connection) => {
                let (there, by) = (connection.remote_address(), connection.kind());
                stages.report("connect", start, Ok(format!("{there}, by {by}")));
                stages.report(
                    "pin",
                    start,
                    Ok(format!("the gateway's root is {}", self.plan.token.pin())),
                );
                Ok(connection)
            }
            Err(refusal) if refusal.reason == Reason::Unauthenticated => {
                let error = pin_failed(&refusal);
                stages.report("connect", start, Ok("a gateway answers".to_owned()));
                stages.report("pin", start, Err(&error));
                Err(error)
            }
            Err(refusal) => {
                let error = not_connected(&refusal);
                stages.report("connect", start, Err(&error));
                Err(error)
            }
        }
    }

    async fn dial(&self) -> Result<Connection, Refusal> {
        let tls = tls::client_config_enrol(self.plan.token.pin(), self.floor)
            .map_err(|error| Refusal::new(Reason::Internal, format!("cannot set up TLS: {error}")))?;
        let dialled = self
            .dialer
            .dial(self.plan.token.gateways(), &tls, Patience::default())
            .await;
        Ok(dialled?)
    }

    /// The stages `clock` and `enrol`: the answer to the one question brings both.
    async fn enrol(&self, connection: Connection, stages: &mut Stages<impl FnMut(Stage)>) -> Result<Issued, CliError> {
        let start = Instant::now();
        let (connection, issued) = self
            .ask(connection)
            .await
            .inspect_err(|error| stages.report("enrol", start, Err(error)))?;
        let chain = connection.peer_chain();
        connection.close(&Refusal::new(Reason::Cancelled, "done"));

        let system = UnixTime::from(SystemTime::now());
        let (root, gateway) = GatewayIdentity::from_pinned_chain(&chain, &self.plan.token.pin(), self.floor)
            .map_err(|error| pin_failed(&Refusal::new(Reason::Unauthenticated, error.to_string())))?;
        let mut clock = Clock::new(self.floor.clone());
        let learned = clock
            .learn(issued.time, StdInstant::now(), gateway.validity)
            .map_err(|error| CliError::new(Exit::Failure, "join-clock", error.to_string()));
        stages.report(
            "clock",
            start,
            learned.as_ref().map(|()| difference(system, issued.time)),
        );
        learned?;

        let kept = self
            .files
            .save_root(&root)
            .and_then(|()| self.files.save_last_good_time(self.floor.get()))
            .and_then(|()| self.files.node().commit(issued.chain.clone()))
            .map_err(file_error);
        stages.report(
            "enrol",
            start,
            kept.as_ref().map(|_| format!("this node is {}", issued.name)),
        );
        kept.map(|_| issued)
    }

    /// Asks for a certificate: under the name that was given, else under this machine's, else under the token's.
    async fn ask(&self, connection: Connection) -> Result<(Connection, Issued), CliError> {
        let given = self.plan.name.clone();
        let wished = given.clone().or_else(|| node_name(&host_name()));
        let answer = self.ask_as(&connection, wished.clone()).await?;
        match answer {
            Reply::Issued(issued) => Ok((connection, issued)),
            Reply::Refused(refusal) if refusal.reason == Reason::Denied && given.is_none() && wished.is_some() => {
                connection.close(&Refusal::new(Reason::Cancelled, "done"));
                let again = self.dial().await.map_err(|error| not_connected(&error))?;
                match self.ask_as(&again, None).await? {
                    Reply::Issued(issued) => Ok((again, issued)),
                    Reply::Refused(refusal) => Err(not_enrolled(&refusal)),
                }
            }
            Reply::Refused(refusal) => Err(not_enrolled(&refusal)),
        }
    }

    async fn ask_as(&self, connection: &Connection, name: Option<NodeName>) -> Result<Reply, CliError> {
        let binding = connection.channel_binding().map_err(|refusal| not_enrolled(&refusal))?;
        let key = self.files.node().begin().map_err(file_error)?;
        let internal = |error: &dyn std::error::Error| CliError::new(Exit::Failure, "join-enrol", error.to_string());
        let request = EnrolRequest::build(&self.plan.token, &binding, &key, name).map_err(|error| internal(&error))?;
        let question = Request::Enrol(request).encode().map_err(|error| internal(&error))?;
        let answer = exchange::ask(connection, &question)
            .await
            .map_err(|refusal| not_enrolled(&refusal))?;
        Reply::decode(&answer).map_err(|error| internal(&error))
    }
}

/// Writes the configuration unless it is there. The agent goes through the proxy that joining went through: a service has
/// another environment than whoever sets it up.
fn write_config(plan: &Plan, proxy: Option<&Proxy>) -> Result<(), CliError> {
    if plan.config.exists() {
        return Ok(());
    }
    let text = config::first_file(&absolute(plan), plan.token.gateways(), proxy);
    let mode = match proxy {
        Some(proxy) if proxy.has_credentials() => Mode::Private,
        _ => Mode::Public,
    };
    file::write_new(&plan.config, text.as_bytes(), mode).map_err(|error| config_failed(plan, &error))
}

fn absolute(plan: &Plan) -> PathBuf {
    std::path::absolute(&plan.state).unwrap_or_else(|_| plan.state.clone())
}

/// A host name as a node's name: its first label, in lower case, with what no name may hold taken out.
fn node_name(host: &str) -> Option<NodeName> {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let clean: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    clean.trim_matches('-').parse().ok()
}

fn difference(system: UnixTime, gateway: UnixTime) -> String {
    let (behind, ahead) = (gateway.since(system).as_secs(), system.since(gateway).as_secs());
    match (behind, ahead) {
        (0..=2, 0..=2) => "this machine's clock is right".to_owned(),
        (0, ahead) => format!("this machine's clock is {ahead} s ahead; the gateway's is used"),
        (behind, _) => format!("this machine's clock is {behind} s behind; the gateway's is used"),
    }
}

fn not_resolved(error: &quic::DialError) -> CliError {
    CliError::new(Exit::Failure, "join-resolve", error.to_string())
        .with_hint("does this machine have a working DNS server? the token names the gateway")
}

fn not_connected(error: &Refusal) -> CliError {
    CliError::new(Exit::Failure, "join-connect", error.message.clone())
        .with_hint("does the gateway run, and does its port pass the firewalls in between, by UDP or at least by TCP?")
}

fn pin_failed(refusal: &Refusal) -> CliError {
    let message = format!("the gateway is not the one of the token: {}", refusal.message);
    CliError::new(Exit::Failure, "join-pin", message).with_hint(
        "nothing was sent to it; is something in between, or was the gateway set up anew? then create a new token",
    )
}

fn not_enrolled(refusal: &Refusal) -> CliError {
    match refusal.reason {
        Reason::Unauthenticated => CliError::new(Exit::Denied, "token-refused", refusal.message.clone()),
        Reason::Denied => CliError::new(Exit::Denied, "name-refused", refusal.message.clone()),
        _ => refused("join-enrol", refusal),
    }
}

/// The token is spent: joining again would need another, and there is nothing left to join for.
fn no_echo(plan: &Plan, refusal: &Refusal) -> CliError {
    let config = plan.config.display();
    refused("join-echo", refusal).with_hint(format!(
        "the node is enrolled; run it with `tunnel-edge run --config {config}`, and see what keeps it from its gateway \
         with `tunnel-edge check --config {config}`"
    ))
}

fn config_failed(plan: &Plan, error: &std::io::Error) -> CliError {
    let message = format!("cannot write {}: {error}", plan.config.display());
    CliError::new(Exit::Failure, "join-config", message).with_hint("give a path that this user may write with --config")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B13
    #[test]
    fn b13_a_host_name_becomes_a_node_name_or_none() {
        for (host, name) in [
            ("edge1", Some("edge1")),
            ("Edge_One.example.com", Some("edge-one")),
            ("-x-", Some("x")),
            ("../x", None),
            ("", None),
            ("日本", None),
        ] {
            assert_eq!(node_name(host).as_ref().map(NodeName::as_str), name, "{host}");
        }
        let long = node_name(&"a".repeat(70)).unwrap();
        assert_eq!(long.as_str().len(), 63);
    }

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much() {
        let time = UnixTime::from_secs;
        assert_eq!(difference(time(100), time(101)), "this machine's clock is right");
        assert!(difference(time(0), time(100)).contains("100 s behind"));
        assert!(difference(time(100), time(0)).contains("100 s ahead"));
    }
}
