//! The one place that every request passes: policy, grants, questions to operators, and the audit log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use xy_actors::event::stream::{EventLog, unix_ms};

use super::approvals::{Answer, Waiting};
use super::grants::{GrantError, GrantStore};
use super::rules::{ASK_TIMEOUT, PermissionSettings};
use super::{Caller, Decision, PermissionPolicy, PermissionRequest, Surface, is_answering};
use crate::audit::{AuditLine, AuditLog, Verdict};
use crate::protocol::Method;
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::message::Request;
use crate::protocol::method::{
    Approval, Approvals, ApprovalsParams, ApprovalsResult, Approve, ApproveParams, ApproveResult, Deny,
    DenyParams, DenyResult, Forget, ForgetParams, ForgetResult, Grant, GrantScope, Grants, GrantsParams,
    GrantsResult, MethodKind, Targets,
};
use crate::protocol::scope::{Scope, scope_of_call};
use crate::rpc::Service;

/// The event that tells of a request that waits for an operator.
pub const ASKED: &str = "permission_asked";

/// The event that tells what became of it.
pub const ANSWERED: &str = "permission_answered";

/// The longest name and the longest reason in the audit log, in bytes; longer ones are cut.
const LONGEST_NOTED: usize = 256;

/// Where a gate keeps and tells things.
#[derive(Debug, Default)]
pub struct GateOptions<'a> {
    /// The file of grants that outlive the daemon; without it none does.
    pub grants: Option<&'a Path>,
    /// The audit log, if there is one.
    pub audit: Option<AuditLog>,
    /// Where events are published, if anywhere.
    pub events: Option<EventLog>,
}

/// Permissions and audit of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: RwLock<InForce>,
    waiting: Waiting,
    grants: GrantStore,
    audit: Option<AuditLog>,
    events: Option<EventLog>,
    /// Whose daemon it is.
    owner: String,
    /// Numbers the grants of this daemon.
    granted: AtomicU64,
}

#[derive(Debug)]
struct InForce {
    policy: Arc<dyn PermissionPolicy>,
    /// What `policy` was made of, if it was the configuration.
    settings: PermissionSettings,
    ask_timeout: Duration,
}

/// The members of parameters that say what a request is about; everything else is the method's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Aimed {
    name: Option<String>,
    names: Option<Vec<String>>,
    all: bool,
    dry_run: bool,
    reason: Option<String>,
}

impl Aimed {
    fn targets(&self) -> Option<Targets> {
        match (&self.names, &self.name) {
            (Some(names), _) if !names.is_empty() => Some(Targets::Names(names.clone())),
            (_, Some(name)) => Some(Targets::Names(vec![name.clone()])),
            _ if self.all => Some(Targets::All),
            _ => None,
        }
    }
}

/// A request that was let through. What it comes to is noted when it [leaves](Passage::leave), and that it was abandoned if
/// it never does.
#[derive(Debug)]
pub(crate) struct Passage {
    noted: Option<(AuditLog, AuditLine, Instant)>,
}

impl Passage {
    /// Notes what the request came to.
    pub(crate) fn leave(mut self, outcome: Result<Option<&RawValue>, &RpcError>) {
        let (text, failed) = match outcome {
            Err(error) => (error.kind().as_str(), Vec::new()),
            Ok(result) => {
                let failed = result.map(failed_rows).unwrap_or_default();
                (if failed.is_empty() { "ok" } else { "failed" }, failed)
            }
        };
        self.write(text, failed);
    }

    fn write(&mut self, outcome: &str, failed: Vec<String>) {
        if let Some((audit, line, began)) = self.noted.take() {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let failed = failed.iter().map(|name| brief(name)).collect();
            audit.write(&AuditLine { outcome: outcome.to_owned(), failed, took_ms, ..line });
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.write("abandoned", Vec::new());
    }
}

/// Cuts what no name and no reason needs, so that few requests cannot push the others out of the log.
fn brief(text: &str) -> String {
    if text.len() <= LONGEST_NOTED {
        return text.to_owned();
    }
    let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST_NOTED).last().unwrap_or(0);
    format!("{}...", &text[..cut])
}

