use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Child,
    time::Instant,
};
use tunnel_carrier::{Notice, Stream};
use tunnel_edge::{
    agent::Agent,
    reload::{Reloader, Start, TRIAL, Trust},
};
use tunnel_model::{Offer, Reason, Refusal};

use crate::{
    gateway::{Gateway, Session, soon},
    program::{Ended, run, start},
};

#[tokio::test]
async fn a_reload_offers_and_allows_what_is_new_and_leaves_streams_alone() {
    let mut edge = Edge::start().await;
    let mut echo = Target::listen().await;
    edge.write(&format!("allow = [\"{}\"]\n", echo.address), "");
    assert_eq!(edge.reload(&[]).await.json()["applied"], serde_json::json!(["allow"]));
    let (mut stream, mut served) = echo.reached(&edge).await;

    let more = format!(
        "allow = [\"127.0.0.0/8:{}\"]\nadvertise = [\"10.42.3.0/24\"]\n",
        echo.port()
    );
    edge.write(&more, "[log]\nlevel = \"debug\"\nformat = \"json\"\n");
    let reloaded = edge.reload(&[]).await.json();
    assert_eq!(
        reloaded["applied"],
        serde_json::json!(["allow", "advertise", "log.level"])
    );
    assert_eq!(reloaded["restart"], serde_json::json!(["log.format"]));
    assert_eq!(edge.offer().await.subnets[0].to_string(), "10.42.3.0/24");
    edge.until("confirmed").await;
    passes(&mut stream, &mut served).await;
}

/// T4: what is not allowed any more is neither opened nor kept open.
#[tokio::test]
async fn t4_what_is_taken_from_the_allow_list_is_cut_once_that_is_confirmed() {
    let edge = Edge::start().await;
    let (mut kept, mut taken) = (Target::listen().await, Target::listen().await);
    edge.write(&format!("allow = [\"{}\", \"{}\"]\n", kept.address, taken.address), "");
    edge.reload(&[]).await.json();
    let mut staying = kept.reached(&edge).await;
    let (mut cut, mut served) = taken.reached(&edge).await;

    edge.write(&format!("allow = [\"{}\"]\n", kept.address), "");
    let reloaded = edge.reload(&["--confirm-within", "1h"]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "pending");
    // While it is on trial nothing new is let in, and the operator's own stream stays.
    let refused = soon("no", edge.session.connect(&taken.target())).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotAllowed);
    passes(&mut cut, &mut served).await;

    run(&edge.config, &["confirm"]).await;
    let broken = soon("the cut", cut.read_u8()).await.unwrap_err();
    let told = broken.into_inner().unwrap().downcast::<Refusal>().unwrap();
    assert_eq!(told.reason, Reason::NotAllowed);
    soon("a reset", served.read_u8()).await.unwrap_err();
    passes(&mut staying.0, &mut staying.1).await;
}

#[tokio::test]
async fn a_service_that_is_gone_takes_its_streams_with_it_as_soon_as_the_gateway_has_answered() {
    let edge = Edge::start().await;
    let mut web = Target::listen().await;
    let address = web.address;
    let service = |name: &str| format!("[[service]]\nname = \"{name}\"\ntarget = \"{address}\"\n");
    edge.write("", &service("web"));
    edge.reload(&[]).await.json();
    edge.until("confirmed").await;
    let mut stream = soon("a stream", edge.session.connect("service:web")).await.unwrap();
    let mut served = web.accept().await;
    passes(&mut stream, &mut served).await;
    edge.write("", &service("other"));
    edge.reload(&[]).await.json();
    let broken = soon("the cut", stream.read_u8()).await.unwrap_err();
    let told = broken.into_inner().unwrap().downcast::<Refusal>().unwrap();
    assert_eq!(told.reason, Reason::UnknownService);
    soon("a reset", served.read_u8()).await.unwrap_err();
}

/// What came in by a configuration that had to go does not outlive it.
#[tokio::test]
async fn a_roll_back_cuts_what_only_the_trial_allowed() {
    let edge = Edge::start().await;
    let mut target = Target::listen().await;
    edge.write(&format!("allow = [\"{}\"]\n", target.address), "");
    edge.reload(&["--confirm-within", "2s"]).await.json();
    let (mut stream, mut served) = target.reached(&edge).await;
    soon("the cut", stream.read_u8()).await.unwrap_err();
    soon("a reset", served.read_u8()).await.unwrap_err();
    edge.until("rolled-back").await;
}

