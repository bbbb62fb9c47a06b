use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crate::operator::Operator;

#[test]
fn policy_test_names_the_rule_that_allows_or_what_the_nearest_lack() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1", "edge2"]);
    operator.run(&["nodes", "label", "edge1", "site=hz"]).well();
    operator.run(&["users", "create", "alice", "--groups", "ops"]).well();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"group:ops\", \"cidr:10.0.0.0/8\"]\nnodes = \"site=hz\"\ntargets = [\"service:web\"]\n",
    );
    let ask_all = || {
        let test = |subject: &str, what: &str| operator.run(&["policy", "test", subject, what]);
        for subject in ["user:alice", "group:ops", "cidr:10.9.9.9"] {
            assert_eq!(
                test(subject, "edge1:service:web").well(),
                "allowed by rule 1: group:ops, cidr:10.0.0.0/8 -> site=hz: service:web\n"
            );
        }
        assert!(test("user:admin", "edge2:22").well().starts_with("allowed by rule 0: "));
        for (subject, what, lacks) in [
            (
                "user:alice",
                "edge2:service:web",
                "no rule for the subject selects the node",
            ),
            (
                "user:alice",
                "edge1:22",
                "no rule for the subject and the node names the target",
            ),
            ("cidr:192.0.2.1", "edge1:service:web", "no rule names the subject"),
            ("node:edge2", "edge1:service:web", "no rule names the subject"),
        ] {
            let line = test(subject, what).failed(5, "denied");
            assert!(line.contains(lacks), "{line}");
        }
        test("user:nobody", "edge1:22").failed(1, "unknown-user");
        for (subject, what) in [
            ("alice", "edge1:22"),
            ("cidr:10.0.0.0/8", "edge1:22"),
            ("node:hz-*", "edge1:22"),
            ("user:alice", "edge1"),
        ] {
            test(subject, what).failed(2, "bad-request");
        }
        let decision = operator
            .run(&["policy", "test", "group:ops", "edge1:service:web", "-o", "json"])
            .json();
        assert_eq!(
            (&decision["allowed"], &decision["rule"]["index"]),
            (&true.into(), &1.into())
        );
    };
    ask_all();
    let gateway = operator.serve();
    ask_all();
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn reload_applies_what_it_can_and_says_what_waits_for_a_restart() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    operator.run(&["reload"]).failed(1, "gateway-not-running");
    let gateway = operator.serve();
    let test = || operator.run(&["policy", "test", "group:ops", "edge1:22"]);
    test().failed(5, "denied");
    let good = fs::read_to_string(operator.config()).unwrap();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"group:ops\"]\nnodes = \"*\"\ntargets = [\"tcp:22\"]\n",
    );
    test().failed(5, "denied");
    let reloaded = operator.run(&["reload", "-o", "json"]).json();
    assert_eq!(reloaded["applied"], serde_json::json!(["rule"]));
    assert_eq!(reloaded["needs_restart"], serde_json::json!([]));
    test().well();

    // The file is refused whole, and the rules stay.
    fs::write(operator.config(), good.replace("[[rule]]", "[[rules]]")).unwrap();
    let line = operator.run(&["reload"]).failed(1, "config-unknown-key");
    assert!(line.contains("did you mean \"rule\"?"), "{line}");
    fs::write(
        operator.config(),
        good.replace("zone = \"tunnel\"", "zone = \"t\"\nlog.level = \"debug\""),
    )
    .unwrap();
    let table = operator.run(&["reload"]).well();
    assert!(
        table.contains("needs a restart") && table.contains("log.level"),
        "{table}"
    );
    test().failed(5, "denied");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn services_forwards_and_ways_in_are_taken_anew_without_a_restart() {
    let operator = Operator::with_cluster();
    let gateway = operator.serve();
    let good = fs::read_to_string(operator.config()).unwrap();
    let reload = |more: &str| {
        let rule = "[[rule]]\nsubjects = [\"cidr:127.0.0.0/8\"]\nnodes = \"cloud\"\ntargets = [\"service:*\"]\n";
        fs::write(operator.config(), format!("{good}\n{rule}{more}")).unwrap();
        operator.run(&["reload", "-o", "json"])
    };
    let ports = || operator.run(&["status", "-o", "json"]).json()["listen"].clone();
    let [one, two] = [b'1', b'2'].map(greeter);
    let service = |name: &str, target| format!("[[service]]\nname = \"{name}\"\ntarget = \"{target}\"\n");
    let forward =
        |name: &str| format!("[[forward]]\nlisten = \"127.0.0.1:0\"\nnode = \"cloud\"\ntarget = \"service:{name}\"\n");
    let both = service("one", one) + &service("two", two);

    let done = reload(&(both.clone() + &forward("one"))).json();
    assert_eq!(done["applied"], serde_json::json!(["forward", "rule", "service"]));
    assert_eq!(done["needs_restart"], serde_json::json!([]));
    let at: SocketAddr = ports()["forwards"][0]["listen"].as_str().unwrap().parse().unwrap();
    let (mut first, greeting) = greeted(at);
    assert_eq!(greeting, b'1');

    // It leads elsewhere, at the same port; what runs goes on.
    assert_eq!(
        reload(&(both.clone() + &forward("two"))).json()["applied"],
        serde_json::json!(["forward"])
    );
    assert_eq!(ports()["forwards"][0]["listen"], at.to_string());
    let (mut second, greeting) = greeted(at);
    assert_eq!(greeting, b'2');
    echoes(&mut first);

    // A service that is gone takes its streams with it.
    reload(&(service("two", two) + &forward("two"))).json();
    let end = first.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    echoes(&mut second);

    // A port that cannot be had: nothing of the file is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let unusable = forward("one").replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    let refused = reload(&(both.clone() + &unusable));
    assert!(
        refused.code == 1 && refused.stderr.contains("\"code\":\"listen\""),
        "{refused:?}"
    );
    assert_eq!(greeted(at).1, b'2');

    // The forward goes, what came by it stays; other ways in are served.
    let http = "[listen]\nhttp = \"127.0.0.1:0\"\nsni = \"127.0.0.1:0\"\n";
    let with_ways = good.replace("[listen]\n", http);
    let rule = "\n[[rule]]\nsubjects = [\"cidr:127.0.0.0/8\"]\nnodes = \"cloud\"\ntargets = [\"service:*\"]\n";
    fs::write(operator.config(), with_ways + rule + &both).unwrap();
    let done = operator.run(&["reload", "-o", "json"]).json();
    assert_eq!(
        done["applied"],
        serde_json::json!(["listen.http", "listen.sni", "service", "forward"])
    );
    echoes(&mut second);
    until_closed(at);
    let listen = ports();
    assert_eq!(listen["forwards"], serde_json::json!([]));
    assert_eq!(listen["sni"].as_array().unwrap().len(), 1);
    let http: SocketAddr = listen["http"][0].as_str().unwrap().parse().unwrap();
    let mut client = TcpStream::connect(http).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: one.cloud\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 1, "an answer");
    // What runs would hold the end up.
    drop((second, client));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_udp_forward_leads_elsewhere_at_the_same_port_after_a_reload_and_is_closed_by_another() {
    let operator = Operator::with_cluster();
    let gateway = operator.serve();
    let good = fs::read_to_string(operator.config()).unwrap();
    let servers = [b'1', b'2'].map(|name| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((_, client)) = server.recv_from(&mut [0; 16]) {
                server.send_to(&[name], client).unwrap();
            }
        });
        address
    });
    let reload = |forward: &str| {
        let mut text = good.clone();
        text += "\n[[rule]]\nsubjects = [\"cidr:127.0.0.0/8\"]\nnodes = \"cloud\"\ntargets = [\"service:*\"]\n";
        for (name, address) in ["one", "two"].iter().zip(servers) {
            text += &format!("[[service]]\nname = \"{name}\"\ntarget = \"{address}\"\nprotocol = \"udp\"\n");
        }
        fs::write(operator.config(), text + forward).unwrap();
        operator.run(&["reload", "-o", "json"]).json()
    };
    let forward = |name: &str| {
        format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\nnode = \"cloud\"\ntarget = \"service:{name}\"\nprotocol = \"udp\"\n"
        )
    };
    reload(&forward("one"));
    let listen = operator.run(&["status", "-o", "json"]).json()["listen"].clone();
    let at: SocketAddr = listen["forwards"][0]["listen"].as_str().unwrap().parse().unwrap();
    assert_eq!(asked(at), b'1');
    reload(&forward("two"));
    assert_eq!(asked(at), b'2');
    reload("");
    // Nobody has the port any more, as soon as the last of its tasks has ended.
    let free = (0..1_000_000).any(|_| {
        thread::yield_now();
        UdpSocket::bind(at).is_ok()
    });
    assert!(free, "{at} is still taken");
    assert_eq!(gateway.stop(), Some(0));
}

