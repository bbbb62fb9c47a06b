//! How near the process is to its memory limit, so that it can refuse new work before the kernel ends all of it.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::resident_bytes;

/// The share of the limit from which on memory is short, in percent.
const SHORT_FROM: u64 = 95;
/// Between two looks. Memory that fills faster than this is bounded elsewhere, per connection.
const EVERY: Duration = Duration::from_millis(500);

/// Says whether memory is short; clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct MemoryGuard {
    limit: Option<u64>,
    short: Arc<AtomicBool>,
}

impl MemoryGuard {
    /// Guards this limit in bytes; without one, that of the process's control group; without that, nothing.
    pub fn new(limit: Option<u64>) -> Self {
        let limit = limit.or_else(|| group_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")));
        Self {
            limit,
            short: Arc::default(),
        }
    }

    /// Whether new work must be refused.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Keeps looking. Give it to [`crate::shutdown::Tasks::spawn_aside`].
    pub async fn watch(self) -> Infallible {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.note(resident_bytes().unwrap_or(0), limit);
        }
    }

    fn note(&self, resident: u64, limit: u64) {
        let short = resident.saturating_mul(100) >= limit.saturating_mul(SHORT_FROM);
        if self.short.swap(short, Ordering::Relaxed) != short {
            if short {
                tracing::warn!(resident, limit, "memory is short, new work is refused");
            } else {
                tracing::info!(resident, limit, "memory suffices again");
            }
        }
    }
}

/// The tightest limit of the process's control group and those above it, of either version (cgroups(7)).
fn group_limit(membership: &Path, mounts: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let files = text.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (mount, file) = match controllers {
            "" => (mounts.to_owned(), "memory.max"),
            list if list.split(',').any(|c| c == "memory") => (mounts.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let group = Path::new(group.trim_start_matches('/'));
        group.ancestors().map(|part| mount.join(part).join(file)).collect()
    });
    files.filter_map(|file: PathBuf| read_limit(&file)).min()
}

/// A limit of 2^60 and above is the kernel's way to say that there is none.
fn read_limit(file: &Path) -> Option<u64> {
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R4
    #[test]
    fn memory_is_short_from_95_percent_until_it_is_below_again() {
        let guard = MemoryGuard::new(Some(1000));
        for (resident, short) in [(900, false), (949, false), (950, true), (2000, true), (949, false)] {
            guard.note(resident, 1000);
            assert_eq!(guard.is_short(), short, "{resident}");
        }
    }

    #[test]
    fn the_tightest_limit_of_a_group_and_its_parents_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("two", "0::/a/b\n");
        write("fs/memory.max", "max\n");
        write("fs/a/memory.max", "1000\n");
        write("fs/a/b/memory.max", "2000\n");
        let limit = |name: &str| group_limit(&dir.path().join(name), &dir.path().join("fs"));
        assert_eq!(limit("two"), Some(1000));

        write("one", "3:cpu,cpuacct:/x\n2:memory:/c\n0::/\n");
        write("fs/memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("fs/memory/c/memory.limit_in_bytes", "500\n");
        assert_eq!(limit("one"), Some(500));

        write("none", "0::/\n");
        assert_eq!(limit("none"), None);
    }

    #[tokio::test]
    async fn the_guard_sees_the_memory_of_its_own_process() {
        let guard = MemoryGuard::new(Some(1));
        let watching = tokio::spawn(guard.clone().watch());
        while !guard.is_short() {
            tokio::task::yield_now().await;
        }
        watching.abort();
    }
}
