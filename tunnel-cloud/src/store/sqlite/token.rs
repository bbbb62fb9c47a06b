//! Join tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tunnel_identity::TokenKey;
use tunnel_model::{NodeName, TokenId};

use super::column::{json, read_json, read_text, read_text_opt, read_time, read_time_opt, time};
use crate::store::Token;

pub(super) fn add(connection: &mut Connection, token: &Token) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let forget_before = time(token.created_at.saturating_sub(Token::KEEP_ENDED));
    tx.execute("DELETE FROM token WHERE expires_at < ?1", [forget_before])?;
    tx.execute(
        "INSERT INTO token (id, key, name, labels, created_at, expires_at, uses_left, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            token.id.to_string(),
            token.key.as_bytes(),
            token.name.as_ref().map(NodeName::as_str),
            json(&token.labels)?,
            time(token.created_at),
            time(token.expires_at),
            token.uses_left,
            token.revoked_at.map(time),
        ],
    )?;
    tx.commit()
}

pub(super) fn get(connection: &Connection, id: TokenId) -> rusqlite::Result<Option<Token>> {
    connection
        .prepare_cached("SELECT * FROM token WHERE id = ?1")?
        .query_row([id.to_string()], read)
        .optional()
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<Token>> {
    connection
        .prepare("SELECT * FROM token ORDER BY created_at, id")?
        .query_map([], read)?
        .collect()
}

pub(super) fn revoke(connection: &Connection, id: TokenId, at: u64) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE token SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
        params![id.to_string(), time(at)],
    )?;
    Ok(changed > 0)
}

/// Takes one use from a token, as part of a transaction that is about to use it.
pub(super) fn spend(connection: &Connection, id: TokenId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE token SET uses_left = uses_left - 1 WHERE id = ?1")?
        .execute([id.to_string()])
        .map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: read_text(row, "id")?,
        key: TokenKey::from_bytes(row.get("key")?),
        name: read_text_opt(row, "name")?,
        labels: read_json(row, "labels")?,
        created_at: read_time(row, "created_at")?,
        expires_at: read_time(row, "expires_at")?,
        uses_left: row.get("uses_left")?,
        revoked_at: read_time_opt(row, "revoked_at")?,
    })
}
