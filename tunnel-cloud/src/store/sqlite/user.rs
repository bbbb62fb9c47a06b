//! Users.

use rusqlite::{Connection, Row, params};
use tunnel_model::UserName;

use super::column::{json, read_json, read_text, read_time, time};
use crate::store::User;

pub(super) fn add(connection: &Connection, user: &User) -> rusqlite::Result<bool> {
    let added = connection.execute(
        "INSERT INTO user (name, groups, handle, salt, hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO NOTHING",
        params![
            user.name.as_str(),
            json(&user.groups)?,
            user.handle,
            user.salt,
            user.hash,
            time(user.created_at),
        ],
    )?;
    Ok(added > 0)
}

pub(super) fn remove(connection: &Connection, name: &UserName) -> rusqlite::Result<bool> {
    let removed = connection.execute("DELETE FROM user WHERE name = ?1", [name.as_str()])?;
    Ok(removed > 0)
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<User>> {
    connection
        .prepare("SELECT * FROM user ORDER BY name")?
        .query_map([], read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: read_text(row, "name")?,
        groups: read_json(row, "groups")?,
        handle: row.get("handle")?,
        salt: row.get("salt")?,
        hash: row.get("hash")?,
        created_at: read_time(row, "created_at")?,
    })
}
