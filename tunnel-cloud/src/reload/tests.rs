use std::{
    fs,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tunnel_daemon::error::{CliError, Exit};

use super::*;

#[tokio::test]
async fn a_change_is_applied_by_whoever_answers_for_its_key_and_others_wait_for_a_restart() {
    let world = World::new();
    world.write("zone = \"edge\"\nlimits.nodes = 5\nlog.level = \"debug\"\n");
    let done = world.reloader.reload().await.unwrap();
    assert_eq!(done.applied, ["limits.nodes"]);
    assert_eq!(done.needs_restart, ["log.level", "zone"]);
    assert_eq!(*world.applied.lock().unwrap(), [5]);

    let again = world.reloader.reload().await.unwrap();
    assert_eq!(again.applied, [""; 0]);
    assert_eq!(again.needs_restart, ["log.level", "zone"], "it still does");

    world.write("");
    let back = world.reloader.reload().await.unwrap();
    assert_eq!((back.applied.len(), back.needs_restart.len()), (1, 0));
    assert_eq!(*world.applied.lock().unwrap(), [5, 20_000]);
}

/// R6
#[tokio::test]
async fn a_bad_file_and_one_that_a_part_cannot_take_change_nothing() {
    let world = World::new();
    world.write("limits.nodes = 5\nzoone = \"x\"\n");
    let error = world.reloader.reload().await.unwrap_err();
    assert_eq!((error.code(), error.exit()), ("config-unknown-key", Exit::Failure));
    world.write("limits.nodes = 13\nlimits.streams_per_node = 7\n");
    assert_eq!(world.reloader.reload().await.unwrap_err().code(), "unlucky");
    assert!(world.applied.lock().unwrap().is_empty());
}

struct World {
    dir: TempDir,
    reloader: Reloader,
    applied: Arc<Mutex<Vec<u32>>>,
}

/// Takes note of the number of nodes, unless it is 13.
struct Nodes(Arc<Mutex<Vec<u32>>>);

impl Applier for Nodes {
    fn keys(&self) -> &'static [&'static str] {
        &["limits"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let nodes = new.limits.nodes.get();
        if nodes == 13 {
            return Err(CliError::new(Exit::Failure, "unlucky", "13 nodes"));
        }
        let applied = Arc::clone(&self.0);
        Ok(Box::new(move || applied.lock().unwrap().push(nodes)))
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cloud.toml");
        fs::write(&file, head()).unwrap();
        let applied = Arc::<Mutex<Vec<u32>>>::default();
        let config = Config::load(&file).unwrap();
        Self {
            reloader: Reloader::with(&config, vec![Box::new(Nodes(Arc::clone(&applied)))]).unwrap(),
            dir,
            applied,
        }
    }

    fn write(&self, more: &str) {
        fs::write(self.dir.path().join("cloud.toml"), head() + more).unwrap();
    }
}

fn head() -> String {
    "state = \"s\"\ngateway.advertise = [\"a:1\"]\n".to_owned()
}