fn failed_rows(result: &RawValue) -> Vec<String> {
    #[derive(Deserialize)]
    struct Rows {
        #[serde(default)]
        failed: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        name: String,
    }
    let rows = serde_json::from_str::<Rows>(result.get()).map(|rows| rows.failed).unwrap_or_default();
    rows.into_iter().map(|row| row.name).collect()
}

impl Gate {
    /// Creates a gate with rules from a configuration.
    ///
    /// Blocking.
    pub fn of_settings(settings: PermissionSettings, options: GateOptions<'_>) -> Self {
        let ask_timeout = settings.ask_timeout;
        let in_force = InForce { policy: Arc::new(settings.rules.clone()), settings, ask_timeout };
        Self::of(in_force, options)
    }

    /// Creates a gate with a policy of the program's own. An operator has a minute to answer.
    ///
    /// Blocking.
    pub fn new(policy: impl PermissionPolicy, options: GateOptions<'_>) -> Self {
        Self::with_timeout(policy, ASK_TIMEOUT, options)
    }

    /// Creates a gate with a policy of the program's own, and the time that an operator has to answer.
    ///
    /// Blocking.
    pub fn with_timeout(
        policy: impl PermissionPolicy,
        ask_timeout: Duration,
        options: GateOptions<'_>,
    ) -> Self {
        let settings = PermissionSettings::default();
        Self::of(InForce { policy: Arc::new(policy), settings, ask_timeout }, options)
    }

