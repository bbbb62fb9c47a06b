//! Losses of nodes' links.

use std::time::Duration;

use rusqlite::{Connection, Row, TransactionBehavior, params};
use tunnel_model::{LinkLoss, LossCause, NodeId};

use super::column::{read_time, time};
use crate::store::KEPT_LOSSES;

/// Takes what is new; a node that is not known has none. The oldest beyond what is kept of a node go.
pub(super) fn add(connection: &mut Connection, node: NodeId, losses: &[LinkLoss]) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let node = node.to_string();
    let known = tx.prepare_cached("SELECT 1 FROM node WHERE id = ?1")?.exists([&node])?;
    if !known {
        return Ok(());
    }
    for loss in losses {
        tx.prepare_cached(
            "INSERT INTO loss (node, begun_millis, number, cause, lasted_millis, sent, received, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (node, begun_millis, number) DO NOTHING",
        )?
        .execute(params![
            node,
            time(loss.begun_millis),
            time(loss.number),
            loss.cause as u32,
            time(u64::try_from(loss.lasted.as_millis()).unwrap_or(u64::MAX)),
            time(loss.sent),
            time(loss.received),
            loss.message,
        ])?;
    }
    tx.prepare_cached(
        "DELETE FROM loss WHERE node = ?1 AND (begun_millis, number) NOT IN (
             SELECT begun_millis, number FROM loss WHERE node = ?1
             ORDER BY begun_millis DESC, number DESC LIMIT ?2
         )",
    )?
    .execute(params![node, KEPT_LOSSES])?;
    tx.commit()
}

pub(super) fn list(connection: &Connection, node: NodeId) -> rusqlite::Result<Vec<LinkLoss>> {
    connection
        .prepare("SELECT * FROM loss WHERE node = ?1 ORDER BY begun_millis, number")?
        .query_map([node.to_string()], read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<LinkLoss> {
    Ok(LinkLoss {
        number: read_time(row, "number")?,
        cause: LossCause::from_wire(row.get("cause")?),
        begun_millis: read_time(row, "begun_millis")?,
        lasted: Duration::from_millis(read_time(row, "lasted_millis")?),
        sent: read_time(row, "sent")?,
        received: read_time(row, "received")?,
        message: row.get("message")?,
    })
}
