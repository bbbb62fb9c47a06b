//! Nodes and their certificates.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use tunnel_model::{Labels, NodeId, NodeRecord, NodeState, Reason};

use super::{
    column::{json, read_json, read_text, read_time, read_time_opt, time},
    token,
};
use crate::store::{Certificate, EnrolError, Enrolment, Node, Presence, RenewError, TokenFault};

/// For how long an expired certificate is kept, in seconds: a node may renew with one for 90 days.
const KEEP_EXPIRED: u64 = 90 * 24 * 3600;

/// The outer result is SQLite's, the inner one the rules'. Either error leaves everything as it was.
pub(super) fn enrol(connection: &mut Connection, enrolment: &Enrolment) -> rusqlite::Result<Result<Node, EnrolError>> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let labels = match admit(&tx, enrolment)? {
        Ok(labels) => labels,
        Err(refused) => return Ok(Err(refused)),
    };
    let node = Node {
        record: NodeRecord {
            id: enrolment.id,
            name: enrolment.name.clone(),
            labels,
            services: enrolment.services.clone(),
            subnets: Vec::new(),
            agent_version: enrolment.agent_version.clone(),
            state: NodeState::Offline {
                since: enrolment.now,
                why: None,
            },
        },
        enrolled_at: enrolment.now,
        revoked_at: None,
    };
    token::spend(&tx, enrolment.token)?;
    insert(&tx, &node)?;
    insert_certificate(
        &tx,
        &Certificate {
            serial: enrolment.serial.clone(),
            node: enrolment.id,
            issued_at: enrolment.now,
            not_after: enrolment.not_after,
        },
    )?;
    tx.commit()?;
    Ok(Ok(node))
}

/// Whether this node may join with this token, and the labels it gets.
fn admit(connection: &Connection, enrolment: &Enrolment) -> rusqlite::Result<Result<Labels, EnrolError>> {
    let Some(token) = token::get(connection, enrolment.token)? else {
        return Ok(Err(TokenFault::Unknown.into()));
    };
    if let Err(fault) = token.check(enrolment.now) {
        return Ok(Err(fault.into()));
    }
    if let Some(wanted) = token.name
        && wanted != enrolment.name
    {
        return Ok(Err(EnrolError::WrongName { wanted }));
    }
    let taken = connection
        .prepare_cached("SELECT 1 FROM node WHERE name = ?1")?
        .exists([enrolment.name.as_str()])?;
    if taken {
        return Ok(Err(EnrolError::NameTaken {
            name: enrolment.name.clone(),
        }));
    }
    Ok(Ok(token.labels))
}

fn insert(connection: &Connection, node: &Node) -> rusqlite::Result<()> {
    let (online, since, why) = state_columns(&node.record.state);
    connection
        .prepare_cached(
            "INSERT INTO node (id, name, labels, services, agent_version, enrolled_at, online, since, why, revoked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            node.record.id.to_string(),
            node.record.name.as_str(),
            json(&node.record.labels)?,
            json(&node.record.services)?,
            node.record.agent_version,
            time(node.enrolled_at),
            online,
            since,
            why,
            node.revoked_at.map(time),
        ])
        .map(drop)
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<Node>> {
    connection
        .prepare("SELECT * FROM node ORDER BY name")?
        .query_map([], read)?
        .collect()
}

pub(super) fn set_labels(connection: &Connection, id: NodeId, labels: &Labels) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE node SET labels = ?2 WHERE id = ?1",
        params![id.to_string(), json(labels)?],
    )?;
    Ok(changed > 0)
}

pub(super) fn set_presence(connection: &mut Connection, batch: &[Presence]) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    for presence in batch {
        let (online, since, why) = state_columns(&presence.state);
        tx.prepare_cached(
            "UPDATE node SET online = ?2, since = ?3, why = ?4, services = ?5, agent_version = ?6, subnets = ?7
             WHERE id = ?1",
        )?
        .execute(params![
            presence.id.to_string(),
            online,
            since,
            why,
            json(&presence.services)?,
            presence.agent_version,
            json(&presence.subnets)?,
        ])?;
    }
    tx.commit()
}

pub(super) fn revoke(connection: &Connection, id: NodeId, at: u64) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE node SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
        params![id.to_string(), time(at)],
    )?;
    Ok(changed > 0)
}

pub(super) fn remove(connection: &Connection, id: NodeId) -> rusqlite::Result<bool> {
    let removed = connection.execute("DELETE FROM node WHERE id = ?1", [id.to_string()])?;
    Ok(removed > 0)
}

/// Results as in [`enrol`].
pub(super) fn renew(
    connection: &mut Connection,
    certificate: &Certificate,
) -> rusqlite::Result<Result<(), RenewError>> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let node = certificate.node.to_string();
    let revoked_at: Option<Option<i64>> = tx
        .prepare_cached("SELECT revoked_at FROM node WHERE id = ?1")?
        .query_row([&node], |row| row.get(0))
        .optional()?;
    match revoked_at {
        None => return Ok(Err(RenewError::UnknownNode)),
        Some(Some(_)) => return Ok(Err(RenewError::Revoked)),
        Some(None) => {}
    }
    let useless_before = time(certificate.issued_at.saturating_sub(KEEP_EXPIRED));
    tx.prepare_cached("DELETE FROM certificate WHERE node = ?1 AND not_after < ?2")?
        .execute(params![node, useless_before])?;
    insert_certificate(&tx, certificate)?;
    tx.commit()?;
    Ok(Ok(()))
}

fn insert_certificate(connection: &Connection, certificate: &Certificate) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO certificate (serial, node, issued_at, not_after) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            certificate.serial,
            certificate.node.to_string(),
            time(certificate.issued_at),
            time(certificate.not_after),
        ])
        .map(drop)
}

pub(super) fn certificates(connection: &Connection, node: NodeId) -> rusqlite::Result<Vec<Certificate>> {
    connection
        .prepare("SELECT * FROM certificate WHERE node = ?1 ORDER BY issued_at DESC, serial")?
        .query_map([node.to_string()], |row| {
            Ok(Certificate {
                serial: row.get("serial")?,
                node: read_text(row, "node")?,
                issued_at: read_time(row, "issued_at")?,
                not_after: read_time(row, "not_after")?,
            })
        })?
        .collect()
}

fn state_columns(state: &NodeState) -> (bool, i64, Option<u32>) {
    match *state {
        NodeState::Online { since } => (true, time(since), None),
        NodeState::Offline { since, why } => (false, time(since), why.map(|reason| reason as u32)),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Node> {
    let since = read_time(row, "since")?;
    let why: Option<u32> = row.get("why")?;
    let state = if row.get("online")? {
        NodeState::Online { since }
    } else {
        NodeState::Offline {
            since,
            why: why.map(Reason::from_wire),
        }
    };
    Ok(Node {
        record: NodeRecord {
            id: read_text(row, "id")?,
            name: read_text(row, "name")?,
            labels: read_json(row, "labels")?,
            services: read_json(row, "services")?,
            subnets: read_json(row, "subnets")?,
            agent_version: row.get("agent_version")?,
            state,
        },
        enrolled_at: read_time(row, "enrolled_at")?,
        revoked_at: read_time_opt(row, "revoked_at")?,
    })
}
