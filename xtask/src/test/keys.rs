//! The keys of a configuration, by its JSON schema, against the table of its reference page.

use serde_json::Value;

/// Finds keys of the schema that have no row `` | `key` | `` in the page. The error names them.
pub(super) fn without_row(schema: &str, page: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| format!("the schema is not JSON: {error}"))?;
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    if keys.is_empty() {
        return Err("the schema has no keys".to_owned());
    }
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    let missing: Vec<String> = keys
        .iter()
        .filter(|key| !rows.contains(&key.as_str()))
        .cloned()
        .collect();
    let made_up: Vec<&str> = rows
        .iter()
        .filter(|row| !keys.iter().any(|key| key == *row))
        .copied()
        .collect();
    if missing.is_empty() && made_up.is_empty() {
        return Ok(());
    }
    Err(format!(
        "keys without a row: {missing:?}; rows without a key: {made_up:?}"
    ))
}

/// Adds the keys below a schema: tables by their members, lists of tables by themselves and by their members, what may be
/// one of several by the members of each.
fn collect(root: &Value, schema: &Value, prefix: &str, keys: &mut Vec<String>) {
    let schema = follow(root, schema);
    for kind in ["anyOf", "oneOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            collect(root, one, prefix, keys);
            collect(root, &follow(root, one)["items"], prefix, keys);
        }
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let member = follow(root, member);
        collect(root, member, &key, keys);
        if !member["properties"].is_object() {
            collect(root, &member["items"], &key, keys);
            keys.push(key);
        }
    }
}

fn follow<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"]
        .as_str()
        .and_then(|path| root.pointer(path.strip_prefix('#')?));
    target.unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r##"{
        "properties": {
            "state": {"type": "string"},
            "listen": {"$ref": "#/$defs/Listen"},
            "service": {"type": "array", "items": {"$ref": "#/$defs/Service"}}
        },
        "$defs": {
            "Listen": {"properties": {"public": {"type": "string"}}},
            "Service": {"properties": {"name": {"type": "string"}}}
        }
    }"##;

    #[test]
    fn a_key_without_row_and_a_row_without_key_are_found() {
        let page =
            "| key |\n|---|\n| `state` | x |\n| `listen.public` | x |\n| `service` | x |\n| `service.name` | x |\n";
        assert_eq!(without_row(SCHEMA, page), Ok(()));
        let error = without_row(SCHEMA, &page.replace("listen.public", "listen.pubic")).unwrap_err();
        assert!(
            error.contains("[\"listen.public\"]") && error.contains("[\"listen.pubic\"]"),
            "{error}"
        );
    }

    #[test]
    fn a_table_that_may_also_be_a_list_has_the_keys_of_both() {
        let schema = r##"{
            "properties": {"listen": {"anyOf": [
                {"properties": {"metrics": {"type": "string"}}},
                {"type": "array", "items": {"properties": {"service": {"type": "string"}}}}
            ]}}
        }"##;
        let page = "| `listen` | x |\n| `listen.metrics` | x |\n| `listen.service` | x |\n";
        assert_eq!(without_row(schema, page), Ok(()));
        assert!(without_row(schema, "| `listen` | x |\n| `listen.metrics` | x |\n").is_err());
    }

    #[test]
    fn an_empty_schema_is_no_success() {
        assert!(without_row("{}", "").is_err());
        assert!(without_row("", "").is_err());
    }
}
