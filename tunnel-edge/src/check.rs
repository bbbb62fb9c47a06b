//! How far this edge gets: each step to the gateway, through the tunnel, and to each service.

use tokio::time::Instant;
use tunnel_carrier::{CarrierKind, Connection, DialError, Dialer, Patience};
use tunnel_daemon::{
    admin::UnixClient,
    error::{CliError, Exit},
};
use tunnel_identity::tls::Alpn;
use tunnel_model::{GatewayAddr, Protocol, Reason, Refusal, Target};

use crate::{
    admin::Pong,
    agent::{Phase, Status},
    config::Config,
    echo::echo,
    fault::{load_error, refused},
    identity::Identity,
    proxies::{self, ProxySetting},
    stages::{Stage, Stages},
    targets::{Targets, dial},
};

/// Walks all steps; what builds on a step that failed is left out.
///
/// # Errors
/// Only where there is nothing to check with: no identity.
pub async fn check(config: &Config, agent: &UnixClient) -> Result<Vec<Stage>, CliError> {
    let identity = Identity::load(&config.state).map_err(load_error)?;
    let mut found = Vec::new();
    let mut stages = Stages::new(|stage| found.push(stage));
    // A step that failed is in the list; the others are worth knowing all the same.
    let _ = reach_gateway(config, agent, &identity, &mut stages).await;
    reach_services(config, &mut stages).await;
    Ok(found)
}

async fn reach_gateway(
    config: &Config,
    agent: &UnixClient,
    identity: &Identity,
    stages: &mut Stages<impl FnMut(Stage)>,
) -> Result<(), CliError> {
    let failed = |code: &'static str| move |why: Refusal| refused(code, &why);
    let proxies = ProxySetting::proxies(config.link_proxy.as_ref())
        .map_err(|error| CliError::new(Exit::Usage, "proxy-invalid", error.to_string()))
        .inspect_err(|error| stages.report("connect", Instant::now(), Err(error)))?;
    let resolved = async {
        proxies::resolve(&config.gateways, &proxies)
            .await
            .map_err(|e| failed("resolve")(e.to_refusal()))
    };
    stages.run("resolve", resolved, String::clone).await?;

    let dialer = Dialer::bind(0, proxies)
        .map_err(|error| CliError::new(Exit::Failure, "connect", format!("there is no UDP socket: {error}")))?
        .only(config.link_carrier.map(Into::into));
    let start = Instant::now();
    // The protocol of enrolment, with no question asked: a second session would throw out the agent's.
    let tls = identity.tls(Alpn::Enrol).map_err(failed("connect"))?;
    match by_both(&dialer, &config.gateways, &tls).await {
        Ok(found) => {
            stages.report("connect", start, Ok(found));
            stages.report("pin", start, Ok("the gateway is of this cluster".to_owned()));
        }
        Err(why) => {
            let (error, stage) = if why.reason == Reason::Unauthenticated {
                stages.report("connect", start, Ok("a gateway answers".to_owned()));
                (failed("pin")(why), "pin")
            } else {
                (failed("connect")(why), "connect")
            };
            stages.report(stage, start, Err(&error));
            return Err(error);
        }
    }

    match agent.get::<Status>("/v1/status").await {
        Ok(status) => through_agent(agent, status, stages).await,
        Err(error) if matches!(error.code(), "admin-no-socket" | "admin-no-answer") => {
            let echoed = async {
                echo(identity, &dialer, &config.gateways)
                    .await
                    .map_err(failed("session"))
            };
            let start = Instant::now();
            let echo = stages
                .run("session", echoed, |echo| {
                    format!("as {}; the agent is not running", echo.name)
                })
                .await?;
            stages.report("echo", start, Ok(format!("{:.1} ms", echo.rtt.as_secs_f64() * 1000.0)));
            Ok(())
        }
        Err(error) => {
            stages.report("session", Instant::now(), Err(&error));
            Err(error)
        }
    }
}

/// Dials by QUIC and by TLS, and says which of them get through: one is enough, but whoever asks wants to know. Or by one
/// of them, where the configuration says so.
async fn by_both(dialer: &Dialer, gateways: &[GatewayAddr], tls: &rustls::ClientConfig) -> Result<String, Refusal> {
    let seen = |connection: Connection| {
        connection.close(&Refusal::new(Reason::Cancelled, "done"));
        format!("{} by {}", connection.remote_address(), connection.kind())
    };
    if !(dialer.may_go_by(CarrierKind::Quic) && dialer.may_go_by(CarrierKind::Tls)) {
        let dialled = dialer.dial(gateways, tls, Patience::default()).await;
        return dialled.map(seen).map_err(Into::into);
    }
    let (by_quic, by_tls) = tokio::join!(
        dialer.quic().dial(gateways, tls.clone()),
        dialer.tls().dial(gateways, tls.clone())
    );
    match (
        by_quic.map(Connection::from).map(seen),
        by_tls.map(Connection::from).map(seen),
    ) {
        (Ok(by_quic), Ok(by_tls)) => Ok(format!("{by_quic}, {by_tls}")),
        (Ok(by_quic), Err(error)) => Ok(format!("{by_quic} only; by tls: {error}")),
        (Err(error), Ok(by_tls)) => Ok(format!("{by_tls} only; by quic: {error}")),
        (Err(by_quic), Err(by_tls)) => Err(DialError::of(by_quic, by_tls).to_refusal()),
    }
}

async fn through_agent(
    agent: &UnixClient,
    status: Status,
    stages: &mut Stages<impl FnMut(Stage)>,
) -> Result<(), CliError> {
    let session = async {
        match status.state {
            Phase::Connected => Ok(status.name.unwrap_or_default()),
            _ => {
                let why = status.message.unwrap_or_else(|| "it is still connecting".to_owned());
                Err(CliError::new(
                    Exit::Failure,
                    "session",
                    format!("the agent is not connected: {why}"),
                ))
            }
        }
    };
    stages
        .run("session", session, |name| format!("the agent is connected as {name}"))
        .await?;
    let ping = agent.request::<(), Pong>(hyper::Method::POST, "/v1/ping", None);
    stages
        .run("echo", ping, |pong| format!("{:.1} ms", pong.rtt_ms))
        .await?;
    Ok(())
}

async fn reach_services(config: &Config, stages: &mut Stages<impl FnMut(Stage)>) {
    let targets = Targets::new(config.services.clone(), config.allow.clone());
    for service in &config.services {
        let target = Target::Service(service.name.clone());
        if service.protocol == Protocol::Udp {
            // A socket proves nothing here: only an answer would, and what to ask is not known.
            let declared = format!(
                "declared as udp:{}; only its clients can tell whether it answers",
                service.target
            );
            stages.report(&format!("service {}", service.name), Instant::now(), Ok(declared));
            continue;
        }
        let dialled = async {
            dial(&targets, &target, "this machine")
                .await
                .map_err(|why| refused("service", &why))
        };
        // The outcome is in the list.
        let _ = stages
            .run(&format!("service {}", service.name), dialled, |_| {
                service.target.to_string()
            })
            .await;
    }
}
