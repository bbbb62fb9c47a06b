use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Child,
};
use tunnel_carrier::Notice;
use tunnel_edge::{
    agent::Agent,
    reload::{Reloader, Start, Trust},
};
use tunnel_model::{Offer, Reason};

use crate::{
    gateway::{Gateway, Session, soon},
    program::{Ended, run, start},
};

#[tokio::test]
async fn a_reload_offers_and_allows_what_is_new_and_leaves_streams_alone() {
    let mut edge = Edge::start().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    edge.write(&format!("allow = [\"127.0.0.1:{port}\"]\n"), "");
    assert_eq!(edge.reload(&[]).await.json()["applied"], serde_json::json!(["allow"]));
    let mut stream = soon("a stream", edge.session.connect(&format!("port:{port}")))
        .await
        .unwrap();
    let (mut served, _) = target.accept().await.unwrap();

    let more = "advertise = [\"10.42.3.0/24\"]\n";
    edge.write(more, "[log]\nlevel = \"debug\"\nformat = \"json\"\n");
    let reloaded = edge.reload(&[]).await.json();
    assert_eq!(
        reloaded["applied"],
        serde_json::json!(["allow", "advertise", "log.level"])
    );
    assert_eq!(reloaded["restart"], serde_json::json!(["log.format"]));
    assert_eq!(edge.offer().await.subnets[0].to_string(), "10.42.3.0/24");
    let refused = soon("no", edge.session.connect(&format!("port:{port}")))
        .await
        .unwrap_err();
    assert_eq!(refused.reason, Reason::NotAllowed);

    stream.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    served.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
    edge.until("confirmed").await;
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
        match soon("an offer", self.session.notices.recv()).await {
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
