//! What administrators do is recorded here, once for all requests: who, what, and how it ended.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{MatchedPath, RawPathParams, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use tunnel_daemon::admin::Peer;

use super::{
    AppState,
    error::{ApiError, bad_request, refused},
};
use crate::audit::{
    Audit,
    record::{Act, Event},
};

/// The longest request body that is read; as long as what the handlers themselves take.
const REQUEST: usize = 2 * 1024 * 1024;
/// The longest answer to a request that changes something.
const ANSWER: usize = 16 * 1024 * 1024;
/// How much of a request is recorded beside who, what and the result, in bytes.
const DETAIL: usize = 4 * 1024;

/// What asks something, although it is no GET.
const QUESTIONS: [&str; 3] = ["explain", "ping", "test"];

/// The members of requests that are recorded. What is not here may be a secret.
const SAID: [&str; 17] = [
    "destination",
    "groups",
    "id",
    "labels",
    "listen",
    "name",
    "node",
    "path",
    "principal",
    "protocol",
    "reason",
    "remove",
    "set",
    "subnet",
    "target",
    "ttl_seconds",
    "uses",
];

/// The members of answers that are recorded.
const ANSWERED: [&str; 3] = ["applied", "needs_restart", "streams"];

/// Records a request that changes something, before its answer leaves.
pub(super) async fn record(
    State(app): State<AppState>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let audit = Arc::clone(&app.state.audit);
    let act = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| act_of(request.method(), path.as_str()));
    let Some(act) = act else {
        return next.run(request).await;
    };
    // What gives somebody a right has to be on record; what takes one away must always be possible.
    if is_grant(&act)
        && let Err(refusal) = audit.available()
    {
        return ApiError::from(refused(&refusal)).into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST).await else {
        return bad_request("the request is too long, or was cut off").into_response();
    };
    let peer = parts.extensions.get::<Peer>();
    let mut pending = Pending {
        audit,
        act: Some(Act {
            act,
            object: params.iter().next().map(|(_, value)| value.to_owned()),
            uid: peer.map(|peer| peer.uid).or_else(own_uid),
            pid: peer.and_then(|peer| peer.pid),
            result: "abandoned".to_owned(),
            detail: said(&body),
        }),
    };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    if body.size_hint().exact().is_none() {
        // It goes on for as long as what was asked for does, such as a forward: that it began is all there is to record.
        pending.answered(parts.status, &Bytes::new()).await;
        return Response::from_parts(parts, body);
    }
    let Ok(body) = to_bytes(body, ANSWER).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    pending.answered(parts.status, &body).await;
    Response::from_parts(parts, Body::from(body))
}

/// An act that is not recorded yet. If its request is given up in the middle, that is recorded: it may have been done.
struct Pending {
    audit: Arc<Audit>,
    act: Option<Act>,
}

impl Pending {
    async fn answered(&mut self, status: StatusCode, body: &Bytes) {
        let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let Some(mut act) = self.act.take() else { return };
        act.result = if status.is_success() {
            "ok".to_owned()
        } else {
            answer["error"]["code"].as_str().unwrap_or("internal").to_owned()
        };
        for key in ANSWERED {
            if let Some(value) = answer.get(key) {
                act.detail.insert(key.to_owned(), value.clone());
            }
        }
        // What was made got its id only now; what was asked for by name has one in the request.
        let named = |key| match act.detail.get(key).or_else(|| answer.get(key))? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let object = ["id", "name", "node", "principal"].into_iter().find_map(named);
        act.object = act.object.take().or(object);
        self.audit.note_durably(Event::Admin(act)).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(act) = self.act.take() {
            self.audit.note(Event::Admin(act));
        }
    }
}

/// What a request does, such as `token-create`; nothing where it only asks. The name comes from method and path, so that
/// a new request has one too.
fn act_of(method: &Method, pattern: &str) -> Option<String> {
    if *method == Method::GET {
        return None;
    }
    let words: Vec<&str> = pattern
        .split('/')
        .skip(2)
        .filter(|word| !word.is_empty() && !word.starts_with('{'))
        .collect();
    let (first, last) = (*words.first()?, *words.last()?);
    if QUESTIONS.contains(&last) {
        return None;
    }
    let Some(thing) = first.strip_suffix('s') else {
        return Some(words.join("-"));
    };
    let verb = match method.as_str() {
        _ if words.len() > 1 => words.get(1..)?.join("-"),
        "POST" => "create".to_owned(),
        "DELETE" if thing == "token" => "revoke".to_owned(),
        "DELETE" => "remove".to_owned(),
        other => other.to_lowercase(),
    };
    Some(format!("{thing}-{verb}"))
}

fn is_grant(act: &str) -> bool {
    ["-approve", "-certificates", "-create"]
        .iter()
        .any(|verb| act.ends_with(verb))
}

/// What a request says that is no secret.
fn said(body: &[u8]) -> Map<String, Value> {
    let Ok(Value::Object(mut said)) = serde_json::from_slice(body) else {
        return Map::new();
    };
    said.retain(|key, value| SAID.contains(&key.as_str()) && !value.is_null());
    if serde_json::to_vec(&said).map_or(true, |text| text.len() > DETAIL) {
        said = Map::from_iter([("omitted_bytes".to_owned(), body.len().into())]);
    }
    said
}

/// The user of this process: whoever runs a command while no gateway does.
fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|process| process.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_called_by_what_it_does_and_a_question_is_none() {
        for (method, path, expected) in [
            (Method::POST, "/v1/tokens", Some("token-create")),
            (Method::DELETE, "/v1/tokens/{id}", Some("token-revoke")),
            (Method::POST, "/v1/users", Some("user-create")),
            (Method::DELETE, "/v1/users/{name}", Some("user-remove")),
            (Method::PATCH, "/v1/nodes/{name}/labels", Some("node-labels")),
            (Method::POST, "/v1/nodes/{name}/revoke", Some("node-revoke")),
            (Method::DELETE, "/v1/nodes/{name}", Some("node-remove")),
            (Method::POST, "/v1/routes/approve", Some("route-approve")),
            (Method::DELETE, "/v1/streams/{id}", Some("stream-remove")),
            (Method::POST, "/v1/reload", Some("reload")),
            (Method::POST, "/v1/backup", Some("backup")),
            (Method::POST, "/v1/nodes/{name}/ping", None),
            (Method::POST, "/v1/explain", None),
            (Method::GET, "/v1/nodes", None),
        ] {
            assert_eq!(act_of(&method, path).as_deref(), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_recorded_and_neither_is_a_book() {
        let body = br#"{"name":"alice","secret":"tu_x","password":"p","groups":["ops"],"node":null}"#;
        assert_eq!(
            Value::from(said(body)),
            serde_json::json!({"name": "alice", "groups": ["ops"]})
        );
        let long = serde_json::json!({"name": "x".repeat(5000)}).to_string();
        assert_eq!(
            Value::from(said(long.as_bytes())),
            serde_json::json!({"omitted_bytes": long.len()})
        );
        assert!(said(b"no json").is_empty());
    }
}
