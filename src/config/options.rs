//! Every option of a Barman configuration: one definition each.

use super::option_table::{GLOBAL_OPTIONS, SERVER_OPTIONS};
use super::own::OWN_OPTIONS;
use super::value::Kind;

/// The definition of one option of `barman.conf`.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name in the file.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// The value where none is written, as a template: `%(name)s` stands for another option.
    pub default: Option<&'static str>,
    /// Where it counts.
    pub scope: Scope,
    /// What it does, in a line, with its unit. `None`: only base backups use it.
    pub help: Option<&'static str>,
}

/// Where an option counts. `[barman]` takes any of them without a warning, also where it has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only in `[barman]`.
    Global,
    /// In `[barman]` for all servers, in a server's section and in a model.
    Everywhere,
    /// In `[barman]` for all servers and in a server's section.
    NotInModels,
    /// In a server's section and in a model.
    ServerOrModel,
    /// Only in a server's section.
    Server,
    /// In a server's section and in a model; but only a model's value counts.
    Model,
}

impl OptionSpec {
    /// Whether walarch uses, shows and documents it.
    pub fn is_wal_side(&self) -> bool {
        self.help.is_some()
    }

    /// Whether a server without a value of its own takes that of `[barman]`.
    pub fn is_inherited(&self) -> bool {
        matches!(self.scope, Scope::Everywhere | Scope::NotInModels)
    }

    /// Whether the value in a server's own section counts.
    pub fn is_read_from_server(&self) -> bool {
        !matches!(self.scope, Scope::Global | Scope::Model)
    }

    /// Whether it may stand in a model.
    pub fn is_allowed_in_models(&self) -> bool {
        matches!(
            self.scope,
            Scope::Everywhere | Scope::ServerOrModel | Scope::Model
        )
    }
}

/// The options that may stand in a server's section, in the order in which Barman computes them: a
/// default and an interpolation see the options before them.
pub fn server_options() -> &'static [OptionSpec] {
    SERVER_OPTIONS
}

/// The option of this name among [`server_options`].
pub fn server_option(name: &str) -> Option<&'static OptionSpec> {
    SERVER_OPTIONS.iter().find(|option| option.name == name)
}

/// The options that only `[barman]` has.
pub fn global_options() -> &'static [OptionSpec] {
    GLOBAL_OPTIONS
}

/// The tables of the README's reference, in Markdown: the WAL-side options of `barman.conf`, and
/// `walarch.toml`.
pub fn reference_markdown() -> String {
    let mut out =
        String::from("| option | where | values | default | meaning |\n|---|---|---|---|---|\n");
    let mut server: Vec<&OptionSpec> = SERVER_OPTIONS.iter().collect();
    server.sort_by_key(|option| option.name);
    for option in GLOBAL_OPTIONS.iter().chain(server) {
        let Some(help) = option.help else { continue };
        let place = match option.scope {
            Scope::Global => "`[barman]`",
            Scope::Everywhere => "`[barman]`, server, model",
            Scope::NotInModels => "`[barman]`, server",
            Scope::ServerOrModel => "server, model",
            Scope::Server => "server",
            Scope::Model => "model",
        };
        let default = option
            .default
            .map_or_else(String::new, |default| format!("`{default}`"));
        let values = option.kind.describe();
        out.push_str(&format!(
            "| `{}` | {place} | {values} | {default} | {help} |\n",
            option.name
        ));
    }
    out.push_str("\n| `walarch.toml` | values | default | meaning |\n|---|---|---|---|\n");
    for option in OWN_OPTIONS {
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            option.name, option.values, option.default, option.help
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_helps_are_sentences() {
        let mut seen = HashSet::new();
        for option in SERVER_OPTIONS.iter().chain(GLOBAL_OPTIONS) {
            assert!(seen.insert(option.name), "{} twice", option.name);
            if let Some(help) = option.help {
                assert!(
                    help.ends_with('.') && !help.contains('|'),
                    "{}",
                    option.name
                );
            }
        }
    }

    #[test]
    fn a_default_is_a_value_of_its_kind() {
        for option in SERVER_OPTIONS {
            if let Some(default) = option.default {
                assert!(option.kind.parse(default).is_ok(), "{}", option.name);
            }
        }
    }

    #[test]
    fn the_reference_lists_wal_side_options_only() {
        let text = reference_markdown();
        for name in ["compression", "barman_home", "jobs", "streaming_archiver"] {
            assert!(text.contains(&format!("| `{name}` |")), "{name}");
        }
        assert!(!text.contains("parallel_jobs"));
    }
}
