//! A log that can be written, or cannot: what waits then, and how it comes back.

use std::{collections::VecDeque, io};

use tunnel_daemon::readiness::Check;

use super::{
    chain::Head,
    log::{Log, Unsynced},
    metrics::AuditMetrics,
    outputs::Copies,
    record::Event,
};

/// How many records wait for a log that cannot be written; some MiB. More are lost, and counted.
const WAITING: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Keeper {
    log: Log,
    copies: Vec<Copies>,
    metrics: AuditMetrics,
    check: Option<Check>,
    /// Why the log cannot be written, while that is so.
    failure: Option<String>,
    /// What has happened since, with its time.
    waiting: VecDeque<(String, Event)>,
    lost: u64,
}

impl Keeper {
    pub(super) fn new(log: Log, copies: Vec<Copies>, metrics: AuditMetrics) -> Self {
        metrics.writable.set(1);
        Self {
            log,
            copies,
            metrics,
            check: None,
            failure: None,
            waiting: VecDeque::new(),
            lost: 0,
        }
    }

    pub(super) fn attach(&mut self, check: Check) {
        match &self.failure {
            None => check.ready(),
            Some(why) => check.failed(why.clone()),
        }
        self.check = Some(check);
    }

    pub(super) fn head(&self) -> Head {
        self.log.head()
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Writes a record, or says why not. While the log is known to fail, nothing is tried here: [`Self::retry`] does.
    pub(super) fn write(&mut self, time: &str, event: &Event) -> Result<(), String> {
        match &self.failure {
            Some(why) => Err(why.clone()),
            None => self.append(time, event).map_err(|error| self.failed(&error)),
        }
    }

    /// Writes a record, or keeps it.
    pub(super) fn note(&mut self, time: String, event: Event) {
        if self.write(&time, &event).is_ok() {
            return;
        }
        if self.waiting.len() < WAITING {
            self.waiting.push_back((time, event));
        } else {
            self.lose();
        }
    }

    /// Writes a record, or loses it.
    pub(super) fn refusal(&mut self, time: &str, event: &Event) {
        if self.write(time, event).is_err() {
            self.lose();
        }
    }

    /// Tries a log that failed: first what waits, in order, then a record that it can be written again.
    pub(super) fn retry(&mut self, now: &str) {
        if self.failure.is_none() {
            return;
        }
        while let Some((time, event)) = self.waiting.pop_front() {
            if let Err(error) = self.append(&time, &event) {
                self.waiting.push_front((time, event));
                self.failed(&error);
                return;
            }
        }
        if let Err(error) = self.append(now, &Event::Resumed { lost: self.lost }) {
            self.failed(&error);
            return;
        }
        self.failure = None;
        self.metrics.writable.set(1);
        tracing::info!(lost = self.lost, "the audit log can be written again");
        self.lost = 0;
        if let Some(check) = &self.check {
            check.ready();
        }
    }

    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        self.log.take_unsynced()
    }

    pub(super) fn not_synced(&mut self, unsynced: Unsynced, error: &io::Error) {
        self.log.put_back(unsynced);
        self.failed(error);
    }

    fn append(&mut self, time: &str, event: &Event) -> io::Result<()> {
        let line = self.log.append(time, event)?;
        self.metrics.records.inc();
        for copies in &self.copies {
            if copies.send(&line, event.is_refusal()).is_err() {
                self.metrics.copy_lost(copies.output);
            }
        }
        Ok(())
    }

    fn lose(&mut self) {
        self.lost += 1;
        self.metrics.lost.inc();
    }

    fn failed(&mut self, error: &io::Error) -> String {
        // Callers hear it too, and the path is none of their business.
        let why = error.to_string();
        if self.failure.is_none() {
            tracing::error!(
                dir = %self.log.dir().display(),
                reason = why,
                "the audit log cannot be written: dials and joins are refused until it can"
            );
            self.metrics.writable.set(0);
        }
        self.failure = Some(why.clone());
        if let Some(check) = &self.check {
            check.failed(why.clone());
        }
        why
    }
}
