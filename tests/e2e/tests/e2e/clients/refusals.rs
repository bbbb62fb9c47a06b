use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use tunnel_e2e::{Need, Site, require};

use crate::world::{SOON, World, stderr_of, stop};

/// curl's exit status where a SOCKS proxy refuses.
const CURL_SOCKS: i32 = 97;

/// Far below every timeout on the way.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_node_that_is_offline_answers_at_once_since_when_and_why() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, mut edge) = World::with_edge(Site::new()).await?;
    stop(edge.agent()?).await?;
    world.wait_for_state("edge1", "offline", SOON).await?;
    let since = world.node("edge1").await?["since"]
        .as_str()
        .context("since")?
        .to_owned();

    let start = Instant::now();
    let (status, error) = world.refusal("edge1:8080", &[]).await?;
    assert_eq!((status.as_str(), &error["code"]), ("503", &"node-offline".into()));
    let message = error["message"].as_str().context("message")?;
    assert!(
        message.contains("edge1") && message.contains(&since) && message.contains("draining"),
        "{message}"
    );

    let socks = world
        .curl(&["-x", &world.proxy_url("socks5h"), "http://edge1:8080/"])
        .await?;
    assert_eq!(socks.status.code(), Some(CURL_SOCKS), "{socks:?}");
    // RFC 1928 section 6: 4 is host unreachable.
    assert!(stderr_of(&socks).contains("(4)"), "{socks:?}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_caller_hears_who_refuses_and_why() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, _edge) = World::with_edge(Site::new()).await?;
    for (target, status, code) in [
        ("edge9:8080", "404", "unknown-node"),
        ("nothing.edge1:80", "404", "unknown-service"),
        ("edge1:9000", "403", "not-allowed-by-edge"),
        ("edge1:8999", "502", "target-refused"),
    ] {
        let (got, error) = world.refusal(target, &[]).await?;
        assert_eq!(
            (got.as_str(), &error["code"]),
            (status, &code.into()),
            "{target}: {error}"
        );
        // By CONNECT the client must be able to tell it too.
        let (got, _) = world.refusal(target, &["-p"]).await?;
        assert_eq!(got, status, "{target} by CONNECT");
    }
    let (_, error) = world.refusal("edge1:9000", &[]).await?;
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("edge.toml")),
        "{error}"
    );

    let admin = world
        .create_user("guest", None)
        .await
        .map(|guest| std::mem::replace(&mut world.user, guest))?;
    let (status, error) = world.refusal("edge1:22", &[]).await?;
    assert_eq!((status.as_str(), &error["code"]), ("403", &"denied".into()), "{error}");
    let (status, _) = world.refusal("edge9:22", &[]).await?;
    assert_eq!(status, "403", "who has no rights learns no names");

    world.user = admin;
    world.user.secret.replace_range(..1, "~");
    let (status, error) = world.refusal("edge1:22", &[]).await?;
    assert_eq!(
        (status.as_str(), &error["code"]),
        ("407", &"unauthenticated".into()),
        "{error}"
    );
    let socks = world
        .curl(&["-x", &world.proxy_url("socks5h"), "http://edge1:22/"])
        .await?;
    assert_eq!(socks.status.code(), Some(CURL_SOCKS), "{socks:?}");
    Ok(())
}

impl World {
    /// How the proxy refuses a request: the status, and the error in JSON, which by CONNECT no client shows.
    async fn refusal(&self, target: &str, way: &[&str]) -> anyhow::Result<(String, Value)> {
        let (proxy, url) = (self.proxy_url("http"), format!("http://{target}/"));
        let code = if way.is_empty() {
            "\n%{http_code}"
        } else {
            "\n%{http_connect}"
        };
        let args = ["-x", &proxy, "-H", "Accept: application/json", "-w", code, &url];
        let output = self.curl(&[way, &args].concat()).await?;
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').with_context(|| text.clone())?;
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        Ok((status.to_owned(), body["error"].clone()))
    }
}