/// R6: a bad file is refused whole, and the old one goes on.
#[tokio::test]
async fn r6_a_bad_file_changes_nothing() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let path = gateway.config_file(state.path(), "");
    let start = Start::read(&path).unwrap();
    let agent = Agent::start(&start.loaded.config).unwrap();
    let _session = gateway.session().await;
    let reloader = Reloader::new(agent.clone(), &path, start);
    let good = fs::read_to_string(&path).unwrap();
    for (bad, code) in [
        ("advertise = [\"10.42.3.0/24\"]\nalow = []\n", "config-unknown-key"),
        (
            "advertise = [\"10.42.3.0/24\"]\nallow = [\"x\"]\n",
            "config-invalid-value",
        ),
    ] {
        fs::write(&path, format!("{bad}{good}")).unwrap();
        let error = reloader.reload(None).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(agent.status().subnets, []);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(reloader.reload(None).await.unwrap_err().code(), "config-missing");
    assert_eq!(reloader.configuration().await.state, Trust::Confirmed);
}

#[tokio::test]
async fn a_hangup_signal_reloads_too() {
    let mut edge = Edge::start().await;
    edge.write("advertise = [\"10.42.4.0/24\"]\n", "");
    edge.signal(Signal::HUP);
    assert_eq!(edge.offer().await.subnets[0].to_string(), "10.42.4.0/24");
    edge.signal(Signal::TERM);
    assert!(edge.end().await.contains("configuration reloaded"));
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_left_for_the_one_before() {
    let mut edge = Edge::start().await;
    edge.point_at("127.0.0.1:1");
    let reloaded = edge.reload(&["--confirm-within", "1s"]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "pending");
    assert_eq!(reloaded["configuration"]["confirmed_by"], "operator");
    // Nobody confirms it: the agent comes back by itself.
    edge.session = edge.gateway.session().await;
    edge.until("rolled-back").await;
    let late = run(&edge.config, &["confirm"]).await;
    assert!(late.stderr.contains("error[nothing-to-confirm]"), "{late:?}");
    edge.signal(Signal::TERM);
    assert!(edge.end().await.contains("configuration rolled back"));
}

/// A restart in the middle of a trial comes back as well, and stays so until the file is another one.
#[tokio::test]
async fn a_restart_in_the_middle_of_a_trial_takes_the_configuration_before() {
    let mut edge = Edge::start().await;
    let good = fs::read_to_string(&edge.config).unwrap();
    edge.point_at("127.0.0.1:1");
    let reloaded = edge.reload(&["--confirm-within", "1h"]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "pending");
    for _ in 0..2 {
        edge.signal(Signal::KILL);
        edge.agent = start(&edge.config, &["run"]);
        edge.session = edge.gateway.session().await;
        edge.until("rolled-back").await;
    }
    fs::write(&edge.config, good).unwrap();
    let reloaded = edge.reload(&[]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "confirmed");
}

#[tokio::test]
async fn what_an_operator_confirms_stays() {
    let mut edge = Edge::start().await;
    edge.write("advertise = [\"10.42.3.0/24\"]\n", "");
    let reloaded = edge.reload(&["--confirm-within", "1h"]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "pending");
    let confirmed = run(&edge.config, &["confirm", "-o", "json"]).await.json();
    assert_eq!(confirmed["state"], "confirmed");
    edge.signal(Signal::KILL);
    edge.agent = start(&edge.config, &["run"]);
    edge.session = edge.gateway.session().await;
    assert_eq!(edge.session.subnets.len(), 1);
    edge.until("confirmed").await;
}

/// Another name of the gateway that is connected to is no reason to leave the session; its answer is the confirmation.
#[tokio::test]
async fn another_address_of_the_same_gateway_is_confirmed_by_its_answer() {
    let edge = Edge::start().await;
    let port = edge.gateway.address.0.port();
    edge.point_at(&format!("127.0.0.1:1\", \"localhost:{port}"));
    let reloaded = edge.reload(&[]).await.json();
    assert_eq!(reloaded["applied"], serde_json::json!(["gateway.addresses"]));
    edge.until("confirmed").await;
    assert_eq!(edge.gateway.connections(), 1);
}

/// A byte goes through.
async fn passes(stream: &mut Stream, served: &mut TcpStream) {
    stream.write_u8(7).await.unwrap();
    assert_eq!(soon("a byte", served.read_u8()).await.unwrap(), 7);
}

/// Something to reach.
struct Target {
    listener: TcpListener,
    address: SocketAddr,
}

impl Target {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn target(&self) -> String {
        format!("port:{}", self.port())
    }

    /// A stream to it, and its other end.
    async fn reached(&mut self, edge: &Edge) -> (Stream, TcpStream) {
        let stream = soon("a stream", edge.session.connect(&self.target())).await.unwrap();
        (stream, self.accept().await)
    }

    async fn accept(&mut self) -> TcpStream {
        soon("a connection", self.listener.accept()).await.unwrap().0
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_has_sixty_seconds_to_answer_and_then_the_one_before_is_in_force() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let path = gateway.config_file(state.path(), "");
    // Nobody is reached on paused time, which passes whenever everybody waits.
    let text = fs::read_to_string(&path).unwrap();
    let dead = |port: u16| text.replace(&gateway.address.to_string(), &format!("127.0.0.1:{port}"));
    fs::write(&path, dead(1)).unwrap();
    let start = Start::read(&path).unwrap();
    let agent = Agent::start(&start.loaded.config).unwrap();
    let reloader = Reloader::new(agent.clone(), &path, start);
    tokio::spawn(reloader.clone().watch());

    fs::write(&path, dead(2)).unwrap();
    let begun = Instant::now();
    let configuration = reloader.reload(None).await.unwrap().configuration;
    assert_eq!(configuration.state, Trust::Pending);
    assert_eq!(configuration.confirmed_by.as_deref(), Some("round trip"));
    tokio::time::sleep_until(begun + TRIAL - Duration::from_secs(1)).await;
    assert_eq!(reloader.configuration().await.state, Trust::Pending);
    tokio::time::sleep_until(begun + TRIAL + Duration::from_secs(1)).await;
    assert_eq!(reloader.configuration().await.state, Trust::RolledBack);
    // What is in force is the one before: to write it down again changes nothing.
    fs::write(&path, dead(1)).unwrap();
    let again = reloader.reload(None).await.unwrap();
    assert_eq!((again.applied.len(), again.configuration.state), (0, Trust::Confirmed));
}

#[tokio::test]
async fn another_gateway_that_answers_is_confirmed_by_its_answer_and_streams_of_the_old_one_end_by_themselves() {
    let mut edge = Edge::start().await;
    let mut target = Target::listen().await;
    edge.write(&format!("allow = [\"{}\"]\n", target.address), "");
    edge.reload(&[]).await.json();
    let (mut stream, mut served) = target.reached(&edge).await;

    let other = edge.gateway.another();
    edge.point_at(&other.to_string());
    let reloaded = edge.reload(&[]).await.json();
    assert_eq!(reloaded["configuration"]["state"], "pending");
    assert_eq!(reloaded["configuration"]["confirmed_by"], "round trip");
    let old = std::mem::replace(&mut edge.session, edge.gateway.session().await);
    edge.until("confirmed").await;
    let status = run(&edge.config, &["status", "-o", "json"]).await.json();
    let gateway = status["gateway"].as_str().unwrap();
    assert!(gateway.ends_with(&format!(":{}", other.0.port())), "{status}");
    passes(&mut stream, &mut served).await;
    target.reached(&edge).await;

    // A restart in between does not undo it.
    drop(old);
    edge.signal(Signal::KILL);
    edge.agent = start(&edge.config, &["run"]);
    edge.session = edge.gateway.session().await;
    edge.until("confirmed").await;
}

/// An agent as a program, connected.
struct Edge {
    gateway: Gateway,
    session: Session,
    agent: Child,
    config: PathBuf,
    state: tempfile::TempDir,
}

impl Edge {
    async fn start() -> Self {
        let mut gateway = Gateway::new();
        let state = gateway.enrolled(Duration::ZERO);
        let config = gateway.config_file(state.path(), "");
        let agent = start(&config, &["run"]);
        let session = gateway.session().await;
        let edge = Self {
            gateway,
            session,
            agent,
            config,
            state,
        };
        let waited = run(&edge.config, &["wait", "--timeout", "20s"]).await;
        assert_eq!(waited.code, 0, "{waited:?}");
        edge
    }

    /// Writes a configuration with these lines before and after those that every one has.
    fn write(&self, before: &str, after: &str) {
        let path = self.gateway.config_file(self.state.path(), after);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{before}{text}")).unwrap();
    }

    fn point_at(&self, gateway: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        let ours = self.gateway.address.to_string();
        assert!(text.contains(&ours));
        fs::write(&self.config, text.replace(&ours, gateway)).unwrap();
    }

    async fn reload(&self, more: &[&str]) -> Ended {
        run(&self.config, &[&["reload", "-o", "json"], more].concat()).await
    }

    /// Waits until the configuration is trusted so far. Each look is a program's whole life.
    async fn until(&self, trust: &str) {
        soon(trust, async {
            loop {
                let status = run(&self.config, &["status", "-o", "json"]).await;
                if status.code == 0 && status.json()["configuration"]["state"] == trust {
                    break;
                }
            }
        })
        .await;
    }

    /// The next offer on the session.
    async fn offer(&mut self) -> Offer {
        match soon("an offer", self.session.notices.recv())
            .await
            .map(|notice| *notice)
        {
            Some(Notice::Offer(offer)) => offer,
            other => panic!("{other:?}"),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.agent.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What the agent has logged, once it has ended.
    async fn end(self) -> String {
        let ended = soon("the end", self.agent.wait_with_output()).await.unwrap();
        String::from_utf8(ended.stderr).unwrap()
    }
}
