//! Who may reach what: questions to the rules, and the way of a dial.

use axum::{Json, body::Bytes, extract::State};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_model::{Ask, Destination, Labels, NodeSelector, Policy, Principal, Subject, Verdict};

use super::{
    AppState,
    api::{Decision, Explanation, Hop, HopName, HopVerdict, Question, Reloaded, RuleView},
    error::{Answer, ApiError, bad_request, read},
};

pub(super) async fn test(State(app): State<AppState>, body: Bytes) -> Answer<Decision> {
    let question: Question = read(&body)?;
    let principal = principal(&app, &question.subject)?;
    let (verdict, rule) = match &app.gateway {
        Some(gateway) => {
            let destination = gateway.destination(&question.destination);
            gateway.judge(
                &principal,
                &destination.map_err(|refusal| bad_request(refusal.message))?,
            )
        }
        None => {
            let destination = question
                .destination
                .parse()
                .map_err(|error| bad_request(format!("{error}")))?;
            judge(&app, &principal, &destination)
        }
    };
    Ok(Json(match verdict {
        Verdict::Allowed { rule: index } => Decision {
            allowed: true,
            rule: rule.map(|rule| RuleView {
                index,
                text: rule.to_string(),
            }),
            why: None,
        },
        Verdict::Denied(denial) => Decision {
            allowed: false,
            rule: None,
            why: Some(denial.to_string()),
        },
    }))
}

/// What the rules of the file say, while no gateway runs.
fn judge(app: &AppState, principal: &Principal, destination: &Destination) -> (Verdict, Option<tunnel_model::Rule>) {
    let policy = Policy::compile(app.config.rules.iter().cloned());
    let unknown = Labels::default();
    let verdict = app.state.directory.read(|all| {
        policy.decide(&Ask {
            principal,
            node: &destination.node,
            labels: all.by_name(&destination.node).map_or(&unknown, |node| &node.labels),
            target: &destination.target,
        })
    });
    let rule = match verdict {
        Verdict::Allowed { rule } => policy.rules().get(rule).cloned(),
        Verdict::Denied(_) => None,
    };
    (verdict, rule)
}

pub(super) async fn explain(State(app): State<AppState>, body: Bytes) -> Answer<Explanation> {
    let question: Question = read(&body)?;
    let principal = principal(&app, &question.subject)?;
    let explained = app.gateway()?.explain(principal, &question.destination).await;
    let mut asked = explained.passed.into_iter().map(|(hop, detail)| Hop {
        hop,
        verdict: HopVerdict::Ok,
        code: None,
        detail,
    });
    let mut stopped = explained.stopped.map(|(hop, refusal)| Hop {
        hop,
        verdict: HopVerdict::No,
        code: Some(refusal.reason.as_str().to_owned()),
        detail: refusal.message,
    });
    let hops = HopName::ALL.into_iter().map(|hop| match &stopped {
        Some(no) if no.hop == hop => stopped.take(),
        _ => asked.next(),
    });
    // Nothing was asked once both have run dry.
    let hops = HopName::ALL
        .into_iter()
        .zip(hops.collect::<Vec<_>>())
        .map(|(hop, said)| {
            said.unwrap_or_else(|| Hop {
                hop,
                verdict: HopVerdict::NotAsked,
                code: None,
                detail: String::new(),
            })
        });
    Ok(Json(Explanation { hops: hops.collect() }))
}

pub(super) async fn reload(State(app): State<AppState>) -> Answer<Reloaded> {
    let reloader = app
        .reloader
        .as_ref()
        .ok_or_else(|| ApiError::from(super::not_running()))?;
    Ok(Json(reloader.reload().await?))
}

/// Who is meant by a subject that names one: a user has the groups of the store, a node the labels of the directory.
fn principal(app: &AppState, text: &str) -> Result<Principal, ApiError> {
    let subject: Subject = text.parse().map_err(|error| bad_request(format!("{error}")))?;
    match subject {
        Subject::User(name) => match app.state.users.list().into_iter().find(|user| user.name == name) {
            Some(user) => Ok(Principal::user(user.name, user.groups)),
            None => Err(CliError::new(
                Exit::Failure,
                "unknown-user",
                format!("no user is named {name:?}", name = name.as_str()),
            )
            .with_hint("`tunnel-cloud users ls` lists them; with group:NAME you ask about any member of a group")
            .into()),
        },
        Subject::Group(name) => Ok(Principal::member(name)),
        Subject::Cidr(net) if net.is_address() => Ok(Principal::address(net.address())),
        Subject::Node(NodeSelector::Name(name)) => {
            let labels = app
                .state
                .directory
                .read(|all| all.by_name(&name).map(|node| node.labels.clone()));
            Ok(Principal::node(name, labels.unwrap_or_default()))
        }
        Subject::Cidr(_) | Subject::Node(_) => Err(bad_request(format!(
            "{text:?} stands for several; ask about one: user:NAME, group:NAME, cidr:ADDRESS or node:NAME"
        ))),
    }
}
