//! Programs that people use, as they come.

use std::{env, process::Stdio};

use tokio::process::Command;

use crate::proxy::Proxy;

/// Runs curl, in no other way than its arguments say; `None`, aloud, where there is no curl and none is required.
#[allow(clippy::print_stderr)] // A skipped test says so.
pub(crate) async fn curl(args: &[&str]) -> Option<(i32, String)> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--disable", "--max-time", "20"])
        .args(args)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.code().unwrap(), String::from_utf8(text).unwrap()))
        }
        Err(error) if env::var_os("TUNNEL_REQUIRE_ALL").is_none() => {
            eprintln!("skipped: curl does not run here: {error}");
            None
        }
        Err(error) => panic!("curl does not run here: {error}"),
    }
}

#[tokio::test]
async fn curl_reaches_a_target_in_each_way() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let http = format!("http://{}", proxy.addr);
    let socks = format!("socks5h://{}", proxy.addr);
    for way in [
        &["--proxy", &http, "--proxy-user", "alice:secret"][..],
        &["--proxy", &http, "--proxy-user", "alice:secret", "--proxy-anyauth"],
        &["--proxy", &http, "--proxy-header", "Proxy-Authorization: Bearer token"],
        &["--proxy", &http, "--proxy-user", "alice:secret", "--proxytunnel"],
        &["--proxy", &socks, "--proxy-user", "alice:secret"],
    ] {
        let args = [way, &["http://edge1.edge.test/path"]].concat();
        let Some((code, text)) = curl(&args).await else { return };
        assert!(
            code == 0 && text.contains("GET /path HTTP/1.1"),
            "{args:?}: {code} {text}"
        );
    }
}

#[tokio::test]
async fn curl_posts_a_body_and_reuses_its_connection() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let http = format!("http://alice:secret@{}", proxy.addr);
    let args = [
        "--proxy",
        &http,
        "--data",
        "a=b",
        "http://edge1/1",
        "http://edge1/2",
        "http://edge1/3",
    ];
    let Some((code, text)) = curl(&args).await else { return };
    assert_eq!((code, text.matches("a=b").count()), (0, 3), "{text}");
    assert_eq!(proxy.dials().len(), 1);
}

#[tokio::test]
async fn curl_is_told_why_not() {
    let proxy = Proxy::start().await;
    let http = format!("http://alice:secret@{}", proxy.addr);
    let nobody = format!("http://{}", proxy.addr);
    let socks = format!("socks5h://alice:secret@{}", proxy.addr);
    for (args, code, says) in [
        (&["--proxy", &http, "http://offline/"][..], 0, "error[node-offline]: "),
        (&["--proxy", &nobody, "http://offline/"], 0, "HTTP/1.1 407 "),
        (&["--proxy", &http, "--proxytunnel", "http://offline/"], 56, "503"),
        (&["--proxy", &socks, "http://offline/"], 97, "(4)"),
    ] {
        let Some((got, text)) = curl(args).await else { return };
        assert!(got == code && text.contains(says), "{args:?}: {got} {text}");
    }
}
