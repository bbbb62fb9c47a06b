//! What differs between two configurations, by key.

use serde_json::{Map, Value};

/// The keys whose values differ, such as `limits.nodes`, in order. A list is one value.
pub(super) fn changed(old: &Value, new: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    compare("", Some(old), Some(new), &mut keys);
    keys
}

fn compare(key: &str, old: Option<&Value>, new: Option<&Value>, keys: &mut Vec<String>) {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (old, new) else {
        if old != new {
            keys.push(key.to_owned());
        }
        return;
    };
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    for name in after.keys().chain(gone) {
        let below = match key {
            "" => name.clone(),
            key => format!("{key}.{name}"),
        };
        compare(&below, before.get(name), after.get(name), keys);
    }
}

/// Whether a key is this one or below it.
pub(super) fn is_below(key: &str, of: &str) -> bool {
    key.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Makes the value at a key the one that it is in another configuration, or takes it away where it is in neither.
pub(super) fn copy(key: &str, from: &Value, to: &mut Value) {
    let value = key.split('.').try_fold(from, |value, name| value.get(name)).cloned();
    let (tables, name) = match key.rsplit_once('.') {
        Some((tables, name)) => (tables.split('.').collect(), name),
        None => (Vec::new(), key),
    };
    let mut at = to;
    for table in tables {
        let Value::Object(map) = at else { return };
        at = map.entry(table).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(map) = at {
        match value {
            Some(value) => map.insert(name.to_owned(), value),
            None => map.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_by_its_key() {
        let old = json!({"a": 1, "t": {"b": 1, "c": [1], "d": null}, "gone": {"x": 1}});
        let new = json!({"a": 1, "t": {"b": 2, "c": [2], "d": null, "e": 5}, "new": true});
        assert_eq!(changed(&old, &new), ["new", "t.b", "t.c", "t.e", "gone"]);
        assert!(changed(&old, &old).is_empty());

        let mut copied = old.clone();
        for key in changed(&old, &new) {
            copy(&key, &new, &mut copied);
        }
        assert_eq!(copied, new);
    }

    #[test]
    fn a_key_is_below_its_table_and_below_no_namesake() {
        assert!(is_below("limits.nodes", "limits") && is_below("rule", "rule"));
        assert!(!is_below("limits2.nodes", "limits") && !is_below("limits", "limits.nodes"));
    }
}
