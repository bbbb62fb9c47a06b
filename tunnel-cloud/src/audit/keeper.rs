//! A log that can be written, or cannot: what waits then, and how it comes back.

use std::{collections::VecDeque, io, iter};

use tunnel_daemon::readiness::Check;

use super::{
    chain::Head,
    clock::Stamp,
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
    waiting: VecDeque<(Stamp, Event)>,
    /// What goes with the next write; nothing while the log cannot be written.
    soon: Vec<(Stamp, Event)>,
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
            soon: Vec::new(),
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
    pub(super) fn write(&mut self, time: Stamp, event: &Event) -> Result<(), String> {
        match &self.failure {
            Some(why) => Err(why.clone()),
            None => self.append(Some((time, event))).map_err(|error| self.failed(&error)),
        }
    }

    /// Writes a record, or keeps it.
    pub(super) fn note(&mut self, time: Stamp, event: Event) {
        if self.write(time, &event).is_err() {
            self.wait(time, event);
        }
    }

    /// Has a record go with the next that is written, or with [`Self::flush`]; keeps it while the log fails.
    pub(super) fn note_soon(&mut self, time: Stamp, event: Event) {
        if self.failure.is_none() {
            self.soon.push((time, event));
        } else {
            self.wait(time, event);
        }
    }

    /// Writes what waits for the next record.
    pub(super) fn flush(&mut self) {
        if !self.soon.is_empty()
            && let Err(error) = self.append(None)
        {
            self.failed(&error);
        }
    }

    /// Writes a record, or loses it.
    pub(super) fn refusal(&mut self, time: Stamp, event: &Event) {
        if self.write(time, event).is_err() {
            self.lose();
        }
    }

    /// Tries a log that failed: first what waits, in order, then a record that it can be written again.
    pub(super) fn retry(&mut self, now: Stamp) {
        if self.failure.is_none() {
            return;
        }
        while let Some((time, event)) = self.waiting.pop_front() {
            if let Err(error) = self.append(Some((time, &event))) {
                self.waiting.push_front((time, event));
                self.failed(&error);
                return;
            }
        }
        if let Err(error) = self.append(Some((now, &Event::Resumed { lost: self.lost }))) {
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

    /// Writes what waits for the next record, and this one behind it.
    fn append(&mut self, record: Option<(Stamp, &Event)>) -> io::Result<()> {
        let records = || self.soon.iter().map(|(time, event)| (*time, event)).chain(record);
        let lines = self.log.append(records())?;
        if !self.copies.is_empty() {
            for (line, (_, event)) in iter::zip(lines.split(|&byte| byte == b'\n'), records()) {
                for copies in &self.copies {
                    if copies.send(line, event.is_refusal()).is_err() {
                        self.metrics.copy_lost(copies.output);
                    }
                }
            }
        }
        let count = self.soon.len() + usize::from(record.is_some());
        self.metrics.records.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        self.soon.clear();
        Ok(())
    }

    fn wait(&mut self, time: Stamp, event: Event) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back((time, event));
        } else {
            self.lose();
        }
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
        // It has happened, so it waits with all that will.
        for (time, event) in std::mem::take(&mut self.soon) {
            self.wait(time, event);
        }
        self.failure = Some(why.clone());
        if let Some(check) = &self.check {
            check.failed(why.clone());
        }
        why
    }
}