    fn of(in_force: InForce, options: GateOptions<'_>) -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        Self(Arc::new(Inner {
            rules: RwLock::new(in_force),
            waiting: Waiting::default(),
            grants: GrantStore::open(options.grants),
            audit: options.audit,
            events: options.events,
            owner: user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name),
            granted: AtomicU64::new(0),
        }))
    }

    /// Puts other rules in force. What waits for an answer goes on waiting, and grants go on counting.
    pub fn set_settings(&self, settings: PermissionSettings) {
        let ask_timeout = settings.ask_timeout;
        let in_force = InForce { policy: Arc::new(settings.rules.clone()), settings, ask_timeout };
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = in_force;
    }

    /// Returns the rules in force, as far as they are from a configuration.
    pub fn settings(&self) -> PermissionSettings {
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner).settings.clone()
    }

    /// Forgets what was granted to a session that has ended.
    pub fn end_session(&self, session: &str) {
        self.0.grants.end_session(session);
    }

    /// Waits until the audit log is written.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flush(&self) {
        if let Some(audit) = &self.0.audit {
            audit.flush().await;
        }
    }

    /// Lets a request through, or refuses it; may wait for an operator.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`].
    pub(crate) async fn enter<S: Service>(
        &self,
        service: &S,
        caller: &Caller,
        request: &Request,
    ) -> Result<Passage, RpcError> {
        let action = request.method.as_str();
        // What cannot be read is refused by the method itself.
        let aimed: Aimed = request.params().unwrap_or_default();
        let is_registered_reading = || {
            let registered = service.registry().and_then(|registry| registry.description(action));
            registered.is_some_and(|method| matches!(method.kind, MethodKind::Catalog | MethodKind::Query))
        };
        let only_reads = scope_of_call(action, aimed.dry_run) == Some(Scope::Read);
        let changes = !(only_reads || is_registered_reading());
        let (policy, ask_timeout) = {
            let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&rules.policy), rules.ask_timeout)
        };
        if policy.is_open() && !changes {
            return Ok(Passage { noted: None });
        }
        let began = Instant::now();
        let at_unix_ms = unix_ms();
        let targets = match aimed.targets() {
            Some(targets) if policy.is_open() => named(targets),
            Some(targets) => service.affected(targets).await,
            None => Vec::new(),
        };
        let tool = (caller.surface == Surface::Mcp).then_some(action);
        let decide = |server: Option<&str>| {
            let (client, session) = (caller.client(), caller.session.as_str());
            let asked =
                PermissionRequest { client, session, surface: caller.surface, action, tool, server, changes };
            match policy.decide(&asked) {
                Decision::Ask if is_answering(action) => Decision::Deny,
                decision => decision,
            }
        };
        let decisions: Vec<(Option<&str>, Decision)> = match targets.as_slice() {
            [] => vec![(None, decide(None))],
            targets => targets.iter().map(|target| (Some(target.as_str()), decide(Some(target)))).collect(),
        };
        let strictest = decisions.iter().map(|(_, decision)| *decision).max().unwrap_or(Decision::Allow);
        let line = |decision, by: Option<String>, outcome: &str| AuditLine {
            at_unix_ms,
            client: caller.client().to_owned(),
            surface: caller.surface,
            session: caller.session.clone(),
            action: action.to_owned(),
            tool: tool.map(ToOwned::to_owned),
            targets: targets.iter().map(|target| brief(target)).collect(),
            reason: aimed.reason.as_deref().map(brief),
            decision,
            by,
            outcome: outcome.to_owned(),
            failed: Vec::new(),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let pass = |decision, by, is_noted: bool| {
            let audit = self.0.audit.clone().filter(|_| is_noted);
            Passage { noted: audit.map(|audit| (audit, line(decision, by, ""), began)) }
        };
        let refuse = |decision, by, message: String| {
            if let Some(audit) = &self.0.audit {
                audit.write(&line(decision, by, ErrorKind::PermissionDenied.as_str()));
            }
            Err(RpcError::new(ErrorKind::PermissionDenied, message))
        };
        let of = |wanted: Decision| {
            decisions.iter().filter(move |(_, found)| *found == wanted).map(|(one, _)| *one)
        };
        match strictest {
            Decision::Allow => Ok(pass(Verdict::Allowed, None, changes)),
            Decision::Deny => {
                let what = described(action, of(Decision::Deny));
                let message = format!("{what} is not permitted to `{}`", caller.client());
                refuse(Verdict::Denied, None, message)
            }
            Decision::Ask => {
                let (granted, asked) = self.granted(caller, action, tool, of(Decision::Ask));
                if asked.is_empty() {
                    return Ok(pass(Verdict::Granted, Some(granted.join(", ")), true));
                }
                let what = described(action, asked.iter().map(|one| one.as_deref()));
                let approval = Approval {
                    id: String::new(),
                    client: caller.client().to_owned(),
                    surface: caller.surface.as_str().to_owned(),
                    session: caller.session.clone(),
                    action: action.to_owned(),
                    tool: tool.map(ToOwned::to_owned),
                    targets: asked.into_iter().flatten().collect(),
                    reason: aimed.reason.clone(),
                    asked_at_unix_ms: at_unix_ms,
                    expires_at_unix_ms: at_unix_ms
                        .saturating_add(u64::try_from(ask_timeout.as_millis()).unwrap_or(u64::MAX)),
                };
                match self.ask(approval, ask_timeout).await {
                    Asked::Answered(Answer::Approved { by, .. }) => {
                        Ok(pass(Verdict::Approved, Some(by), true))
                    }
                    Asked::Answered(Answer::Denied { by, reason }) => {
                        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                        refuse(
                            Verdict::Refused,
                            Some(by.clone()),
                            format!("{what} was denied by `{by}`{why}"),
                        )
                    }
                    Asked::TimedOut => {
                        let message = format!(
                            "{what} needs an operator's approval, and none came within {ask_timeout:?}"
                        );
                        refuse(Verdict::TimedOut, None, message)
                    }
                    Asked::TooMany => {
                        let message = format!(
                            "{what} needs an operator's approval, and too many requests wait for one"
                        );
                        refuse(Verdict::TimedOut, None, message)
                    }
                }
            }
        }
    }

    /// Notes a request that its caller's token does not permit.
    pub(crate) fn note_refused(&self, caller: &Caller, request: &Request) {
        let Some(audit) = &self.0.audit else { return };
        let aimed: Aimed = request.params().unwrap_or_default();
        let targets = aimed.targets().map(named).unwrap_or_default();
        let action = request.method.as_str();
        audit.write(&AuditLine {
            at_unix_ms: unix_ms(),
            client: caller.client().to_owned(),
            surface: caller.surface,
            session: caller.session.clone(),
            action: brief(action),
            tool: (caller.surface == Surface::Mcp).then(|| brief(action)),
            targets: targets.iter().map(|target| brief(target)).collect(),
            reason: aimed.reason.as_deref().map(brief),
            decision: Verdict::Denied,
            by: Some(format!("scope {}", caller.scope())),
            outcome: ErrorKind::PermissionDenied.as_str().to_owned(),
            failed: Vec::new(),
            took_ms: 0,
        });
    }

    /// Answers a method that is about permissions; `None` for every other one.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        request: &Request,
    ) -> Option<Result<Box<RawValue>, RpcError>> {
        Some(match request.method.as_str() {
            Approvals::NAME => written::<Approvals>(
                request
                    .params::<ApprovalsParams>()
                    .map(|_| ApprovalsResult { approvals: self.0.waiting.list() }),
            ),
            Grants::NAME => written::<Grants>(
                request.params::<GrantsParams>().map(|_| GrantsResult { grants: self.0.grants.list() }),
            ),
            Approve::NAME => written::<Approve>(match request.params() {
                Ok(params) => self.approve(caller, params).await,
                Err(error) => Err(error),
            }),
            Deny::NAME => written::<Deny>(request.params().and_then(|params| self.deny(caller, params))),
            Forget::NAME => written::<Forget>(match request.params::<ForgetParams>() {
                Ok(params) => {
                    let forgotten = self.0.grants.forget(&params.id).await;
                    forgotten.map(|forgotten| ForgetResult { forgotten }).map_err(not_kept)
                }
                Err(error) => Err(error),
            }),
            _ => return None,
        })
    }

    async fn approve(&self, caller: &Caller, params: ApproveParams) -> Result<ApproveResult, RpcError> {
        let ApproveParams { id, remember: scope } = params;
        let approval = self.waiting(caller, &id)?;
        let targets: Vec<Option<String>> = match approval.targets.as_slice() {
            [] => vec![None],
            targets => targets.iter().cloned().map(Some).collect(),
        };
        let grant = |target| {
            let number = self.0.granted.fetch_add(1, Ordering::Relaxed) + 1;
            let created_at_unix_ms = unix_ms();
            Grant {
                // Unique among those of earlier daemons, too.
                id: format!("{created_at_unix_ms:x}-{number}"),
                scope,
                owner: self.0.owner.clone(),
                client: approval.client.clone(),
                session: (scope == GrantScope::Session).then(|| approval.session.clone()),
                tool: approval.tool.clone(),
                action: approval.action.clone(),
                target,
                created_at_unix_ms,
            }
        };
        let new: Vec<Grant> = match scope {
            GrantScope::Once => Vec::new(),
            GrantScope::Session | GrantScope::Always => targets.into_iter().map(grant).collect(),
        };
        let grants: Vec<String> = new.iter().map(|grant| grant.id.clone()).collect();
        if !new.is_empty() {
            self.0.grants.add(new).await.map_err(not_kept)?;
        }
        let answer = Answer::Approved { by: caller.client().to_owned(), scope };
        if !self.0.waiting.answer(&id, answer) {
            // Whose time was up in the meantime is not to be allowed the next time either.
            for grant in &grants {
                self.0.grants.forget(grant).await.map_err(not_kept)?;
            }
            return Err(waits_no_more(&id));
        }
        Ok(ApproveResult { id, grants })
    }

    fn deny(&self, caller: &Caller, params: DenyParams) -> Result<DenyResult, RpcError> {
        let DenyParams { id, reason } = params;
        self.waiting(caller, &id)?;
        let answer = Answer::Denied { by: caller.client().to_owned(), reason };
        if self.0.waiting.answer(&id, answer) { Ok(DenyResult { id }) } else { Err(waits_no_more(&id)) }
    }

    /// Returns what waits, unless it is the caller's own.
    fn waiting(&self, caller: &Caller, id: &str) -> Result<Approval, RpcError> {
        let approval = self.0.waiting.get(id).ok_or_else(|| waits_no_more(id))?;
        if approval.session == caller.session {
            let message = "a request is not answered by the session that made it";
            return Err(RpcError::new(ErrorKind::PermissionDenied, message));
        }
        Ok(approval)
    }

    /// Splits servers into the grants that are about them and those that no grant is about.
    fn granted<'t>(
        &self,
        caller: &Caller,
        action: &str,
        tool: Option<&str>,
        targets: impl Iterator<Item = Option<&'t str>>,
    ) -> (Vec<String>, Vec<Option<String>>) {
        let (mut granted, mut asked) = (Vec::new(), Vec::new());
        for target in targets {
            let found = self.0.grants.find(|grant| {
                grant.client == caller.client()
                    && grant.action == action
                    && grant.tool.as_deref() == tool
                    && grant.target.as_deref() == target
                    && grant.session.as_ref().is_none_or(|session| *session == caller.session)
            });
            match found {
                Some(id) => granted.push(id),
                None => asked.push(target.map(ToOwned::to_owned)),
            }
        }
        (granted, asked)
    }

    async fn ask(&self, approval: Approval, ask_timeout: Duration) -> Asked {
        let Some(mut place) = self.0.waiting.enter(approval) else { return Asked::TooMany };
        let approval = place.approval.clone();
        let path = approval.targets.first().cloned().unwrap_or_default();
        let mut facts = BTreeMap::from([
            ("id".to_owned(), approval.id.clone()),
            ("client".to_owned(), approval.client),
            ("action".to_owned(), approval.action),
        ]);
        if approval.targets.len() > 1 {
            facts.insert("targets".to_owned(), approval.targets.join(", "));
        }
        facts.extend(approval.reason.map(|reason| ("reason".to_owned(), reason)));
        self.tell(&path, ASKED, facts.clone());
        let asked = match timeout(ask_timeout, &mut place.answer).await {
            Ok(Ok(answer)) => Asked::Answered(answer),
            // The table never drops what waits without an answer.
            Ok(Err(_)) | Err(_) => Asked::TimedOut,
        };
        let (answer, by) = match &asked {
            Asked::Answered(Answer::Approved { by, .. }) => ("approved", Some(by)),
            Asked::Answered(Answer::Denied { by, .. }) => ("denied", Some(by)),
            Asked::TimedOut | Asked::TooMany => ("timed_out", None),
        };
        facts.insert("answer".to_owned(), answer.to_owned());
        facts.extend(by.map(|by| ("by".to_owned(), by.clone())));
        self.tell(&path, ANSWERED, facts);
        asked
    }

    fn tell(&self, path: &str, name: &str, facts: BTreeMap<String, String>) {
        if let Some(events) = &self.0.events {
            events.tell(path, name, facts);
        }
    }
}

