//! The ssh command that runs a program on the backup host.

use std::process::Command;
use std::time::Duration;

/// The backup host, as a database host reaches it.
#[derive(Clone, Debug)]
pub struct BackupHost {
    /// Its name or address, or a `Host` of ssh_config(5).
    pub host: String,
    /// The user there.
    pub user: String,
    /// The port of its sshd, where that is not the configured one.
    pub port: Option<String>,
    /// The program to run there: `barman`, `walarch`, or a path.
    pub program: String,
    /// That program's configuration file, where it is not the default one.
    pub config: Option<String>,
    /// How long nothing may happen before it counts as failed. ssh gives up earlier: see [`BackupHost::command`].
    pub timeout: Duration,
}

impl BackupHost {
    /// An ssh command that runs the program there with these words, each of which arrives as it is.
    ///
    /// ssh asks nothing of anybody, allocates no terminal, and prints errors only: what comes on standard output
    /// was written by the program. The exit status is the program's, or 255 when ssh itself failed (ssh(1)).
    ///
    /// A connection may take a quarter of the time limit. One that is silent is probed every eighth of it, and given
    /// up after three probes without an answer (ssh_config(5)): a dead network is noticed before half of the limit.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        if let Some(port) = &self.port {
            command.args(["-p", port]);
        }
        command.args(["-T", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
        let seconds = |part: Duration| part.as_secs().max(1);
        let connect_s = seconds(self.timeout / 4);
        let probe_s = seconds(self.timeout / 8);
        command.args(["-o", &format!("ConnectTimeout={connect_s}")]);
        command.args(["-o", &format!("ServerAliveInterval={probe_s}")]);
        command.args(["-o", "ServerAliveCountMax=3"]);
        command
            .arg("--")
            .arg(format!("{}@{}", self.user, self.host));
        command.arg(quote(&self.program));
        if let Some(config) = &self.config {
            command.arg(quote(&format!("--config={config}")));
        }
        command.args(words.iter().map(|word| quote(word)));
        command
    }
}

/// ssh joins its arguments by blanks and gives the line to the user's shell over there.
fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=:,./@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> BackupHost {
        BackupHost {
            host: "backup".to_owned(),
            user: "barman".to_owned(),
            port: None,
            program: "barman".to_owned(),
            config: None,
            timeout: Duration::from_secs(120),
        }
    }

    fn line(command: &Command) -> String {
        let arguments: Vec<_> = command
            .get_args()
            .map(|argument| argument.to_str().unwrap())
            .collect();
        arguments.join(" ")
    }

    #[test]
    fn plain_words_stand_as_barman_s_clients_send_them() {
        let line = line(&host().command(&["put-wal", "main", "--test"]));
        assert!(
            line.ends_with("-- barman@backup barman put-wal main --test"),
            "{line}"
        );
    }

    #[test]
    fn the_shell_over_there_gives_every_word_back_as_it_was() {
        let words = ["", "a b", "it's", "$HOME;`id`", "\\", "*", "main"];
        let command = host().command(&words);
        let sent: Vec<_> = command
            .get_args()
            .skip_while(|word| *word != "--")
            .collect();
        let sent: Vec<_> = sent.iter().skip(3).map(|w| w.to_str().unwrap()).collect();
        let script = format!("printf '<%s>' {}", sent.join(" "));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn port_and_configuration_are_passed_on() {
        let host = BackupHost {
            port: Some("2222".to_owned()),
            config: Some("/etc/bar man.conf".to_owned()),
            ..host()
        };
        let line = line(&host.command(&["put-wal", "main"]));
        assert!(line.starts_with("-p 2222 "), "{line}");
        let end = "barman '--config=/etc/bar man.conf' put-wal main";
        assert!(line.ends_with(end), "{line}");
    }
}
