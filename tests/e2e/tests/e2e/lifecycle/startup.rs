use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use tunnel_e2e::{Need, Site, built, require, run};

use crate::world::{SOON, World, init, stderr_of, stop};

/// R6
const EXITS_WITHIN: Duration = Duration::from_secs(1);

/// R6
#[tokio::test]
async fn r6_a_port_that_is_taken_ends_the_gateway_with_its_key_and_a_fix() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([]).await?;
    let elsewhere = world.lab.dir().join("second");
    fs::create_dir(&elsewhere)?;
    let config = init(&world.lab, &elsewhere).await?;
    let said = refuses_to_start(&world, "tunnel-cloud", "serve", &config).await?;
    assert!(
        said.contains("error[listen]: ") && said.contains("listen.public"),
        "{said}"
    );
    assert!(said.contains("stop that one, or change the key"), "{said}");
    Ok(())
}

/// R6
#[tokio::test]
async fn r6_a_bad_configuration_is_refused_with_its_line_and_what_was_meant() -> anyhow::Result<()> {
    require!(Need::Lab);
    let mut world = World::start([Site::new()]).await?;
    let edge = world.join(1).await?;
    stop(&mut world.gateway).await?;
    let cloud = world.config().to_owned();
    for (program, verb, config, good, bad) in [
        ("tunnel-cloud", "serve", &cloud, "proxy =", "proxi ="),
        ("tunnel-edge", "run", &edge.config, "addresses =", "adresses ="),
    ] {
        let text = fs::read_to_string(config)?;
        let line = 1 + text.lines().position(|line| line.starts_with(good)).unwrap();
        fs::write(config, text.replace(good, bad))?;
        let said = refuses_to_start(&world, program, verb, config).await?;
        assert!(
            said.contains(&format!(":{line}:")) && said.contains("did you mean"),
            "{said}"
        );
        fs::write(config, text)?;
    }
    Ok(())
}

/// R6, R7: the key stays as it is, whatever is wrong with it.
#[tokio::test]
async fn r7_a_key_that_others_may_read_or_that_is_none_is_refused_and_kept() -> anyhow::Result<()> {
    require!(Need::Lab);
    let mut world = World::start([Site::new()]).await?;
    let edge = world.join(1).await?;
    stop(&mut world.gateway).await?;
    let cloud = world.config().to_owned();
    for (program, verb, config, key) in [
        ("tunnel-cloud", "serve", &cloud, world.state().join("keys/issuing.key")),
        ("tunnel-edge", "run", &edge.config, edge.state.join("node.key")),
    ] {
        let before = fs::read(&key)?;
        chmod(&key, 0o644)?;
        let said = refuses_to_start(&world, program, verb, config).await?;
        assert!(
            said.contains("error[key-permissions]: ") && said.contains("chmod 600"),
            "{said}"
        );
        assert_eq!(fs::read(&key)?, before);

        chmod(&key, 0o600)?;
        let torn = &before[..before.len() / 2];
        fs::write(&key, torn)?;
        let said = refuses_to_start(&world, program, verb, config).await?;
        assert!(
            said.contains("error[key-") && said.contains(&key.display().to_string()),
            "{said}"
        );
        assert_eq!(fs::read(&key)?, torn);

        // Nothing that root could not read either, unless it is no file.
        fs::remove_file(&key)?;
        fs::create_dir(&key)?;
        let said = refuses_to_start(&world, program, verb, config).await?;
        assert!(said.contains(&key.display().to_string()), "{said}");
    }
    Ok(())
}

/// Runs a program that cannot start, and returns the one line that it says about it. The shortest of three runs counts,
/// as other tests keep this machine busy.
async fn refuses_to_start(world: &World, program: &str, verb: &str, config: &Path) -> anyhow::Result<String> {
    let mut shortest = Duration::MAX;
    let mut said = String::new();
    for _ in 0..3 {
        let mut command = world.gw().command(built(program)?);
        command.arg(verb).arg("--config").arg(config);
        let start = Instant::now();
        let output: Output = run(command, SOON).await?;
        shortest = shortest.min(start.elapsed());
        said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error[")).collect();
        assert_eq!(errors.len(), 1, "{said}");
    }
    assert!(shortest < EXITS_WITHIN, "{shortest:?}: {said}");
    Ok(said)
}

fn chmod(path: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