/// What became of a question.
#[derive(Debug)]
enum Asked {
    Answered(Answer),
    TimedOut,
    TooMany,
}

fn named(targets: Targets) -> Vec<String> {
    match targets {
        Targets::Names(names) => names,
        Targets::All => vec!["*".to_owned()],
    }
}

/// Says what is asked for: `stop` of `web` and 2 others.
fn described<'t>(action: &str, mut targets: impl Iterator<Item = Option<&'t str>>) -> String {
    match targets.next().flatten() {
        None => format!("`{action}`"),
        Some(first) => match targets.count() {
            0 => format!("`{action}` of `{first}`"),
            more => format!("`{action}` of `{first}` and {more} more"),
        },
    }
}

fn waits_no_more(id: &str) -> RpcError {
    RpcError::invalid_parameter("id", format!("no request `{id}` waits for an answer, or it waits no more"))
}

fn not_kept(error: GrantError) -> RpcError {
    match &error {
        GrantError::NotFound(_) => RpcError::invalid_parameter("id", &error),
        GrantError::TooMany => RpcError::new(ErrorKind::LimitExceeded, error.to_string()),
        GrantError::File(_) | GrantError::Lost(_) => {
            tracing::error!("{}", crate::control::chain(&error));
            RpcError::new(ErrorKind::InternalError, "the grants cannot be kept; the daemon's log says why")
        }
    }
}

fn written<M: Method>(outcome: Result<M::Result, RpcError>) -> Result<Box<RawValue>, RpcError> {
    serde_json::value::to_raw_value(&outcome?).map_err(|error| {
        RpcError::new(
            ErrorKind::InternalError,
            format!("the result of `{}` cannot be written: {error}", M::NAME),
        )
    })
}
