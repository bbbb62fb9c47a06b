use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tunnel_e2e::{Nat, Need, Service, Site, require};

use crate::stream::head;
use crate::world::{SOON, World};

const URL: &str = "http://edge1:8080/";
const BODY: &[u8] = b"hello from the edge\n";

/// The CA of the cluster vouches for the gateway, and a certificate for the user; the secret never crosses the wire.
#[tokio::test]
async fn a_client_certificate_opens_the_proxy_within_tls_until_its_user_is_removed() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let path = |name: &str| world.lab.dir().join(name).display().to_string();
    let (cert, key, root) = (path("ops.crt"), path("ops.key"), path("root.crt"));
    let issue = ["users", "certificate", "ops", "--out-key", &key, "--out-root", &root];
    fs::write(&cert, world.cloud_ok(&issue).await?)?;
    // The gateway's certificate has the name under which edges reach it; the user connects by address.
    let proxy = format!("https://{}", world.proxy());
    let trust = ["--proxy-cacert", &root, "-x", &proxy];
    let shown = ["--proxy-cert", &cert, "--proxy-key", &key];
    for way in [&[][..], &["-p"][..]] {
        let body = world.curl_ok(&[way, &trust, &shown, &[URL]].concat()).await?;
        assert_eq!(body, BODY, "{way:?}");
    }
    let status = ["-o", "/dev/null", "-w", "%{http_code}", URL];
    assert_eq!(world.curl_ok(&[&trust[..], &status].concat()).await?, b"407");
    world.cloud_ok(&["users", "rm", "ops"]).await?;
    assert_eq!(world.curl_ok(&[&trust[..], &shown, &status].concat()).await?, b"407");
    Ok(())
}

#[tokio::test]
async fn a_token_of_an_identity_provider_opens_exactly_what_its_user_may_reach() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    world.offer(&edge, Service::Http, 8081).await?;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let x = URL_SAFE_NO_PAD.encode(key.der_bytes());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]});
    fs::write(world.lab.dir().join("jwks.json"), keys.to_string())?;
    let before = fs::read_to_string(world.config())?;
    let with_issuer = format!(
        "{before}\n[[oidc]]\nissuer = \"https://idp.example\"\naudience = \"tunnel\"\njwks = {:?}\n\
         \n[[rule]]\nsubjects = [\"user:oidc-alice\"]\nnodes = \"edge1\"\ntargets = [\"tcp:8080\"]\n",
        world.lab.dir().join("jwks.json")
    );
    fs::write(world.config(), with_issuer)?;
    let reloaded = world.cloud_json(&["reload"]).await?;
    ensure!(reloaded["applied"] == json!(["oidc", "rule"]), "{reloaded}");

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let token = |sub: &str, exp: u64| -> anyhow::Result<String> {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"1"}"#);
        let claims = json!({"iss": "https://idp.example", "aud": "tunnel", "sub": sub, "exp": exp});
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(signed.as_bytes()).context("the token cannot be signed")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    let proxy = format!("http://{}", world.proxy());
    for (sub, exp, port, expected) in [
        ("alice", now + 600, 8080, "200"),
        ("alice", now + 600, 8081, "403"),
        ("bob", now + 600, 8080, "403"),
        ("alice", now - 600, 8080, "407"),
    ] {
        let field = format!("Proxy-Authorization: Bearer {}", token(sub, exp)?);
        let url = format!("http://edge1:{port}/");
        let args = [
            "-x",
            &proxy,
            "--proxy-header",
            &field,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ];
        let status = String::from_utf8(world.curl_ok(&args).await?)?;
        ensure!(status == expected, "{sub} {port}: {status} instead of {expected}");
    }

    // Without the issuer the token is worth nothing, and what was opened by it is cut.
    let mut stream = BufReader::new(world.client().connect(world.proxy()).await?);
    let request = format!(
        "CONNECT edge1:8080 HTTP/1.1\r\nHost: edge1:8080\r\nProxy-Authorization: Bearer {}\r\n\r\n",
        token("alice", now + 600)?
    );
    stream.write_all(request.as_bytes()).await?;
    let answer = head(&mut stream).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let rule = "\n[[rule]]\nsubjects = [\"user:oidc-alice\"]\nnodes = \"edge1\"\ntargets = [\"tcp:8080\"]\n";
    fs::write(world.config(), before + rule)?;
    let reloaded = world.cloud_json(&["reload"]).await?;
    ensure!(reloaded["applied"] == json!(["oidc"]), "{reloaded}");
    timeout(SOON, stream.read_u8()).await?.unwrap_err();
    let mut stream = BufReader::new(world.client().connect(world.proxy()).await?);
    stream.write_all(request.as_bytes()).await?;
    let answer = head(&mut stream).await?;
    ensure!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
    Ok(())
}