/// T4
#[test]
fn an_address_needs_no_credential_where_a_rule_names_it_and_gets_what_the_rule_names() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    let gateway = operator.serve();
    let proxy = operator.run(&["status", "-o", "json"]).json()["listen"]["proxy"].clone();
    let connect = |target: &str| {
        let mut socket = TcpStream::connect(proxy.as_str().unwrap()).unwrap();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(connect("edge1:22"), "407");
    let good = fs::read_to_string(operator.config()).unwrap();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"cidr:127.0.0.0/8\"]\nnodes = \"edge1\"\ntargets = [\"tcp:22\"]\n",
    );
    operator.run(&["reload"]).well();
    assert_eq!(connect("edge1:22"), "503", "it may, and the node is offline");
    for beside in ["edge1:23", "ssh.edge1:22", "edge2:22", "127.0.0.1.via.edge1:22"] {
        assert_eq!(connect(beside), "403", "{beside}");
    }
    fs::write(operator.config(), good).unwrap();
    operator.run(&["reload"]).well();
    assert_eq!(connect("edge1:22"), "407");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_gateway_without_a_rule_says_that_nobody_reaches_anything() {
    let operator = Operator::with_cluster();
    let text = fs::read_to_string(operator.config()).unwrap();
    fs::write(operator.config(), text.split("[[rule]]").next().unwrap()).unwrap();
    let gateway = operator.serve();
    operator
        .run(&["policy", "test", "group:admins", "a:1"])
        .failed(5, "denied");
    assert_eq!(gateway.stop(), Some(0));
    let log = fs::read_to_string(operator.dir().join("gateway.log")).unwrap();
    assert!(log.contains("nobody reaches anything"), "{log}");
}

