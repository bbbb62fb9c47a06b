//! The tables, and how a file from an older version gets them.

use rusqlite::{Connection, ErrorCode, ffi};

/// Marks a file as a gateway's store ("tunl"), so that no other program's database is taken for one.
const APPLICATION_ID: i32 = 0x7475_6e6c;

/// The newest schema version that this program knows.
pub(super) const NEWEST: u32 = 3;

/// What brings a file from one schema version to the next, in order. A released step is never changed.
const MIGRATIONS: [&str; NEWEST as usize] = [
    "
    CREATE TABLE node (
        id            TEXT PRIMARY KEY,
        name          TEXT NOT NULL UNIQUE,
        labels        TEXT NOT NULL,
        services      TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        enrolled_at   INTEGER NOT NULL,
        online        INTEGER NOT NULL,
        since         INTEGER NOT NULL,
        -- the wire number of why it went offline
        why           INTEGER,
        revoked_at    INTEGER
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE token (
        id         TEXT PRIMARY KEY,
        key        BLOB NOT NULL,
        name       TEXT,
        labels     TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        uses_left  INTEGER NOT NULL CHECK (uses_left >= 0),
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE certificate (
        serial    TEXT PRIMARY KEY,
        node      TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
        issued_at INTEGER NOT NULL,
        not_after INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificate_node ON certificate (node);

    CREATE TABLE user (
        name       TEXT PRIMARY KEY,
        groups     TEXT NOT NULL,
        handle     BLOB NOT NULL UNIQUE,
        salt       BLOB NOT NULL,
        hash       BLOB NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE node ADD COLUMN subnets TEXT NOT NULL DEFAULT '[]';

    CREATE TABLE route (
        node        TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
        subnet      TEXT NOT NULL,
        approved_at INTEGER NOT NULL,
        PRIMARY KEY (node, subnet)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE loss (
        node          TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
        begun_millis  INTEGER NOT NULL,
        number        INTEGER NOT NULL,
        -- the wire number of the cause
        cause         INTEGER NOT NULL,
        lasted_millis INTEGER NOT NULL,
        sent          INTEGER NOT NULL,
        received      INTEGER NOT NULL,
        message       TEXT NOT NULL,
        PRIMARY KEY (node, begun_millis, number)
    ) STRICT, WITHOUT ROWID;
",
];

/// Marks a new, empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE migration (version INTEGER PRIMARY KEY) STRICT")?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)
}

/// Makes sure that a file is a store and sound.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != APPLICATION_ID {
        return Err(corrupt(ffi::SQLITE_NOTADB, "it is not marked as a store"));
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(corrupt(ffi::SQLITE_CORRUPT, &verdict));
    }
    Ok(())
}

/// The file's schema version; 0 is a file without tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT coalesce(max(version), 0) FROM migration", [], |row| row.get(0))
}

/// Takes every step after `from`, each durable by itself.
pub(super) fn migrate(connection: &mut Connection, from: u32) -> rusqlite::Result<()> {
    for (version, step) in (1u32..).zip(MIGRATIONS).filter(|(version, _)| *version > from) {
        let tx = connection.transaction()?;
        tx.execute_batch(step)?;
        tx.execute("INSERT INTO migration (version) VALUES (?1)", [version])?;
        tx.commit()?;
    }
    Ok(())
}

fn corrupt(code: i32, why: &str) -> rusqlite::Error {
    let error = ffi::Error::new(code);
    debug_assert!(matches!(
        error.code,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
    ));
    rusqlite::Error::SqliteFailure(error, Some(why.to_owned()))
}
