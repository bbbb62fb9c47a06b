//! Approved routes.

use rusqlite::{Connection, Row, TransactionBehavior, params};
use tunnel_model::{NodeId, Subnet};

use super::column::{read_text, read_time, time};
use crate::store::Approval;

pub(super) fn approve(connection: &mut Connection, approval: &Approval) -> rusqlite::Result<bool> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let node = approval.node.to_string();
    let known = tx.prepare_cached("SELECT 1 FROM node WHERE id = ?1")?.exists([&node])?;
    if known {
        tx.execute(
            "INSERT INTO route (node, subnet, approved_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (node, subnet) DO NOTHING",
            params![node, approval.subnet.to_string(), time(approval.approved_at)],
        )?;
    }
    tx.commit()?;
    Ok(known)
}

pub(super) fn revoke(connection: &Connection, node: NodeId, subnet: Subnet) -> rusqlite::Result<bool> {
    let removed = connection.execute(
        "DELETE FROM route WHERE node = ?1 AND subnet = ?2",
        params![node.to_string(), subnet.to_string()],
    )?;
    Ok(removed > 0)
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<Approval>> {
    connection
        .prepare("SELECT * FROM route ORDER BY node, subnet")?
        .query_map([], read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        node: read_text(row, "node")?,
        subnet: read_text(row, "subnet")?,
        approved_at: read_time(row, "approved_at")?,
    })
}
