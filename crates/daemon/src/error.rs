//! Errors as a person or a script meets them: one line or one JSON object, and an exit code.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::output::OutputFormat;

/// What an exit code of either binary means. Scripts depend on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was asked.
    Ok = 0,
    /// It failed, for a reason none of the other codes names.
    Failure = 1,
    /// The command line itself was wrong.
    Usage = 2,
    /// No node of that name is enrolled.
    UnknownNode = 3,
    /// The node is enrolled and not connected.
    NodeOffline = 4,
    /// A credential or a right is missing.
    Denied = 5,
    /// No answer within the time allowed.
    Timeout = 6,
    /// A check ran to its end and found something.
    Findings = 7,
}

impl Exit {
    /// Every code, in numeric order.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::UnknownNode,
        Self::NodeOffline,
        Self::Denied,
        Self::Timeout,
        Self::Findings,
    ];

    /// The number a shell sees.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The meaning of a number, where it has one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.number() == number)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// An error on its way to a person: a stable code, what failed and why, and what to do about it.
///
/// Displays as the one line that is printed: `error[code]: message (hint)`. Control characters are replaced, so that
/// text which came from elsewhere (a peer's refusal, a file name) neither breaks the line nor drives the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    exit: Exit,
    code: Cow<'static, str>,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// An error with a stable kebab-case `code`. The message says what failed and why, without a full stop.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: Cow::Borrowed(code),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code the process exits with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The stable code, such as `config-unknown-key`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What failed, and why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The text that goes to stderr: one line, or one line of JSON where the command was asked for JSON.
    pub fn render(&self, format: OutputFormat) -> String {
        match format {
            OutputFormat::Table => self.to_string(),
            OutputFormat::Json => serde_json::json!(ErrorBody::from(self)).to_string(),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: ", OneLine(&self.code))?;
        write!(f, "{}", OneLine(&self.message))?;
        if let Some(hint) = &self.hint {
            write!(f, " ({})", OneLine(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

/// The JSON form of an error, on stderr with `-o json` and in the answers of the admin API:
/// `{"error":{"code":…,"message":…,"hint":…,"exit":…}}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The one member.
    pub error: ErrorDetail,
}

/// The members of [`ErrorBody::error`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The stable code.
    pub code: String,
    /// What failed, and why.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// The exit code that the command should end with; absent means 1.
    #[serde(default)]
    pub exit: Option<u8>,
}

impl From<&CliError> for ErrorBody {
    fn from(error: &CliError) -> Self {
        Self {
            error: ErrorDetail {
                code: error.code.to_string(),
                message: error.message.clone(),
                hint: error.hint.clone(),
                exit: Some(error.exit.number()),
            },
        }
    }
}

impl From<ErrorBody> for CliError {
    fn from(ErrorBody { error }: ErrorBody) -> Self {
        let exit = error.exit.and_then(Exit::from_number);
        Self {
            // An error that claims success would be printed by nobody and end a script well.
            exit: exit.filter(|exit| *exit != Exit::Ok).unwrap_or(Exit::Failure),
            code: Cow::Owned(error.code),
            message: error.message,
            hint: error.hint,
        }
    }
}

/// Shows text with every control character replaced by a space.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_code_reason_and_fix() {
        assert_eq!(
            offline().to_string(),
            "error[node-offline]: node alpha is offline since 09:00 (see tunnel-cloud nodes show alpha)"
        );
    }

    #[test]
    fn an_error_in_json_has_code_message_hint_and_exit() {
        insta::assert_snapshot!(
            offline().render(OutputFormat::Json),
            @r#"{"error":{"code":"node-offline","exit":4,"hint":"see tunnel-cloud nodes show alpha","message":"node alpha is offline since 09:00"}}"#
        );
    }

    #[test]
    fn text_from_elsewhere_cannot_break_the_line_or_drive_the_terminal() {
        let error = CliError::new(Exit::Failure, "refused", "no\nerror[fake]: \x1b[2Jgone");
        assert_eq!(error.to_string(), "error[refused]: no error[fake]:  [2Jgone");
    }

    #[test]
    fn exit_codes_are_the_numbers_scripts_depend_on() {
        let numbers: Vec<u8> = Exit::ALL.into_iter().map(Exit::number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Exit::from_number(4), Some(Exit::NodeOffline));
        assert_eq!(Exit::from_number(8), None);
    }

    #[test]
    fn an_error_survives_the_admin_api_and_can_never_claim_success() {
        let sent = offline();
        assert_eq!(CliError::from(ErrorBody::from(&sent)), sent);

        let mut body = ErrorBody::from(&sent);
        body.error.exit = Some(0);
        assert_eq!(CliError::from(body).exit(), Exit::Failure);
    }

    fn offline() -> CliError {
        CliError::new(Exit::NodeOffline, "node-offline", "node alpha is offline since 09:00")
            .with_hint("see tunnel-cloud nodes show alpha")
    }
}
