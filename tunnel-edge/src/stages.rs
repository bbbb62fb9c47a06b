//! Steps that build on each other, each reported with its outcome and its time.

use serde::Serialize;
use tokio::time::Instant;
use tunnel_daemon::error::CliError;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// How long it took.
    pub millis: u128,
    /// What was found, or what failed.
    pub detail: String,
}

/// Hands stages to whoever shows them.
pub(crate) struct Stages<F> {
    say: F,
}

impl<F: FnMut(Stage)> Stages<F> {
    pub(crate) fn new(say: F) -> Self {
        Self { say }
    }

    /// Runs a step and reports it; `detail` says what came of it.
    pub(crate) async fn run<T>(
        &mut self,
        name: &str,
        step: impl Future<Output = Result<T, CliError>>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, CliError> {
        let start = Instant::now();
        let outcome = step.await;
        let shown = match &outcome {
            Ok(found) => Ok(detail(found)),
            Err(error) => Err(error),
        };
        self.report(name, start, shown);
        outcome
    }

    /// Reports a step that was a part of something else.
    pub(crate) fn report(&mut self, name: &str, start: Instant, outcome: Result<String, &CliError>) {
        let ok = outcome.is_ok();
        (self.say)(Stage {
            name: name.to_owned(),
            ok,
            millis: start.elapsed().as_millis(),
            detail: outcome.unwrap_or_else(|error| error.message().to_owned()),
        });
    }
}
