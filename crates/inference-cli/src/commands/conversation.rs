//! A conversation and the commands that change it.

use inference::{Message, Role};

/// The messages so far, instructions first.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    messages: Vec<Message>,
}

/// What a line of input asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// Nothing.
    Blank,
    /// An answer to this.
    Say(&'a str),
    /// Other instructions; none: remove them.
    System(Option<&'a str>),
    /// Forget the conversation.
    Reset,
    /// List the commands.
    Help,
    /// End.
    Exit,
    /// A command that does not exist.
    Unknown(&'a str),
}

/// The list that `/help` prints.
pub(super) const HELP: &str = "\
/system TEXT  replace the instructions; without TEXT remove them
/reset        forget the conversation, keep the instructions
/help         this list
/exit         end, as do Ctrl-D, and Ctrl-C at an empty prompt
//TEXT        say /TEXT";

impl<'a> Input<'a> {
    /// Reads a line.
    pub(super) fn parse(line: &'a str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Blank;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::Say(line) };
        if command.starts_with('/') {
            return Self::Say(command);
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = Some(rest.trim()).filter(|r| !r.is_empty());
        match (name, rest) {
            ("system", text) => Self::System(text),
            ("reset", None) => Self::Reset,
            ("help", None) => Self::Help,
            ("exit" | "quit", None) => Self::Exit,
            _ => Self::Unknown(line),
        }
    }
}

impl Conversation {
    /// One with these instructions.
    pub(super) fn new(system: Option<&str>) -> Self {
        let mut conversation = Self::default();
        conversation.set_system(system);
        conversation
    }

    /// Replaces or removes the instructions.
    pub(super) fn set_system(&mut self, text: Option<&str>) {
        self.messages.retain(|m| m.role != Role::System);
        if let Some(text) = text {
            self.messages.insert(0, Message::system(text));
        }
    }

    /// Forgets all but the instructions.
    pub(super) fn reset(&mut self) {
        self.messages.retain(|m| m.role == Role::System);
    }

    /// The user says `text`; gives all messages, to be answered.
    pub(super) fn say(&mut self, text: &str) -> &[Message] {
        self.messages.push(Message::user(text));
        &self.messages
    }

    /// What the model answered. Without an answer the user's message is taken back too, as most templates insist that
    /// turns alternate.
    pub(super) fn answered(&mut self, text: &str) {
        if text.is_empty() {
            self.messages.pop();
        } else {
            self.messages.push(Message::assistant(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        for (line, want) in [
            ("  ", Input::Blank),
            (" hello ", Input::Say("hello")),
            ("//etc", Input::Say("/etc")),
            ("/system be brief", Input::System(Some("be brief"))),
            ("/system", Input::System(None)),
            ("/reset", Input::Reset),
            ("/exit", Input::Exit),
            ("/reset now", Input::Unknown("/reset now")),
            ("/sing", Input::Unknown("/sing")),
        ] {
            assert_eq!(Input::parse(line), want, "{line:?}");
        }
    }

    #[test]
    fn turns_alternate_whatever_happens() {
        let mut c = Conversation::new(Some("s"));
        assert_eq!(c.say("one").len(), 2);
        c.answered("");
        assert_eq!(c.say("two").len(), 2);
        c.answered("2");
        c.set_system(Some("t"));
        let roles: Vec<_> = c.say("three").iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);
        c.reset();
        assert_eq!(c.say("four").len(), 2);
    }
}