#[test]
fn streams_are_asked_of_a_running_gateway_only() {
    let operator = Operator::with_cluster();
    operator.run(&["streams", "ls"]).failed(1, "gateway-not-running");
    operator
        .run(&["explain", "a:1", "--as", "user:admin"])
        .failed(1, "gateway-not-running");
    let gateway = operator.serve();
    assert_eq!(
        operator.run(&["streams", "ls", "-o", "json"]).json()["streams"],
        serde_json::json!([])
    );
    assert_eq!(
        operator.run(&["streams", "kill", "--node", "a", "-o", "json"]).json()["streams"],
        0
    );
    operator.run(&["streams", "kill", "7"]).failed(1, "unknown-stream");
    assert_eq!(operator.run(&["streams", "kill"]).code, 2);
    assert_eq!(operator.run(&["top", "-o", "json"]).json()["streams"], 0);
    let explained = operator.run(&["explain", "nowhere:22", "--as", "user:admin"]);
    assert_eq!(explained.code, 3);
    assert!(
        explained
            .stderr
            .starts_with("error[unknown-node]: hop \"name\" says no"),
        "{explained:?}"
    );
    assert_eq!(gateway.stop(), Some(0));
}

/// Sends each connection its name, and then back what it hears.
fn greeter(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            thread::spawn(move || {
                let mut byte = [name];
                while connection.write_all(&byte).is_ok() && connection.read_exact(&mut byte).is_ok() {}
            });
        }
    });
    address
}

fn greeted(at: SocketAddr) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut name = [0];
    stream.read_exact(&mut name).unwrap();
    (stream, name[0])
}

fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

/// Who answers at a UDP port, asked until somebody does.
fn asked(at: SocketAddr) -> u8 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect(at).unwrap();
    let mut name = [0];
    let answered = (0..40).any(|_| socket.send(b"?").is_ok() && socket.recv(&mut name).is_ok());
    assert!(answered, "nobody answers");
    name[0]
}

/// Waits until a port takes no connections: its task ends a moment after the command.
fn until_closed(at: SocketAddr) {
    let closed = (0..1_000).any(|_| {
        thread::yield_now();
        TcpStream::connect(at).is_err()
    });
    assert!(closed, "{at} still takes connections");
}

fn add_rules(operator: &Operator, rules: &str) {
    let text = fs::read_to_string(operator.config()).unwrap();
    fs::write(operator.config(), text + "\n" + rules).unwrap();
}
